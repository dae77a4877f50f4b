package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Turns lets a cluster that the workload left mirror the one where it is: the flow is turned round. Failback does it twice,
// towards home before it goes there and the other way afterwards; who stays does it once. Start reading at Examine, which
// says what would happen; turn_position.go does it, turn_fence.go lets the fence give way, turn_flow.go lets it flow.
type Turns struct {
	Outside
	Recoverers Recoverers
}

// TurnInput names the way: Route.From is where the workload is, Route.To the cluster that is to mirror it, Route.Link the
// link between them. Opposite is the link that was stopped when the workload left Route.To.
type TurnInput struct {
	Guard    Guard             `json:"guard"`
	Route    Route             `json:"route"`
	Opposite runbooks.Link     `json:"opposite"`
	Topics   runbooks.Patterns `json:"topics"`
	// Accept names topics of Route.To whose records may go although they exist nowhere else (I9).
	Accept   []string  `json:"accept,omitempty"`
	DryRun   bool      `json:"dryRun,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
}

// Way is how a flow is turned round. Which one a link can do is found out, not assumed.
type Way string

// The ways.
const (
	WayRestore Way = "truncate and restore" // Cluster Linking, bidirectional: topics are cut back to the mark and are mirrors
	WayRebuild Way = "delete and mirror"    // Cluster Linking, one-way: topics are deleted, and mirrored whole
	WayResume  Way = "go on at the marks"   // MirrorMaker 2: nothing is taken, connectors begin at the new cluster's own records
	WayAnew    Way = "mirror everything"    // the cluster is empty
)

// destroys says whether records go that the cluster has.
func (w Way) destroys() bool { return w == WayRestore || w == WayRebuild }

// How a topic of the cluster that is to mirror stands, in the words of plans and pages.
const (
	turnLeft     = "as it was left"
	turnEmpty    = "empty"
	turnMissing  = "missing"
	turnMirrored = "a mirror already"
)

// TurnTopic is what would happen to one topic of the cluster that is to mirror.
type TurnTopic struct {
	Topic string `json:"topic"`
	State string `json:"state"` // missing, empty, a mirror already, as it was left
	// Goes is how many offsets would be truncated or deleted beyond what the new cluster has, and Unsaved how many of these
	// were neither recovered, nor superseded, expired or empty: they exist nowhere else.
	Goes    int64 `json:"goes"`
	Unsaved int64 `json:"unsaved"`
	// Lost is how many stranded offsets nobody can recover any more, because the cluster came back without them; Open says that
	// there may be more, because nobody has read how far it went.
	Lost    int64 `json:"lost,omitempty"`
	Open    bool  `json:"open,omitempty"`
	Deleted int64 `json:"deleted,omitempty"` // all offsets of a topic that is deleted and mirrored whole
	Copy    int64 `json:"copy"`              // offsets that would be mirrored
	// Cut is what the link says that it would take, where it can restore.
	Cut *replication.Cut `json:"cut,omitempty"`
	// Ends are the topic's ends as they were approved: they must be the same when it is deleted (P28).
	Ends []replication.Ends `json:"ends,omitempty"`
}

// TurnPlan is what turning round would do.
type TurnPlan struct {
	Way      Way         `json:"way"`
	Marks    string      `json:"marks,omitempty"` // the run that kept the marks it goes by
	LinkName string      `json:"linkName"`
	Topics   int         `json:"topics"`
	Stranded int64       `json:"stranded"` // offsets beyond the marks that no recovery has accounted for, whatever happens to them
	Goes     int64       `json:"goes"`
	Unsaved  int64       `json:"unsaved"`
	Lost     int64       `json:"lost,omitempty"` // stranded offsets that went with the cluster, or with topics of it
	Open     bool        `json:"open,omitempty"` // there may be more of those
	Deleted  int64       `json:"deleted"`
	Copy     int64       `json:"copy"`
	Worst    []TurnTopic `json:"worst,omitempty"` // topics that lose something, or are not there; at most topicsShown
	Findings []Finding   `json:"findings,omitempty"`
	Done     bool        `json:"done,omitempty"` // it mirrors already
	Text     string      `json:"text"`
}

func turnKey(run, to string) string { return "turn/" + run + "/" + to + "/" }

// turning is a way, opened. What the runbook keeps is read where the workload is: the other cluster may be new.
type turning struct {
	*route
	outside Outside
	in      TurnInput
	rec     records
	ids     [2]string // of From and of To
	there   []replication.Topic
	here    []replication.Topic
	ends    map[replication.Partition]replication.Ends // of To
	own     map[replication.Partition]replication.Ends // of From
	marks   map[replication.Partition]replication.Mark
	run     string  // that kept them
	left    markSet // of the newest switch away from To, also where another cluster answers under its name now
	other   string  // why To is not the cluster that was left; empty where it is, or nobody can say
}

// exists says whether To has the topic, as one that is no mirror.
func (one TurnTopic) exists() bool { return one.State == turnLeft || one.State == turnEmpty }

// nothing says whether nothing of the topic is on To, so that it is mirrored from the start.
func (one TurnTopic) nothing() bool { return one.State == turnMissing || one.State == turnEmpty }

func (a *Turns) begun(ctx context.Context, in TurnInput) (*turning, error) {
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return nil, err
	}
	t := &turning{route: r, outside: a.Outside, in: in, rec: recordsOf(r.to, r.from)}
	if t.here, err = t.from.Topics(ctx, in.Topics.Match); err != nil {
		t.close()
		return nil, wrap("list topics of "+in.Route.From.Name, err)
	}
	return t, nil
}

// surveyed is begun, with what both clusters have, and the marks of the switch that led from To to From.
func (a *Turns) surveyed(ctx context.Context, in TurnInput) (*turning, error) {
	t, err := a.begun(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := t.look(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *turning) look(ctx context.Context) error {
	from, to := t.names.From.Name, t.names.To.Name
	var a, b replication.Identity
	err := sideBySide(
		func() (err error) { a, err = t.from.Identity(ctx); return wrap("read the identity of "+from, err) },
		func() (err error) { b, err = t.to.Identity(ctx); return wrap("read the identity of "+to, err) },
		func() (err error) {
			t.there, err = t.to.Topics(ctx, t.in.Topics.Match)
			return wrap("list topics of "+to, err)
		},
	)
	if err != nil {
		return err
	}
	t.ids = [2]string{a.ClusterID, b.ClusterID}
	var sets []markSet
	var ends, own []replication.Ends
	err = sideBySide(
		func() (err error) {
			own, err = t.from.Ends(ctx, Scope{Topics: t.here}.TopicNames())
			return wrap("read the ends of "+from, err)
		},
		func() (err error) {
			ends, err = t.to.Ends(ctx, Scope{Topics: t.there}.TopicNames())
			return wrap("read the ends of "+to, err)
		},
		func() (err error) {
			sets, err = markSetsWhere(ctx, t.rec.to, func(m replication.Mark) bool {
				here := m.SourceCluster == b.ClusterID || m.SourceCluster == "" || m.From == to
				return here && m.TargetCluster == a.ClusterID && t.in.Topics.Match(m.Topic)
			})
			return err
		},
	)
	if err != nil {
		return err
	}
	t.ends, t.own, t.marks = byPartition(ends), byPartition(own), map[replication.Partition]replication.Mark{}
	if len(sets) > 0 {
		t.left = sets[0]
		t.other = otherCluster(to, t.left.Marks[0], b.ClusterID)
	}
	if len(sets) > 0 && t.other == "" {
		t.run = sets[0].Run
		for _, m := range sets[0].Marks {
			t.marks[m.Partition] = m
		}
	}
	return nil
}

func byPartition(ends []replication.Ends) map[replication.Partition]replication.Ends {
	by := make(map[replication.Partition]replication.Ends, len(ends))
	for _, e := range ends {
		by[e.Partition] = e
	}
	return by
}

// Examine says how the flow would be turned round, and what that takes: by topic, what is truncated or deleted, and how much
// of it exists nowhere else. It keeps what it found, because exactly that is approved and done (P28).
func (a *Turns) Examine(ctx context.Context, in TurnInput) (out TurnPlan, err error) {
	ctx, _ = begin(ctx)
	t, err := a.surveyed(ctx, in)
	if err != nil {
		return out, err
	}
	defer t.close()
	states, err := t.mirrors(ctx)
	if err != nil {
		return out, err
	}
	status, err := t.link.Status(ctx)
	if errors.Is(err, fault.ErrNotFound) && in.Route.Link.MirrorMaker != nil { // its connectors are made
		status, err = replication.LinkStatus{Name: in.Route.Link.MirrorMaker.Source}, nil
	}
	if err != nil {
		return out, wrap("read the link", err)
	}
	out.LinkName, out.Marks, out.Topics = status.Name, t.run, len(t.here)
	e := &examined{turning: t, states: states, out: &out}
	e.identities()
	list, err := e.topics(ctx, a.Recoverers)
	if err != nil {
		return out, err
	}
	if err := e.judge(ctx, list); err != nil {
		return out, err
	}
	if in.DryRun || (PreflightResult{Findings: out.Findings}).Problems() > 0 {
		return out, nil
	}
	if err := furnished(ctx, t.to, in.Route.To.Name, MarksTopic); err != nil {
		return out, err
	}
	killpoint.Reach("Examine/middle")
	return out, putList(ctx, t.rec, turnKey(in.Guard.Run.ID(), in.Route.To.Name), list)
}

// mirrors are the states of the link's mirrors by topic; a link that is not there has none.
func (t *turning) mirrors(ctx context.Context) (map[string]replication.Mirror, error) {
	list, err := t.link.Mirrors(ctx)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, wrap("read the mirrors", err)
	}
	states := map[string]replication.Mirror{}
	for _, m := range list {
		states[m.SourceTopic] = m
	}
	return states, nil
}

// kept is what Examine found, as it was approved.
func (t *turning) kept(ctx context.Context) ([]TurnTopic, error) {
	list, err := getList[TurnTopic](ctx, t.rec.to, turnKey(t.in.Guard.Run.ID(), t.names.To.Name))
	if errors.Is(err, fault.ErrNotFound) {
		err = fault.Hint(err, "what was approved is gone from %s; start the run again", MarksTopic)
	}
	return list, err
}

// examined judges what was looked at.
type examined struct {
	*turning
	states map[string]replication.Mirror
	out    *TurnPlan
}

func (e *examined) add(check, level, means, do string) {
	e.out.Findings = append(e.out.Findings, Finding{Check: check, Level: level, Means: means, Do: do})
}

// topics are those of the runbook, where the workload is: what each would lose on the other cluster, and how much would come.
func (e *examined) topics(ctx context.Context, open Recoverers) ([]TurnTopic, error) {
	saved, err := e.saved(ctx, open)
	if err != nil {
		return nil, err
	}
	gone, err := e.stranded(ctx, saved)
	if err != nil {
		return nil, err
	}
	there := map[string]replication.Topic{}
	for _, t := range e.there {
		there[t.Name] = t
		if !slices.ContainsFunc(e.here, func(h replication.Topic) bool { return h.Name == t.Name }) {
			e.add("topics", LevelWarning, fmt.Sprintf("%s has topic %s, and %s has not: it was deleted there", e.names.To.Name, t.Name, e.names.From.Name), "it is left as it is, and goes nowhere")
		}
	}
	list := make([]TurnTopic, 0, len(e.here))
	for _, t := range e.here {
		one := TurnTopic{Topic: t.Name, State: turnLeft}
		old, ok := there[t.Name]
		switch m := e.states[t.Name]; {
		case !ok:
			one.State = turnMissing
		case m.State == replication.MirrorActive || m.State == replication.MirrorStarting:
			one.State = turnMirrored
		case e.empty(old):
			one.State = turnEmpty
		case old.Partitions != t.Partitions:
			e.add("partitions", LevelProblem, fmt.Sprintf("topic %s has %d partitions on %s and %d on %s", t.Name, t.Partitions, e.names.From.Name, old.Partitions, e.names.To.Name),
				"give both the same number, or delete the topic on "+e.names.To.Name+" by hand once nothing there is needed")
		}
		if one.nothing() {
			e.lost(&one, gone)
		}
		for p := range int32(t.Partitions) { //nolint:gosec // Kafka's own numbers are 32 bits
			e.count(&one, replication.Partition{Topic: t.Name, Partition: p}, saved)
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b TurnTopic) int { return compare(a.Topic, b.Topic) })
	return list, nil
}

// count adds one partition. Offsets of To beyond the mark are what only it has.
func (e *examined) count(one *TurnTopic, p replication.Partition, saved map[replication.Partition]int64) {
	mark, marked := e.marks[p]
	mine, end := e.own[p], e.ends[p]
	if marked {
		one.Copy += max(0, mine.LogEnd-mark.TargetEnd)
	} else {
		one.Copy += mine.LogEnd - mine.Start
	}
	if !one.exists() {
		return
	}
	one.Ends = append(one.Ends, end)
	one.Deleted += end.LogEnd - end.Start
	goes := end.LogEnd - end.Start
	if marked && mark.Boundary != replication.Unknown {
		goes = max(0, end.LogEnd-mark.Boundary)
	}
	one.Goes += goes
	if e.run != "" { // otherwise it is another cluster's records that were saved
		goes -= min(goes, saved[p])
	}
	one.Unsaved += goes
}

// saved counts, for each partition, what a recovery has accounted for so that nothing of it is lost: copied, overtaken by a
// newer value, or not there any more.
func (e *examined) saved(ctx context.Context, open Recoverers) (map[replication.Partition]int64, error) {
	by := map[replication.Partition]int64{}
	if e.left.Run == "" {
		return by, nil
	}
	copier, err := open.Open(ctx, e.names.To, e.names.From)
	if err != nil {
		return nil, wrap("read how far recoveries are", err)
	}
	defer copier.Close()
	list, err := copier.Recoveries(ctx, e.left.tail())
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, wrap("read how far recoveries are", err)
	}
	for _, r := range list {
		by[r.Partition] = r.Tally.Sum() - r.Tally.Left - r.Tally.Refused
	}
	return by, nil
}
