// Package ledger is what the lab's sample clients wrote down, and what follows from it.
//
// A Writer appends each acknowledged and each read record to the files of its instance; Read takes up the files of all
// instances. ReadCluster fetches what a cluster holds. Judge puts the two side by side and counts what went wrong;
// Compare holds a run's report against the same ledger. Judge and Compare have no I/O, and nothing here knows how a run
// works: the ledger is believed, not the run. Start reading at Judge.
package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Acked is a record that a cluster acknowledged to a producer.
type Acked struct {
	At        time.Time
	Cluster   string
	Epoch     int64
	Client    string
	Instance  string
	Topic     string
	Partition int32
	Offset    int64
	Key       string
	Seq       int64
}

// Seen is a record that a member of a group has processed.
type Seen struct {
	At        time.Time
	Cluster   string
	Epoch     int64
	Client    string
	Instance  string
	Group     string
	Topic     string
	Partition int32
	Offset    int64
	Key       string
	Seq       int64
}

// Committed is an offset that a cluster acknowledged to a member of a group: where the group goes on.
type Committed struct {
	At        time.Time
	Cluster   string
	Epoch     int64
	Client    string
	Instance  string
	Group     string
	Topic     string
	Partition int32
	Offset    int64
}

// Ledger is the files of all instances. The records of an instance are in the order in which it wrote them.
type Ledger struct {
	Acked     []Acked
	Seen      []Seen
	Committed []Committed
	// Renumbered are the clusters' logs by name, where a mirror gives records offsets of its own, as MirrorMaker 2 does;
	// nil where it keeps those of the source, as Cluster Linking does, and an offset means the same on both.
	Renumbered map[string]ClusterLog
	// Outages are brokers that a test has killed under the clients.
	Outages []Outage
}

const (
	ackedSuffix     = ".acked.tsv"
	seenSuffix      = ".read.tsv"
	committedSuffix = ".committed.tsv"
)

// Writer appends to the files of one instance. It is safe for concurrent use.
type Writer struct {
	mu     sync.Mutex
	files  map[string]*os.File // by suffix
	broken error               // after a write that failed half way nothing may follow, or two lines become one
}

// OpenWriter opens <instance>.acked.tsv, .read.tsv and .committed.tsv in dir, and makes what is missing. An end that a
// crash has torn is cut off, so that the next line begins a line.
func OpenWriter(dir, instance string) (*Writer, error) {
	if instance == "" || instance != filepath.Base(instance) || instance[0] == '.' {
		return nil, fmt.Errorf("open ledger: %q cannot be an instance's name, because it names a file: use letters, digits, dots and dashes", instance)
	}
	w := &Writer{files: map[string]*os.File{}}
	for _, suffix := range []string{ackedSuffix, seenSuffix, committedSuffix} {
		f, err := appendTo(filepath.Join(dir, instance+suffix))
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.files[suffix] = f
	}
	return w, nil
}

func appendTo(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	data, err := os.ReadFile(path)
	if whole := bytes.LastIndexByte(data, '\n') + 1; err == nil && whole < len(data) {
		err = f.Truncate(int64(whole))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), f.Close())
	}
	return f, nil
}

// Acked writes the records in one write(2): what it has returned for survives kill -9.
func (w *Writer) Acked(records ...Acked) error {
	var b []byte
	for _, a := range records {
		var err error
		if b, err = appendLine(b, a.At, a.Epoch, a.Partition, a.Offset, a.Seq, a.Key, a.Topic, a.Cluster, a.Client, a.Instance); err != nil {
			return err
		}
	}
	return w.write(ackedSuffix, b)
}

// Seen writes the records in one write(2): what it has returned for survives kill -9.
func (w *Writer) Seen(records ...Seen) error {
	var b []byte
	for _, s := range records {
		var err error
		if b, err = appendLine(b, s.At, s.Epoch, s.Partition, s.Offset, s.Seq, s.Key, s.Topic, s.Cluster, s.Client, s.Instance, s.Group); err != nil {
			return err
		}
	}
	return w.write(seenSuffix, b)
}

// Committed writes the offsets in one write(2), after the cluster has acknowledged them.
func (w *Writer) Committed(offsets ...Committed) error {
	var b []byte
	for _, c := range offsets {
		var err error
		if b, err = appendLine(b, c.At, c.Epoch, c.Partition, c.Offset, 0, "", c.Topic, c.Cluster, c.Client, c.Instance, c.Group); err != nil {
			return err
		}
	}
	return w.write(committedSuffix, b)
}

func (w *Writer) write(suffix string, lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if _, err := w.files[suffix].Write(lines); err != nil {
		w.broken = fmt.Errorf("write ledger: %w", err)
	}
	return w.broken
}

// Close closes the files; nothing is buffered.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.broken, os.ErrClosed) {
		return nil
	}
	w.broken = fmt.Errorf("write ledger: %w", os.ErrClosed)
	var err error
	for _, f := range w.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// appendLine is the format of all files: time, four numbers, then texts, separated by tabs.
