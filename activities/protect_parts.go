package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// What Protect looks at besides the link itself: configs that drifted, Switchback's own topics, the closed standby and the clients'
// logins.

// one decodes a record; the zero value where there is none.
func one[T any](kept loaded, key string) (out T, err error) {
	raw, ok := kept[key]
	if !ok {
		return out, nil
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("decode record %s: %w", key, err)
	}
	return out, nil
}

// prefix is what stands before the names of mirrored topics on the target.
func (s *guarded) prefix() string { return s.r.link.Prefix() }

// drift compares the configs of the mirrors with their sources'.
func (s *guarded) drift(ctx context.Context) ([]replication.Difference, error) {
	var both []string
	for _, t := range s.want.Topics {
		if _, ok := s.want.There[t.Name]; ok {
			both = append(both, t.Name)
		}
	}
	if len(both) == 0 || s.want.Held != "" { // a fenced cluster keeps its stranded records on purpose
		return nil, nil
	}
	var from, to map[string]map[string]string
	err := sideBySide(
		func() (err error) { from, err = s.r.from.TopicConfigs(ctx, both); return err },
		func() (err error) { to, err = s.r.to.TopicConfigs(ctx, both); return ignoreMissing(err) },
	)
	return replication.Drift(s.want.Topics, s.want.There, from, to), wrap("read topic configs", err)
}

func (s *guarded) mendConfig(ctx context.Context, d replication.Difference) error {
	topic, _, _ := strings.Cut(d.Name, " ")
	return s.r.to.AlterTopicConfigs(ctx, map[string]map[string]*string{s.prefix() + topic: pointers(d.Set)})
}

func pointers(set map[string]string) map[string]*string {
	out := make(map[string]*string, len(set))
	for key, value := range set {
		out[key] = &value
	}
	return out
}

// ownTopics looks at Switchback's own topics on both clusters, and at who else may write them (P20).
func (s *guarded) ownTopics(ctx context.Context) ([]replication.Difference, error) {
	parts := make([][]replication.Difference, 2)
	look := func(i int, site Site, on Kafka) error {
		mine := func(name string) bool { return strings.HasPrefix(name, replication.OwnTopics) }
		has, err := ownOf(on).Topics(ctx, mine)
		if err != nil {
			return wrap("list Switchback's own topics of "+site.Name, err)
		}
		configs := map[string]map[string]string{}
		if names := (Scope{Topics: has}).TopicNames(); len(names) > 0 {
			if configs, err = ownOf(on).TopicConfigs(ctx, names); err != nil {
				return wrap("read the configs of Switchback's own topics of "+site.Name, err)
			}
		}
		acls, err := on.ACLs(ctx)
		if err != nil {
			return wrap("read the ACLs of "+site.Name, err)
		}
		parts[i] = append(replication.OwnTopicsLack(site.Name, has, configs), s.strangers(site, on, acls)...)
		return nil
	}
	err := sideBySide(
		func() error { return look(0, s.in.Route.From, s.r.from) },
		func() error { return look(1, s.in.Route.To, s.r.to) },
	)
	return slices.Concat(parts...), err
}

// ownOf is a cluster under its own names: Switchback's own topics are not mirrored, and so not renamed.
func ownOf(on Kafka) Kafka {
	if p, ok := on.(prefixed); ok {
		return p.Kafka
	}
	return on
}

// strangers may write what runs trust. Taking a grant away is for its owner.
func (s *guarded) strangers(site Site, on Kafka, acls []replication.ACL) []replication.Difference {
	var who []string
	for _, acl := range replication.WriteGrants(acls, []string{MarksTopic, PositionsTopic, replication.RecoveryTopic}) {
		may := func(topic string) bool {
			return replication.Allowed(acls, replication.Request{Principal: acl.Principal, Host: replication.Anywhere, ResourceType: replication.ResourceTopic, Name: topic, Operation: replication.OpWrite})
		}
		if acl.Principal != on.Principal() && !slices.Contains(who, acl.Principal) && (may(MarksTopic) || may(PositionsTopic) || may(replication.RecoveryTopic)) {
			who = append(who, acl.Principal)
		}
	}
	if len(who) == 0 {
		return nil
	}
	slices.Sort(who)
	return []replication.Difference{{Kind: replication.KindOwnTopic, Name: "writers on " + site.Name, Level: replication.LevelWarning, Is: strings.Join(who, ", "), Should: "nobody but " + on.Principal(),
		Do: "narrow their grants, or deny them WRITE on TOPIC PREFIXED " + replication.OwnTopics + ": runs trust what stands there"}}
}

