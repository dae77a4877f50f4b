package clusterlinking

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"switchback/internal/fault"
	"switchback/replication"
)

var _ replication.Protector = (*Link)(nil)

// What mending does.
const (
	mendCreate = "create"
	mendResume = "resume"
	mendSet    = "set"
)

// Differences reads the link, its configuration and its mirrors.
func (l *Link) Differences(ctx context.Context, want replication.Protection) ([]replication.Difference, error) {
	status, err := l.Status(ctx)
	if errors.Is(err, fault.ErrNotFound) {
		return []replication.Difference{{Kind: replication.KindLink, Name: l.name, Level: replication.LevelProblem, Is: "not there", Should: "there",
			Do: "make it with what only its owner knows, the login on the source: `confluent kafka link create " + l.name + " --cluster " + l.client.cluster + " ...`, or kafka-cluster-links.sh --create on Confluent Platform; then protect again"}}, nil
	}
	if err != nil {
		return nil, err
	}
	mirrors, err := l.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	list := slices.Concat(linkDifferences(status), mirrorDifferences(l.name, status, mirrors, want), offsetDifferences(status.Syncs, want),
		aclDifferences(status.Syncs, want), autoCreateDifferences(status.Syncs, want))
	return list, nil
}

func linkDifferences(s replication.LinkStatus) (list []replication.Difference) {
	if !s.Healthy {
		list = append(list, replication.Difference{Kind: replication.KindLink, Name: s.Name, Level: replication.LevelProblem, Is: s.Reason, Should: "healthy",
			Do: "mend the link: its login on the source, the network between the clusters, or resume it where somebody has paused it; other workloads are on it as well"})
	}
	if slices.ContainsFunc(s.Topics, func(t string) bool { return strings.HasPrefix(t, replication.OwnTopics) }) {
		list = append(list, replication.Difference{Kind: replication.KindLink, Name: s.Name, Level: replication.LevelProblem, Is: "mirroring Switchback's own topics", Should: "leaving " + replication.OwnTopics + "* alone",
			Do: "stop those mirrors and delete their topics, and exclude " + replication.OwnTopics + " in auto.create.mirror.topics.filters"})
	}
	return list
}

func mirrorDifferences(link string, s replication.LinkStatus, mirrors []replication.Mirror, want replication.Protection) (list []replication.Difference) {
	by := make(map[string]replication.Mirror, len(mirrors))
	for _, m := range mirrors {
		by[m.SourceTopic] = m
	}
	home := "run failback, or fail forward: what stands on both sides has to be compared before it is mirrored again"
	for _, t := range want.Topics {
		m, mirrored := by[t.Name]
		_, there := want.There[t.Name]
		d := replication.Difference{Kind: replication.KindMirror, Name: t.Name, Level: replication.LevelProblem, Is: string(m.State), Should: string(replication.MirrorActive)}
		switch {
		case mirrored && m.State == replication.MirrorActive:
			continue
		case !mirrored && there:
			d.Is, d.Do = "no mirror of link "+link+", and a topic of its name is on the target", home
		case !mirrored:
			d.Is, d.Mend, d.Action = "not mirrored", "make a mirror over link "+link+"; it copies the whole topic", mendCreate
		case m.State == replication.MirrorPaused && strings.EqualFold(m.Raw, "PAUSED") && s.Healthy:
			d.Mend, d.Action = "resume it; it goes on where it stands", mendResume
		case m.State == replication.MirrorStarting:
			d.Level, d.Do = replication.LevelWarning, "it is on its way ("+m.Raw+"); look again"
		case m.State == replication.MirrorStopped, m.State == replication.MirrorStopping:
			d.Do = home
		default:
			d.Do = strings.TrimSuffix("the link says "+m.Raw+": "+m.Reason, ": ") + "; a mirror whose source was deleted or made anew has to be deleted and mirrored anew"
		}
		list = append(list, d)
	}
	return list
}

