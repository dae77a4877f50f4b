package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/replication"
)

var _ replication.Protector = (*Link)(nil)

const heartbeatClass = "org.apache.kafka.connect.mirror.MirrorHeartbeatConnector"

// What mending does.
const (
	mendCreate  = "create"
	mendResume  = "resume"
	mendRestart = "restart"
	mendSet     = "set"
)

// restarts is what a change of a connector's configuration costs (P5, P37).
const restarts = "its tasks restart, and one that takes longer than 5 s to end writes some records twice unless the mirror is exactly-once"

// Differences reads the connectors in one request, and asks the workers whether they can write exactly once.
func (l *Link) Differences(ctx context.Context, want replication.Protection) ([]replication.Difference, error) {
	has, err := l.standing(ctx)
	if err != nil {
		return nil, err
	}
	list := l.differences(has, want)
	source := has[l.cfg.Source]
	if source == nil || !source.settings.committed() {
		return list, nil
	}
	const exactly = "exactly.once.support"
	complaints, err := l.client.Complaints(ctx, "MirrorSourceConnector", exactly, map[string]string{
		"connector.class": sourceClass, "name": l.cfg.Source, exactly: "required", "topics": "none", "tasks.max": "1",
		"source.cluster.alias": l.cfg.Names.Source, "target.cluster.alias": l.cfg.Names.Target, "source.consumer.isolation.level": "read_committed",
	})
	if err == nil && len(complaints) > 0 {
		list = append(list, replication.Difference{Kind: replication.KindConnector, Name: l.cfg.Source, Level: replication.LevelWarning, Is: "at least once", Should: "exactly once",
			Do: "set exactly.once.source.support on the workers: preparing on all of them first, then enabled"})
	}
	return list, err
}