func appendLine(b []byte, at time.Time, epoch int64, partition int32, offset, seq int64, texts ...string) ([]byte, error) {
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	for _, n := range []int64{epoch, int64(partition), offset, seq} {
		b = strconv.AppendInt(append(b, '\t'), n, 10)
	}
	for _, s := range texts {
		if strings.ContainsAny(s, "\t\n") {
			return nil, fmt.Errorf("write ledger: %q has a tab or a line break, which separate fields and records here", s)
		}
		b = append(append(b, '\t'), s...)
	}
	return append(b, '\n'), nil
}

// Read takes up every ledger in dir. A torn last line, as a crash leaves it, is left out; any other line that cannot be
// read is an error that names file and line.
func Read(dir string) (*Ledger, error) {
	l, p := &Ledger{}, parser{}
	for _, part := range []struct {
		suffix string
		texts  int
		each   func(n line, t []string)
	}{
		{ackedSuffix, 5, func(n line, t []string) {
			l.Acked = append(l.Acked, Acked{n.at, t[2], n.epoch, t[3], t[4], t[1], n.partition, n.offset, t[0], n.seq})
		}},
		{seenSuffix, 6, func(n line, t []string) {
			l.Seen = append(l.Seen, Seen{n.at, t[2], n.epoch, t[3], t[4], t[5], t[1], n.partition, n.offset, t[0], n.seq})
		}},
		{committedSuffix, 6, func(n line, t []string) {
			l.Committed = append(l.Committed, Committed{n.at, t[2], n.epoch, t[3], t[4], t[5], t[1], n.partition, n.offset})
		}},
	} {
		files, err := filepath.Glob(filepath.Join(dir, "*"+part.suffix))
		if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		for _, path := range files {
			if err := p.file(path, part.texts, part.each); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// LastAcked is the highest acknowledged sequence of each key that instance has written, for a producer that starts
// again. It is empty when the instance has no ledger yet.
func LastAcked(dir, instance string) (map[string]int64, error) {
	last := map[string]int64{}
	err := parser{}.file(filepath.Join(dir, instance+ackedSuffix), 5, func(n line, t []string) {
		last[t[0]] = max(last[t[0]], n.seq)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return last, nil
}

// line is what all lines have before their texts.
type line struct {
	at                 time.Time
	epoch, offset, seq int64
	partition          int32
}

// parser keeps one copy of each text: a ledger repeats few of them millions of times.
type parser map[string]string

func (p parser) file(path string, texts int, each func(line, []string)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	fields := make([]string, texts)
	for number := 1; ; number++ {
		text, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole {
			return nil // the end of the file, or a line that a crash has torn
		}
		n, err := p.line(string(text), fields)
		if err != nil {
			return fmt.Errorf("read ledger: %s line %d: %w", path, number, err)
		}
		each(n, fields)
		data = rest
	}
}

func (p parser) line(text string, texts []string) (line, error) {
	f := strings.Split(text, "\t")
	if len(f) != 5+len(texts) {
		return line{}, fmt.Errorf("it has %d fields, not %d", len(f), 5+len(texts))
	}
	at, err := time.Parse(time.RFC3339Nano, f[0])
	if err != nil {
		return line{}, fmt.Errorf("its time cannot be read: %w", err)
	}
	var n [4]int64
	for i, bits := range []int{64, 32, 64, 64} {
		if n[i], err = strconv.ParseInt(f[1+i], 10, bits); err != nil {
			return line{}, fmt.Errorf("%q is no %s", f[1+i], []string{"epoch", "partition", "offset", "sequence"}[i])
		}
	}
	for i, s := range f[5:] {
		texts[i] = p.one(s)
	}
	return line{at: at, epoch: n[0], partition: int32(n[1]), offset: n[2], seq: n[3]}, nil //nolint:gosec // parsed with 32 bits
}

func (p parser) one(s string) string {
	kept, ok := p[s]
	if !ok {
		kept = strings.Clone(s)
		p[kept] = kept
	}
	return kept
}

// EncodeValue is a record's value: the sequence in decimal, a space, and dots up to size bytes. It is longer than size
// where the sequence needs more.
func EncodeValue(seq int64, size int) []byte {
	b := append(strconv.AppendInt(make([]byte, 0, max(size, 21)), seq, 10), ' ')
	return append(b, slices.Repeat([]byte{'.'}, max(0, size-len(b)))...)
}

// DecodeValue is the sequence that EncodeValue wrote.
func DecodeValue(value []byte) (int64, error) {
	digits, _, ok := bytes.Cut(value, []byte{' '})
	seq, err := strconv.ParseInt(string(digits), 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("a value of %d bytes does not begin with a sequence and a space: it was not written by the lab's producers", len(value))
	}
	return seq, nil
}