// offsetDifferences: the link's offset sync is on, and its filter covers every group.
func offsetDifferences(now replication.Syncs, want replication.Protection) []replication.Difference {
	if len(want.Groups) == 0 {
		return nil
	}
	d := replication.Difference{Kind: replication.KindOffsetSync, Name: offsetKeys.filter, Level: replication.LevelProblem, Is: orNone(now.Offsets.Filter), Set: map[string]string{}}
	filter, err := covering(now.Offsets.Filter, groupFilters, want.Groups)
	switch {
	case err != nil:
		d.Should, d.Set = "a filter that covers "+few(want.Groups), nil
		d.Do = err.Error()
		return []replication.Difference{d}
	case now.Offsets.Enabled && filter == now.Offsets.Filter:
		return nil
	}
	if filter != now.Offsets.Filter {
		d.Should, d.Set[offsetKeys.filter] = filter, filter
	}
	if !now.Offsets.Enabled {
		d.Name, d.Is, d.Should = offsetKeys.enable, "false", "true, for "+few(want.Groups)
		d.Set[offsetKeys.enable] = "true"
	}
	if want.Held != "" {
		d.Set, d.Do = nil, "its groups are held back: "+want.Held
		return []replication.Difference{d}
	}
	d.Mend, d.Action = "set "+strings.Join(slices.Sorted(maps.Keys(d.Set)), " and ")+"; entries of other workloads stay as they are", mendSet
	return []replication.Difference{d}
}

// aclDifferences: ACL sync is never on while an ACL of some runbook stands (P5), and is what it was before a run suspended it when
// none does. Whether a link syncs ACLs at all is for its owner to say.
func aclDifferences(now replication.Syncs, want replication.Protection) []replication.Difference {
	d := replication.Difference{Kind: replication.KindACLSync, Name: aclKeys.enable, Level: replication.LevelProblem, Is: fmt.Sprint(now.ACLs.Enabled)}
	switch before := want.ACLsBefore; {
	case want.Denied && now.ACLs.Enabled:
		d.Should, d.Action, d.Set = "false, while a fence stands: it would be copied", mendSet, map[string]string{aclKeys.enable: "false", aclKeys.filter: now.ACLs.Filter}
		d.Mend = "turn ACL sync off for the whole link, and keep its filter where the service lets it stand"
	case want.Denied, before == nil || !before.Enabled:
		if now.ACLs.Enabled && strings.TrimSpace(now.ACLs.Filter) == "" {
			return []replication.Difference{{Kind: replication.KindACLSync, Name: aclKeys.filter, Level: replication.LevelWarning, Is: "none", Should: "a filter",
				Do: "ACL sync without a filter copies nothing: set " + aclKeys.filter + " on the link, or turn it off"}}
		}
		return nil
	case !now.ACLs.Enabled:
		d.Level, d.Should, d.Action, d.Set = replication.LevelWarning, "true, as it was before a run had suspended it", mendSet, map[string]string{aclKeys.enable: "true"}
		if before.Filter != "" {
			d.Set[aclKeys.filter] = before.Filter
		}
		d.Mend = "turn ACL sync on again for the whole link, with the filter of that time: " + orNone(before.Filter)
	case strings.TrimSpace(now.ACLs.Filter) == "" && before.Filter != "":
		d.Level, d.Name, d.Is, d.Should, d.Action = replication.LevelWarning, aclKeys.filter, "none", before.Filter, mendSet
		d.Set, d.Mend = map[string]string{aclKeys.filter: before.Filter}, "put back the filter that stood before a run had suspended ACL sync"
	default:
		return nil
	}
	return []replication.Difference{d}
}

// autoCreateDifferences: what a run had held back from auto-create is let go again. Whether topics are mirrored by themselves is for
// the link's owner to say.
func autoCreateDifferences(now replication.Syncs, want replication.Protection) []replication.Difference {
	if !now.Topics.Enabled || want.Held != "" {
		return nil
	}
	var names []string
	for _, t := range want.Topics {
		names = append(names, t.Name)
	}
	filter, err := removeExcludes(now.Topics.Filter, "", topicFilters, names)
	if err != nil || filter == now.Topics.Filter {
		return nil
	}
	return []replication.Difference{{Kind: replication.KindAutoCreate, Name: topicKeys.filter, Level: replication.LevelWarning, Is: now.Topics.Filter, Should: filter,
		Mend: "take out the exclusions of the runbook's own topics", Action: mendSet, Set: map[string]string{topicKeys.filter: filter}}}
}

