package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/internal/secret"
	"switchback/lab/kafka"
	"switchback/lab/linkservice"
	"switchback/lab/setup"
	"switchback/replication"
	"switchback/runbooks"
)

// systems is what stands outside of Temporal, as each system says itself.
type systems struct {
	Cluster    string
	Epoch      int64
	SwitchedBy string
	Desired    map[string]string   // by client
	ACLs       map[string][]string // by cluster
	Syncs      map[string]string   // the link's configs that begin or end a sync, and their filters
	Mirrors    map[string]string   // status by topic
}

// look reads all of them.
func (p *play) look() systems {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	s := systems{Desired: map[string]string{}, ACLs: map[string][]string{}, Syncs: p.stage.syncs(p.t), Mirrors: map[string]string{}}
	entry, err := p.Lab.Discovery(p.Workload.Name)
	require.NoError(p.t, err)
	defer entry.Close()
	state, err := entry.Read(ctx)
	require.NoError(p.t, err)
	s.Cluster, s.Epoch, s.SwitchedBy = state.Cluster, state.Epoch, state.SwitchedBy
	for name, c := range state.Clients {
		s.Desired[name] = c.Desired
	}
	for _, cluster := range setup.Clusters {
		s.ACLs[cluster] = p.stage.acls(p.t, cluster)
	}
	for topic, status := range p.stage.mirrors(p.t) {
		if strings.HasPrefix(topic, p.Workload.Name+".") {
			s.Mirrors[topic] = status
		}
	}
	return s
}

// cameBack holds what stands after a run that was taken back against what stood before it. Where producers had been
// asked to stop the epoch is higher by one: who still acts for the old one is refused (P35).
func (p *play) cameBack(before systems, raised bool) {
	p.t.Helper()
	after := p.look()
	want := before
	if raised {
		want.Epoch, want.SwitchedBy = before.Epoch+1, after.SwitchedBy
		require.NotEqual(p.t, before.SwitchedBy, after.SwitchedBy)
	}
	require.Equal(p.t, want, after)
}

// wentOver holds what stands after a completed run: clients on west at the next epoch, the fence on east and nothing of it
// on west, ACL sync off while the fence stands (P5), the mirrors stopped for good.
func (p *play) wentOver(before systems) systems {
	p.t.Helper()
	after := p.look()
	require.Equal(p.t, "west", after.Cluster)
	require.Equal(p.t, before.Epoch+1, after.Epoch)
	for name, desired := range after.Desired {
		require.Equal(p.t, "run", desired, name)
	}
	require.ElementsMatch(p.t, p.fence(), minus(after.ACLs["east"], before.ACLs["east"]), "what was added on east is the fence")
	require.Empty(p.t, minus(before.ACLs["east"], after.ACLs["east"]), "nothing is missing on east")
	require.Equal(p.t, before.ACLs["west"], after.ACLs["west"], "west is as it was")
	require.Equal(p.t, "false", after.Syncs["acl.sync.enable"])
	for topic := range before.Mirrors {
		require.Equal(p.t, "STOPPED", after.Mirrors[topic], topic)
	}
	for _, group := range p.Workload.Groups() {
		require.NotContains(p.t, includes(after.Syncs["consumer.offset.group.filters"]), group, "offset sync would overwrite the group")
	}
	return after
}

// fence is what a completed run leaves on the cluster that it left: WRITE denied on the topics, READ on the groups.
func (p *play) fence() []string {
	var acls []string
	for _, topic := range p.Workload.TopicNames() {
		acls = append(acls, denied("TOPIC", topic, "WRITE"))
	}
	for _, group := range p.Workload.Groups() {
		acls = append(acls, denied("GROUP", group, "READ"))
	}
	return acls
}