// standing are the link's connectors that are there.
func (l *Link) standing(ctx context.Context) (map[string]*Connector, error) {
	all, err := l.client.Connectors(ctx)
	if err != nil {
		return nil, l.explain(ctx, err)
	}
	has := map[string]*Connector{}
	for _, name := range l.connectors() {
		c, ok := all[name]
		if !ok { // the list leaves out a connector that has no status yet
			var err error
			if c, err = l.client.Connector(ctx, name); errors.Is(err, fault.ErrNotFound) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		has[name] = &c
	}
	return has, nil
}

func (l *Link) classOf(name string) string {
	switch name {
	case l.cfg.Source:
		return sourceClass
	case l.cfg.Checkpoint:
		return checkpointClass
	}
	return heartbeatClass
}

func (l *Link) differences(has map[string]*Connector, want replication.Protection) (list []replication.Difference) {
	for _, name := range l.connectors() {
		c := has[name]
		if c == nil {
			list = append(list, l.missing(name, has, want))
			continue
		}
		if d, bad := l.misled(c); bad {
			list = append(list, d)
			continue
		}
		list = append(list, l.resting(c, want)...)
		list = append(list, l.unset(c, want)...)
	}
	if l.cfg.Checkpoint == "" && len(want.Groups) > 0 {
		list = append(list, replication.Difference{Kind: replication.KindOffsetSync, Name: l.cfg.Source, Level: replication.LevelWarning, Is: "no checkpoint connector in the runbook", Should: "one",
			Do: "name a MirrorCheckpointConnector under checkpoint: of the link; without, nobody knows where groups stood when the source is gone"})
	}
	return list
}

// missing is a connector that is not there. One that copies records is never made where offsets of an earlier day may be remembered
// for its name: it would copy from there (P27).
func (l *Link) missing(name string, has map[string]*Connector, want replication.Protection) replication.Difference {
	d := replication.Difference{Kind: replication.KindConnector, Name: name, Level: replication.LevelProblem, Is: "not there", Should: "running"}
	if name != l.cfg.Source {
		d.Level = replication.LevelWarning
	}
	template := l.template(name, has)
	switch {
	case want.Held != "":
		d.Do = "run failback: " + want.Held
	case name == l.cfg.Source && want.Moved:
		d.Do = "the workload was moved before, and Connect may remember where the connector stood that day: make it with initial_state STOPPED, and run failback, which sets its offsets"
	case template == "":
		d.Do = "make it: POST its configuration to " + l.client.names[0] + "/connectors; no connector of the link is left to make it after"
	default:
		d.Action, d.Mend = mendCreate, "make it with the clusters and logins of connector "+template+", as class "+l.classOf(name)
		if name == l.cfg.Source {
			d.Mend += ", stopped; it is let go only where Connect still knows how far each partition is that holds records on the target"
		}
	}
	return d
}

// template is a connector of the link that is there, "" if none is.
func (l *Link) template(but string, has map[string]*Connector) string {
	for _, name := range l.connectors() {
		if name != but && has[name] != nil {
			return name
		}
	}
	return ""
}

// misled is a connector that is not what the runbook says.
func (l *Link) misled(c *Connector) (replication.Difference, bool) {
	policy := map[string]string{PolicyIdentity: identityClass, PolicyDefault: defaultClass}[l.cfg.Names.Policy]
	for _, e := range []struct{ key, usual, want string }{
		{"connector.class", "", l.classOf(c.Name)}, {"enabled", "true", "true"}, {"source.cluster.alias", "source", l.cfg.Names.Source},
		{"target.cluster.alias", "target", l.cfg.Names.Target}, {"replication.policy.class", defaultClass, policy},
	} {
		heartbeat := c.Name == l.cfg.Heartbeat && e.key != "connector.class"
		if got := c.settings.or(e.key, e.usual); got != e.want && !heartbeat {
			return replication.Difference{Kind: replication.KindConnector, Name: c.Name, Level: replication.LevelProblem, Is: e.key + "=" + got, Should: e.key + "=" + e.want,
				Do: "correct the runbook, or the connector"}, true
		}
	}
	return replication.Difference{}, false
}

// resting is what of a connector does not run.
func (l *Link) resting(c *Connector, want replication.Protection) (list []replication.Difference) {
	why := c.ails()
	if len(why) == 0 {
		return nil
	}
	d := replication.Difference{Kind: replication.KindConnector, Name: c.Name, Level: replication.LevelProblem, Is: strings.Join(why, "; "), Should: "running, with all of its tasks"}
	if c.Name != l.cfg.Source {
		d.Level = replication.LevelWarning
	}
	failed := c.State == Failed || slices.ContainsFunc(c.Tasks, func(t Task) bool { return t.State == Failed })
	switch {
	case c.State == Stopped && c.Name == l.cfg.Source:
		d.Do = "run failback, which sets where it goes on before it runs: the offsets that Connect remembers are older than what the target has. If nothing was ever moved, and somebody stopped it by hand, resume it by hand"
	case want.Held != "":
		d.Do = want.Held
	case c.State == Stopped, c.State == Paused:
		d.Action, d.Mend = mendResume, "resume it"
	case failed:
		d.Action, d.Mend = mendRestart, "restart what has failed; it goes on from the offsets that Connect has stored, up to a minute back, and writes that part twice unless the mirror is exactly-once"
	default:
		d.Level, d.Do = replication.LevelWarning, "look again in some seconds, and at the workers' logs if it stays so"
	}
	return append(list, d)
}

// unset are settings that a connector needs and has not.
func (l *Link) unset(c *Connector, want replication.Protection) (list []replication.Difference) {
	s := c.settings
	set := func(kind, level, key, is, should string) {
		d := replication.Difference{Kind: kind, Name: c.Name + " " + key, Level: level, Is: is, Should: should}
		if want.Held != "" {
			d.Do = want.Held
		} else {
			d.Action, d.Set, d.Mend = mendSet, map[string]string{key: should}, "set "+key+"; "+restarts
		}
		list = append(list, d)
	}
	cover := func(kind, level, key string, f filter, names []string) {
		text, err := f.covering(names)
		switch {
		case err != nil:
			list = append(list, replication.Difference{Kind: kind, Name: c.Name + " " + key, Level: level, Is: f.Include + " without " + f.Exclude, Should: "covering " + few(names), Do: err.Error()})
		case text != f.Include:
			set(kind, level, key, f.Include, text)
		}
	}
	if c.Name == l.cfg.Heartbeat {
		return nil
	}
	var topics []string
	for _, t := range want.Topics {
		topics = append(topics, t.Name)
	}
	cover(replication.KindMirror, replication.LevelProblem, "topics", s.topics(), topics)
	if in, err := s.topics().matcher().match(replication.OwnTopics + "marks"); in && err == nil {
		set(replication.KindConnector, replication.LevelProblem, "topics.exclude", s.topics().Exclude, s.topics().Exclude+`, switchback\..*`)
	}
	if c.Name == l.cfg.Checkpoint {
		cover(replication.KindOffsetSync, replication.LevelProblem, "groups", s.groups(), want.Groups)
		if !s.flag("emit.checkpoints.enabled", true) {
			set(replication.KindOffsetSync, replication.LevelProblem, "emit.checkpoints.enabled", "false", "true")
		}
		if !s.flag("sync.group.offsets.enabled", false) {
			set(replication.KindOffsetSync, replication.LevelWarning, "sync.group.offsets.enabled", "false", "true")
		}
		return list
	}
	if strings.EqualFold(s["errors.tolerance"], "all") {
		set(replication.KindConnector, replication.LevelProblem, "errors.tolerance", "all", "none")
	}
	for _, key := range []string{"key.converter", "value.converter", "header.converter"} {
		if s[key] != bytesConverter {
			set(replication.KindConnector, replication.LevelProblem, key, s.or(key, "the worker's own"), bytesConverter)
		}
	}
	if !s.committed() {
		set(replication.KindConnector, replication.LevelWarning, "source.consumer.isolation.level", s.or("source.consumer.isolation.level", "read_uncommitted"), "read_committed")
	}
	return list
}

// covering is Include with what it lacks of the names, each by itself. The error names one that is excluded, or a pattern that is not
// understood.
func (f filter) covering(names []string) (string, error) {
	m := f.matcher()
	add := []string{f.Include}
	for _, n := range names {
		in, err := m.match(n)
		if err != nil {
			return "", err
		}
		if in {
			continue
		}
		if out, _ := m.exclude.match(n); out {
			return "", invalid(n+" is excluded", "take it out of the exclusion, or out of the runbook")
		}
		add = append(add, regexp.QuoteMeta(n))
	}
	return strings.Join(add, ","), nil
}

// Mend does what was shown, one connector after the other; settings of one go in one request, because each costs a restart.
func (l *Link) Mend(ctx context.Context, want replication.Protection, list []replication.Difference) ([]replication.Outcome, error) {
	has, err := l.standing(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]replication.Outcome, 0, len(list))
	settle := func(list []replication.Difference, err error) {
		for _, d := range list {
			o := replication.Outcome{Name: d.ID(), Status: replication.OK}
			if err != nil {
				o.Status, o.Reason = replication.Failed, err.Error()
			}
			out = append(out, o)
		}
	}
	// Settings first: what is resumed or restarted then begins with them.
	sets := map[string]map[string]string{}
	of := map[string][]replication.Difference{}
	for _, d := range list {
		if d.Action == mendSet {
			name := d.Name[:strings.LastIndex(d.Name, " ")]
			if sets[name] == nil {
				sets[name] = map[string]string{}
			}
			maps.Copy(sets[name], d.Set)
			of[name] = append(of[name], d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		settle(of[name], l.changed(ctx, name, sets[name]))
	}
	for _, d := range list {
		one := []replication.Difference{d}
		switch d.Action {
		case mendSet:
		case mendCreate:
			settle(one, l.make(ctx, d.Name, has, want))
		case mendResume:
			settle(one, l.client.Resume(ctx, d.Name))
		case mendRestart:
			settle(one, l.client.Restart(ctx, d.Name))
		default:
			settle(one, errors.New("the link knows no way to mend it"))
		}
	}
	return out, ctx.Err()
}

// changed writes settings of a connector, and leaves all others as they are.
func (l *Link) changed(ctx context.Context, name string, set map[string]string) error {
	config, err := l.client.configuration(ctx, name)
	if err != nil {
		return err
	}
	for key, value := range set {
		config.set(key, value)
	}
	if err := l.client.validate(ctx, name, config); err != nil {
		return err
	}
	return l.client.Configure(ctx, name, config.list())
}

// common are the settings that connectors of one link have in common.
var common = regexp.MustCompile(`^(source|target|producer|consumer|admin|replication\.policy|offset-syncs\.topic|topics)(\..*)?$|^(key|value|header)\.converter$`)

// make makes a connector with the clusters and logins of another one of the link.
func (l *Link) make(ctx context.Context, name string, has map[string]*Connector, want replication.Protection) error {
	after := l.template(name, has)
	if after == "" {
		return fault.Hint(fmt.Errorf("make connector %s: %w: no other connector of the link is there", name, fault.ErrConflict), "look again")
	}
	template, err := l.client.configuration(ctx, after)
	if err != nil {
		return err
	}
	config := configuration{}
	for key, value := range template {
		if common.MatchString(key) {
			config[key] = value
		}
	}
	config.set("name", name)
	config.set("connector.class", l.classOf(name))
	config.set("tasks.max", "1")
	replicas := ""
	for _, key := range []string{"replication.factor", "offset-syncs.topic.replication.factor", "checkpoints.topic.replication.factor", "heartbeats.topic.replication.factor"} {
		if replicas == "" {
			replicas = template.get(key)
		}
	}
	initial, err := l.shaped(config, replicas, want)
	if err != nil {
		return err
	}
	if err := l.client.validate(ctx, name, config); err != nil {
		return err
	}
	if err := l.client.Create(ctx, name, initial, config.list()); err != nil && !errors.Is(err, fault.ErrUnclear) {
		return err
	}
	if initial == Running {
		return nil
	}
	if err := l.reads(ctx, name, config); err != nil {
		return err
	}
	if err := l.remembers(ctx, want.Holding); err != nil {
		return err
	}
	return l.client.Resume(ctx, name)
}

// shaped adds what a class of connector needs of its own, and says how it begins.
func (l *Link) shaped(config configuration, replicas string, want replication.Protection) (State, error) {
	var topics []string
	for _, t := range want.Topics {
		topics = append(topics, t.Name)
	}
	covering := func(key string, f filter, names []string) error {
		text, err := f.covering(names)
		if text = strings.TrimPrefix(text, ","); err == nil && text != "" {
			config.set(key, text)
		}
		return err
	}
	factor := func(key string) {
		if replicas != "" {
			config.set(key, replicas)
		}
	}
	exclude := config.get("topics.exclude")
	if exclude == "" {
		exclude = usualTopicsExclude + `, switchback\..*`
		config.set("topics.exclude", exclude)
	}
	if err := covering("topics", filter{config.get("topics"), exclude}, topics); err != nil {
		return "", err
	}
	switch config.get("connector.class") {
	case sourceClass:
		factor("replication.factor")
		factor("offset-syncs.topic.replication.factor")
		config.set("source.consumer.isolation.level", "read_committed")
		for _, key := range []string{"key.converter", "value.converter", "header.converter"} {
			config.set(key, bytesConverter)
		}
		return Stopped, nil
	case checkpointClass:
		factor("checkpoints.topic.replication.factor")
		factor("offset-syncs.topic.replication.factor")
		config.set("sync.group.offsets.enabled", "true")
		return Running, covering("groups", filter{"", usualGroupsExclude}, want.Groups)
	}
	factor("heartbeats.topic.replication.factor")
	return Running, nil
}

// remembers says whether Connect knows where the source connector goes on in every partition that holds records on the target: what
// it does not know it would copy from the beginning, and everything would be there twice.
func (l *Link) remembers(ctx context.Context, holding []replication.Partition) error {
	list, err := l.client.Offsets(ctx, l.cfg.Source)
	if err != nil {
		return err
	}
	known := l.stored(list)
	for _, p := range holding {
		if _, ok := known[p]; !ok {
			return fault.Hint(fmt.Errorf("connector %s stays stopped: %w: Connect does not know how far %s is, which holds records on the target and would be copied once more", l.cfg.Source, fault.ErrNotReady, p.Name()),
				"run failback, which finds that out and sets it; or delete the topic on the target if it is to be mirrored from the beginning")
		}
	}
	return nil
}
