package report

import (
	"fmt"
	"strconv"
	"time"
)

// LaggedData is what a recovery did with the records that a failover had stranded. Offsets are the old cluster's.
type LaggedData struct {
	Tail        string            `json:"tail"`                         // the mark set: <id of the old cluster>/<run that kept it>
	Epoch       int64             `json:"epoch"`                        // of the switch that stranded them
	Marked      *time.Time        `json:"marked" jsonschema:"nullable"` // when its mirrors stopped
	Settled     bool              `json:"settled"`                      // what became of each offset was read back; false: nothing was touched
	Finished    bool              `json:"finished"`                     // nothing is left to recover
	Total       LaggedTopic       `json:"total"`
	Topics      []LaggedTopic     `json:"topics,omitempty"`
	Partitions  []LaggedPartition `json:"partitions,omitempty"` // every one; absent in a compact report
	ReadAlready []ReadAlready     `json:"readAlready,omitempty"`
}

// Became says what became of stranded offsets. Its fields add up to how many they are.
type Became struct {
	Recovered  int64 `json:"recovered"`
	Superseded int64 `json:"superseded"` // the new cluster had a newer value of the key
	Expired    int64 `json:"expired"`    // gone from the old cluster before anybody read it
	Aborted    int64 `json:"aborted"`    // records of transactions that were aborted
	Blank      int64 `json:"blank"`      // offsets without a record
	Refused    int64 `json:"refused"`    // the new cluster does not take them
	Left       int64 `json:"left"`       // still on the old cluster, and nowhere else
}

// Sum of all fields.
func (b Became) Sum() int64 {
	return b.Recovered + b.Superseded + b.Expired + b.Aborted + b.Blank + b.Refused + b.Left
}

// LaggedTopic counts one topic.
type LaggedTopic struct {
	Topic      string `json:"topic"`
	Treatment  string `json:"treatment,omitempty" jsonschema:"enum=append,enum=divert,enum=rewind,enum=report"`
	Into       string `json:"into,omitempty"` // the topic on the new cluster that has the copies
	Partitions int    `json:"partitions"`
	Stranded   int64  `json:"stranded"`
	Became
	Bytes int64    `json:"bytes"` // of what was recovered
	Why   []string `json:"why,omitempty"`
}

// LaggedPartition is the account of one partition: its offsets from From up to, not including, To.
type LaggedPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Treatment string `json:"treatment" jsonschema:"enum=append,enum=divert,enum=rewind,enum=report"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Next      int64  `json:"next"` // first offset that was not handled
	Became
	Bytes     int64    `json:"bytes"`
	Into      string   `json:"into,omitempty"` // <topic>-<partition> on the new cluster
	FirstCopy *int64   `json:"firstCopy" jsonschema:"nullable"`
	LastCopy  *int64   `json:"lastCopy" jsonschema:"nullable"`
	Run       string   `json:"run,omitempty"` // that handled it last
	Why       []string `json:"why,omitempty"` // why records were refused or left
}

// ReadAlready is a group that had read stranded records on the old cluster, and reads their copies again.
type ReadAlready struct {
	Group   string `json:"group"`
	Topic   string `json:"topic"`
	Records int64  `json:"records"`
}

const becameColumns = "Stranded|Recovered|Superseded|Expired|Aborted|No record|Refused|Left|Sum"

func (b Became) cells(stranded int64) []string {
	cells := []string{strconv.FormatInt(stranded, 10)}
	for _, n := range []int64{b.Recovered, b.Superseded, b.Expired, b.Aborted, b.Blank, b.Refused, b.Left} {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	sum := strconv.FormatInt(b.Sum(), 10)
	if b.Sum() != stranded {
		sum = "**" + sum + ", which is not what was stranded**"
	}
	return append(cells, sum)
}

// summary of a recovery stands where a failover has its loss.
func (d *LaggedData) summary(w *writer, r Report) {
	w.line("- **Recovered:** %d records, %d bytes, of %d offsets that were stranded on %s", d.Total.Recovered, d.Total.Bytes, d.Total.Stranded, esc(r.From))
	if n := d.Total.Superseded + d.Total.Expired + d.Total.Refused + d.Total.Left; n > 0 {
		w.line("- **Not recovered:** %d superseded by newer values, %d expired, %d refused, %d left on %s", d.Total.Superseded, d.Total.Expired, d.Total.Refused, d.Total.Left, esc(r.From))
	}
	w.line("- **Route:** %s to %s, marks of the switch at epoch %d, made at %s", esc(r.From), esc(r.To), d.Epoch, clock(d.Marked))
}

// accounts are the tables: every topic, and every partition as far as people read that.
func (d *LaggedData) accounts(w *writer) {
	if d == nil {
		return
	}
	if len(d.Topics) > 0 {
		w.table("What became of it", "Topic|Way|"+becameColumns)
		for _, t := range append(d.Topics[:len(d.Topics):len(d.Topics)], d.Total) {
			w.row(append([]string{esc(t.Topic), esc(t.Treatment)}, t.cells(t.Stranded)...)...)
		}
	}
	if n := len(d.Partitions); n > 0 && n <= manyPartitions {
		w.table("Partitions", "Partition|Offsets|Copies in|"+becameColumns)
		for _, p := range d.Partitions {
			into := "none"
			if p.FirstCopy != nil && p.LastCopy != nil {
				into = fmt.Sprintf("%s, %d to %d", esc(p.Into), *p.FirstCopy, *p.LastCopy)
			}
			offsets := "none"
			if p.To > p.From {
				offsets = fmt.Sprintf("%d to %d", p.From, p.To-1)
			}
			w.row(append([]string{esc(fmt.Sprintf("%s-%d", p.Topic, p.Partition)), offsets, into}, p.cells(p.To-p.From)...)...)
		}
	}
	var why []string
	for _, t := range d.Topics {
		for _, s := range t.Why {
			why = append(why, t.Topic+", "+s)
		}
	}
	for _, p := range d.Partitions {
		for _, s := range p.Why {
			why = append(why, fmt.Sprintf("%s-%d, %s", p.Topic, p.Partition, s))
		}
	}
	if more := len(why) - manyPartitions; more > 0 {
		why = append(why[:manyPartitions], fmt.Sprintf("and %d more, in the JSON", more))
	}
	w.list("Left or refused", why)
	if len(d.ReadAlready) > 0 {
		w.table("Read on the old cluster already", "Group|Topic|Offsets")
		for _, g := range d.ReadAlready {
			w.row(esc(g.Group), esc(g.Topic), strconv.FormatInt(g.Records, 10))
		}
	}
}