// mendOwnTopic makes one of Switchback's own topics, or sets a config of it.
func (s *guarded) mendOwnTopic(ctx context.Context, d replication.Difference) error {
	name, site, _ := strings.Cut(d.Name, " on ")
	on := s.r.to
	if site == s.in.Route.From.Name {
		on = s.r.from
	}
	if d.Action == "set" {
		return on.AlterTopicConfigs(ctx, map[string]map[string]*string{name: pointers(d.Set)})
	}
	for _, spec := range replication.OwnTopicSpecs() {
		if spec.Name == name {
			err := on.CreateTopic(ctx, spec)
			if errors.Is(err, fault.ErrConflict) {
				return nil
			}
			return err
		}
	}
	return fmt.Errorf("%s is no topic of Switchback's own: %w", name, fault.ErrInvalid)
}

// writers are the principals of the runbook's clients that may write on the standby, each once.
func (s *guarded) writers() (list []string) {
	for _, c := range s.in.Runbook.Clients {
		if c.Role != runbooks.RoleConsumer && !slices.Contains(list, c.Principal) {
			list = append(list, c.Principal)
		}
	}
	return list
}

// mirrored are the mirrors that are there, by their names on the target.
func (s *guarded) mirrored() (topics []string) {
	for _, t := range s.want.Topics {
		if _, ok := s.want.There[t.Name]; ok {
			topics = append(topics, s.prefix()+t.Name)
		}
	}
	return topics
}

// standby: nobody but the mirror writes to a standby whose mirrors are topics like any other (P11).
func (s *guarded) standby() (list []replication.Difference) {
	if s.r.link.StopIsFinal() {
		return nil
	}
	to := s.in.Route.To.Name
	lacks := replication.Missing(replication.Closed(s.writers(), s.mirrored()), s.acls)
	if len(lacks) > 0 {
		d := replication.Difference{Kind: replication.KindStandby, Name: to, Level: replication.LevelWarning,
			Is: fmt.Sprintf("open for %s on %s", firstFew(principalsOf(lacks)), firstFew(aclNames(lacks))), Should: "closed for the runbook's clients, until a run takes them there"}
		switch {
		case s.want.Held != "":
			d.Do = s.want.Held
		case s.reversed != "":
			d.Do = s.reversed
		default:
			d.Mend = fmt.Sprintf("deny WRITE by name, %d ACLs that the runbook owns; a run lifts them on every broker just before it switches", len(lacks))
		}
		list = append(list, d)
	}
	known := append(s.writers(), s.r.from.Principal(), s.r.to.Principal())
	if mm := s.in.Route.Link.MirrorMaker; mm != nil {
		known = append(known, mm.Principals.Data, mm.Principals.Admin)
	}
	var strangers []string
	for _, acl := range replication.WriteGrants(s.acls, s.mirrored()) {
		if !slices.Contains(known, acl.Principal) {
			strangers = append(strangers, acl.String())
		}
	}
	if len(strangers) > 0 {
		list = append(list, replication.Difference{Kind: replication.KindWriters, Name: to, Level: replication.LevelWarning, Is: firstFew(strangers), Should: "grants of the runbook's clients alone",
			Do: "name them as clients of the runbook, or take the grants away: their records would count as mirrored, and no run stops them"})
	}
	return list
}

func principalsOf(acls []replication.ACL) (list []string) {
	for _, a := range acls {
		if !slices.Contains(list, a.Principal) {
			list = append(list, a.Principal)
		}
	}
	return list
}

func aclNames(acls []replication.ACL) (list []string) {
	for _, a := range acls {
		if !slices.Contains(list, a.Name) {
			list = append(list, a.Name)
		}
	}
	return list
}

// logins uses the credentials of every client on every cluster of the route (a run cannot).
func (a *Protection) logins(ctx context.Context, s *guarded) []replication.Difference {
	type login struct {
		site   Site
		client runbooks.Client
	}
	var all []login
	for _, site := range []Site{s.in.Route.From, s.in.Route.To} {
		for _, c := range s.in.Runbook.Clients {
			all = append(all, login{site, c})
		}
	}
	found := make([][]replication.Difference, len(all))
	jobs := make([]func() error, len(all))
	for i, l := range all {
		jobs[i] = func() error {
			path := s.in.Runbook.Credentials.PathFor(l.site.Name, l.client.Name)
			d := replication.Difference{Kind: replication.KindCredentials, Name: l.client.Name + " on " + l.site.Name, Level: replication.LevelWarning, Should: "a login as " + l.client.Principal,
				Do: "write working credentials into Vault at " + path}
			if l.site.Name == s.in.Route.To.Name {
				d.Level = replication.LevelProblem // nobody could go there
			}
			as, err := a.Clusters.OpenAs(ctx, l.site, path)
			if err == nil {
				defer as.Close()
				_, err = as.Identity(ctx)
			}
			switch {
			case err != nil:
				d.Is = err.Error()
			case as.Principal() != l.client.Principal:
				d.Is = "a login as " + as.Principal()
			default:
				return nil
			}
			found[i] = []replication.Difference{d}
			return nil
		}
	}
	_ = sideBySide(jobs...) // each has its own difference
	return slices.Concat(found...)
}