// covering is the filter that lets all names pass: exclusions of exactly these names are taken out, and those that still do not
// pass are included by name. Every other byte stays. The error says that another entry stands in the way.
func covering(filter, key string, names []string) (string, error) {
	out := filter
	if strings.TrimSpace(out) == "" {
		out = `{"` + key + `":[]}`
	}
	out, err := removeExcludes(out, "", key, names)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(out) == "" { // nothing but our exclusions stood in it
		out = `{"` + key + `":[]}`
	}
	entries, at, err := parseFilter(out, key)
	if err != nil {
		return "", err
	}
	var add []string
	for _, n := range uniq(names) {
		in, err := passes(out, key, n)
		switch {
		case err != nil:
			return "", err
		case in:
			continue
		case !utf8.ValidString(n):
			return "", invalid(fmt.Sprintf("the name %q is no UTF-8", n), "take it out of the runbook")
		}
		add = append(add, entryText(filterEntry{n, "LITERAL", "INCLUDE"}))
	}
	if len(add) > 0 {
		insert := strings.Join(add, ",")
		if len(entries) > 0 {
			at, insert = entries[len(entries)-1].to, ","+insert
		}
		out = out[:at] + insert + out[at:]
	}
	for _, n := range names {
		if in, err := passes(out, key, n); err != nil || !in {
			return "", invalid(n+" is kept out by an exclusion in the filter of the link that is not for it alone", "change that entry, or take the group out of the runbook")
		}
	}
	if sameFilter(out, filter) {
		return filter, nil
	}
	return out, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// Mend makes mirrors, resumes them, and writes settings, all of these in one request: a sync without its filter may be refused.
func (l *Link) Mend(ctx context.Context, _ replication.Protection, list []replication.Difference) ([]replication.Outcome, error) {
	var create, resume []string
	set := map[string]string{}
	for _, d := range list {
		switch d.Action {
		case mendCreate:
			create = append(create, d.Name)
		case mendResume:
			resume = append(resume, d.Name)
		case mendSet:
			maps.Copy(set, d.Set)
		}
	}
	var written error
	if len(set) > 0 {
		if written = l.put(ctx, set); errors.Is(written, fault.ErrUnreachable) {
			return nil, written
		}
	}
	made, err := l.CreateMirrors(ctx, create)
	if err != nil {
		return nil, err
	}
	if len(resume) > 0 {
		resumed, err := l.Pause(ctx, resume, false)
		if err != nil && !errors.Is(err, fault.ErrUnclear) {
			return nil, err
		}
		made = append(made, resumed...)
	}
	out := make([]replication.Outcome, 0, len(list))
	for _, d := range list {
		o := replication.Outcome{Name: d.ID(), Status: replication.OK}
		i := slices.IndexFunc(made, func(m replication.Outcome) bool { return m.Name == d.Name })
		switch {
		case d.Action == mendSet && written != nil:
			o.Status, o.Reason = replication.Failed, written.Error()
		case d.Action != mendSet && i < 0:
			o.Status, o.Reason = replication.Failed, "a link knows no way to mend it"
		case d.Action != mendSet && made[i].Status != replication.OK && made[i].Status != replication.Pending:
			o.Status, o.Reason = replication.Failed, made[i].Reason
		}
		out = append(out, o)
	}
	return out, nil
}

// put writes settings and reads until they stand. Turning a sync off clears its filter, which is put back where the service lets it.
func (l *Link) put(ctx context.Context, set map[string]string) error {
	off := set[aclKeys.enable] == "false"
	var changes []ConfigChange
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if off && name == aclKeys.filter {
			continue
		}
		changes = append(changes, ConfigChange{Name: name, Value: set[name], Reset: set[name] == ""})
	}
	err := l.converge(ctx, func(now replication.Syncs) (missing []ConfigChange, err error) {
		has := map[string]string{
			offsetKeys.enable: fmt.Sprint(now.Offsets.Enabled), offsetKeys.filter: now.Offsets.Filter,
			aclKeys.enable: fmt.Sprint(now.ACLs.Enabled), aclKeys.filter: now.ACLs.Filter, topicKeys.enable: fmt.Sprint(now.Topics.Enabled), topicKeys.filter: now.Topics.Filter,
		}
		for _, c := range changes {
			if !sameFilter(has[c.Name], c.Value) {
				return changes, nil
			}
		}
		return nil, nil
	})
	if err == nil && off {
		l.keepACLFilter(ctx, replication.Syncs{ACLs: replication.Sync{Filter: set[aclKeys.filter]}})
	}
	return err
}