func denied(resource, name, operation string) string {
	return fmt.Sprintf("DENY %s on %s %s LITERAL for User:* from *", operation, resource, name)
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// acls lists every ACL of a cluster, sorted.
func (s *stage) acls(t *testing.T, cluster string) []string {
	t.Helper()
	admin := s.admin(t, cluster)
	b := kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().Deny().AllowHosts().DenyHosts()
	results, err := admin.DescribeACLs(t.Context(), b)
	require.NoError(t, err)
	var list []string
	for _, r := range results {
		require.NoError(t, r.Err)
		for _, a := range r.Described {
			list = append(list, fmt.Sprintf("%s %s on %s %s %s for %s from %s", a.Permission, a.Operation, a.Type, a.Name, a.Pattern, a.Principal, a.Host))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// admin is a cluster as its super user sees it.
func (s *stage) admin(t *testing.T, cluster string) *kadm.Client {
	t.Helper()
	c, err := s.Kafka(cluster, "lab")
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return kadm.NewClient(c)
}

// syncs are the configs of the link on west that a run may change.
func (s *stage) syncs(t *testing.T) map[string]string {
	t.Helper()
	var answer struct {
		Data []struct {
			Name  string  `json:"name"`
			Value *string `json:"value"`
		} `json:"data"`
	}
	s.link(t, http.MethodGet, "/configs", nil, &answer)
	configs := map[string]string{}
	for _, c := range answer.Data {
		for _, part := range []string{"consumer.offset.", "acl.", "auto.create.", "cluster.link.paused"} {
			if strings.HasPrefix(c.Name, part) && c.Value != nil {
				configs[c.Name] = *c.Value
			}
		}
	}
	require.NotEmpty(t, configs)
	return configs
}

// setSync changes one config of the link, as somebody else would.
func (s *stage) setSync(t *testing.T, name, value string) {
	t.Helper()
	s.link(t, http.MethodPut, "/configs/"+name, map[string]string{"value": value}, nil)
}

// mirrors are the statuses of all mirrors of the link.
func (s *stage) mirrors(t *testing.T) map[string]string {
	t.Helper()
	var answer struct {
		Data []struct {
			Topic  string `json:"mirror_topic_name"`
			Status string `json:"mirror_status"`
		} `json:"data"`
	}
	s.link(t, http.MethodGet, "/mirrors", nil, &answer)
	statuses := map[string]string{}
	for _, m := range answer.Data {
		statuses[m.Topic] = m.Status
	}
	return statuses
}

// mirror asks the link to pause or resume topics, as somebody else would.
func (s *stage) mirror(t *testing.T, action string, topics ...string) {
	t.Helper()
	s.link(t, http.MethodPost, "/mirrors:"+action, map[string]any{"mirror_topic_names": topics}, nil)
}

// holdUp keeps the mirror from bringing any more.
func (s *stage) holdUp(t *testing.T, w setup.Workload) {
	t.Helper()
	require.NoError(t, s.HoldUp(t.Context(), w))
	if s.Options().Link == setup.MirrorMaker {
		settles(t, s.mirrorMaker(t, setup.Identity), replication.MirrorPaused)
	}
}

// link asks the link's API on west.
func (s *stage) link(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	at := s.LinkURL() + "/kafka/v3/clusters/" + url.PathEscape(s.ClusterID("west")) + "/links/" + setup.LinkName + path
	login := s.LinkLogin()
	s.call(t, method, at, &login, body, answer)
}

func (s *stage) call(t *testing.T, method, at string, login *secret.Login, body, answer any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		content = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, at, content)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	if login != nil {
		request.SetBasicAuth(login.Username, login.Password.Reveal())
	}
	response, err := s.HTTP().Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, 2, response.StatusCode/100, "%s %s: %s", method, at, raw)
	if answer != nil {
		require.NoError(t, json.Unmarshal(raw, answer), "%s", raw)
	}
}

// linkFault makes the link misbehave until the test ends or the fault is removed.
func (s *stage) linkFault(t *testing.T, f linkservice.Fault) (remove func()) {
	t.Helper()
	if f.ID == "" {
		f.ID = strings.Map(func(r rune) rune {
			if strings.ContainsRune("/: ?=", r) {
				return '-'
			}
			return r
		}, f.Kind+f.Path+f.Topic)
	}
	s.call(t, http.MethodPost, s.LinkURL()+"/lab/faults", nil, f, nil)
	return func() { t.Helper(); s.call(t, http.MethodDelete, s.LinkURL()+"/lab/faults/"+f.ID, nil, nil, nil) }
}

// linkHits is how often the faults of the link whose path is this were met.
func (s *stage) linkHits(t *testing.T, path string) (hits int) {
	t.Helper()
	var list []linkservice.Fault
	s.call(t, http.MethodGet, s.LinkURL()+"/lab/faults", nil, nil, &list)
	for _, f := range list {
		if f.Path == path {
			hits += f.Hits
		}
	}
	return hits
}

// kafkaFault makes a cluster misbehave until it is removed.
func (s *stage) kafkaFault(t *testing.T, cluster string, f kafka.Fault) (remove func()) {
	t.Helper()
	f.ID = f.Kind + "-" + f.Key + f.Topic
	s.call(t, http.MethodPost, s.ControlURL(cluster)+"/faults", nil, f, nil)
	return func() { t.Helper(); s.call(t, http.MethodDelete, s.ControlURL(cluster)+"/faults/"+f.ID, nil, nil, nil) }
}

// kafkaHits is how often faults of a cluster were met.
func (s *stage) kafkaHits(t *testing.T, cluster string) map[string]int {
	t.Helper()
	var list []kafka.Fault
	s.call(t, http.MethodGet, s.ControlURL(cluster)+"/faults", nil, nil, &list)
	hits := map[string]int{}
	for _, f := range list {
		hits[f.Key] += f.Hits
	}
	return hits
}

// includes lists the names that a filter of the link includes and does not exclude.
func includes(filter string) []string {
	var groups struct {
		Filters []struct{ Name, FilterType string } `json:"groupFilters"`
	}
	var topics struct {
		Filters []struct{ Name, FilterType string } `json:"topicFilters"`
	}
	_ = json.Unmarshal([]byte(filter), &groups) // of the two, the one that it is
	_ = json.Unmarshal([]byte(filter), &topics)
	var in, out []string
	for _, f := range append(groups.Filters, topics.Filters...) {
		if strings.EqualFold(f.FilterType, "EXCLUDE") {
			out = append(out, f.Name)
		} else {
			in = append(in, f.Name)
		}
	}
	return minus(in, out)
}

// edited changes every runbook of a lab.
func edited(edit func(*runbooks.Runbook)) func(*setup.Options) {
	return func(o *setup.Options) {
		before := o.EditRunbook
		o.EditRunbook = func(b *runbooks.Runbook) {
			if before != nil {
				before(b)
			}
			edit(b)
		}
	}
}

// approvals asks for so many.
func approvals(n int) func(*setup.Options) {
	return edited(func(b *runbooks.Runbook) { b.Gates.Planned.Approvals, b.Gates.Approvers = n, nil })
}

// hasty gives every wait so little time that a test can see its end.
func hasty(b *runbooks.Runbook) {
	soon := runbooks.Duration(8 * time.Second)
	b.Objectives.RTO = runbooks.Duration(15 * time.Second) // what is left of it cuts the budgets that no runbook sets
	b.Budgets.StopClients, b.Budgets.Drain, b.Budgets.StartClients, b.Budgets.Promote, b.Budgets.Verify = soon, soon, soon, soon, soon
}
