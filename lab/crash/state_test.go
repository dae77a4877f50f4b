//go:build crash

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/activities"
	"switchback/lab/linkservice"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/report"
	"switchback/workflows"
)

// state is all that a run leaves behind, as the systems themselves say it, with the names of run and workload taken out:
// two runs that ended in the same way have equal states, whatever was killed on the way.
type state struct {
	Cluster    string
	Epoch      int64
	SwitchedBy string
	Clients    map[string]string   // desired, and what each instance says
	Denied     map[string][]string // by cluster
	ACLSync    string
	Held       []string // names that the link's filters exclude
	Mirrors    []string // topic and status
	Records    map[string][]string
	Entity     string
	Link       string
	Steps      []string // of the report
	Positions  int
	Offsets    int
}

// look reads it.
func (p *play) look(ctx context.Context, r workflows.Result) state {
	p.t.Helper()
	s := state{Clients: map[string]string{}, Denied: map[string][]string{}, Records: map[string][]string{}}
	entry, err := p.bench.Discovery(p.Workload.Name)
	require.NoError(p.t, err)
	defer entry.Close()
	found, err := entry.Read(ctx)
	require.NoError(p.t, err)
	s.Cluster, s.Epoch, s.SwitchedBy = found.Cluster, found.Epoch, found.SwitchedBy
	for name, c := range found.Clients {
		s.Clients[name] = c.Desired
		for id, i := range c.Instances {
			s.Clients[id] = fmt.Sprintf("%s on %s at epoch %d, killed %t", i.State, i.Cluster, i.Epoch, i.Killed)
		}
	}
	for _, cluster := range setup.Clusters {
		s.Denied[cluster] = p.denied(ctx, cluster)
		s.Records[cluster] = p.records(ctx, cluster)
	}
	if p.bench.Options().Link == setup.ClusterLinking {
		configs := p.bench.configs(p.t)
		s.ACLSync = configs["acl.sync.enable"]
		s.Held = p.excluded(configs)
		for topic, status := range p.bench.mirrors(p.t) {
			if strings.HasPrefix(topic, p.Workload.Name+".") {
				s.Mirrors = append(s.Mirrors, topic+" "+status)
			}
		}
		slices.Sort(s.Mirrors)
		s.Link = p.entity(ctx, "link/"+setup.LinkName)
	}
	s.Entity = p.entity(ctx, "runbook/"+p.Workload.Name)
	raw, err := os.ReadFile(r.Report)
	require.NoError(p.t, err, "the report")
	rep, err := report.Parse(raw)
	require.NoError(p.t, err)
	for _, step := range rep.Steps {
		s.Steps = append(s.Steps, step.Name+" "+step.Status)
	}
	s.Positions, s.Offsets = len(rep.Positions), len(rep.Offsets)
	return p.nameless(s, r)
}

// nameless takes out what differs from run to run.
func (p *play) nameless(s state, r workflows.Result) (out state) {
	raw, err := json.Marshal(s)
	require.NoError(p.t, err)
	text := strings.NewReplacer(
		r.Run, "RUN", p.Workload.Name, "W", p.bench.ClusterID("east"), "EAST", p.bench.ClusterID("west"), "WEST",
	).Replace(string(raw))
	require.NoError(p.t, json.Unmarshal([]byte(text), &out))
	return out
}

// denied lists the DENY ACLs on what belongs to the workload.
func (p *play) denied(ctx context.Context, cluster string) []string {
	p.t.Helper()
	list := []string{}
	for _, a := range p.deny(ctx, cluster) {
		list = append(list, fmt.Sprintf("%s on %s %s for %s", a.Operation, a.Type, a.Name, a.Principal))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (p *play) deny(ctx context.Context, cluster string) []kadm.DescribedACL {
	p.t.Helper()
	admin, done := p.admin(cluster)
	defer done()
	b := kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Deny().DenyHosts()
	results, err := admin.DescribeACLs(ctx, b)
	require.NoError(p.t, err)
	var list []kadm.DescribedACL
	for _, r := range results {
		require.NoError(p.t, r.Err)
		for _, a := range r.Described {
			if strings.HasPrefix(a.Name, p.Workload.Name) {
				list = append(list, a)
			}
		}
	}
	return list
}

// records are the keys of what the run remembers on a cluster.
func (p *play) records(ctx context.Context, cluster string) []string {
	p.t.Helper()
	client, err := p.bench.Kafka(cluster, "lab", kgo.ConsumeTopics(activities.MarksTopic))
	require.NoError(p.t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, activities.MarksTopic)
	require.NoError(p.t, err)
	end, _ := ends.Lookup(activities.MarksTopic, 0)
	keys := map[string]bool{}
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		require.NoError(p.t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if key := string(r.Key); strings.Contains(key, p.run.GetRunID()) || strings.Contains(key, "/"+p.Workload.Name+"/") {
				keys[key] = true
			}
		})
	}
	list := []string{}
	for key := range keys {
		list = append(list, key)
	}
	slices.Sort(list)
	return list
}

// entity is what an entity workflow says of itself.
func (p *play) entity(ctx context.Context, id string) string {
	p.t.Helper()
	answer, err := p.Temporal.QueryWorkflow(ctx, id, "", activities.QueryEntity)
	require.NoError(p.t, err)
	var s activities.EntityStatus
	require.NoError(p.t, answer.Get(&s))
	text := fmt.Sprintf("active %s, epoch %d, held %t, abandoned %t, last outcome %s, unprotected %t",
		s.Active, s.Epoch, s.Holder != nil, s.Abandoned != nil, s.LastOutcome, s.UnprotectedSince != nil)
	for _, f := range s.Fencing {
		text += fmt.Sprintf(", %s fenced %t, its loss closed %t, %d written after the switch", f.Cluster, f.Fenced != nil, f.Loss != nil && f.Loss.Closed(), f.Written)
	}
	return text
}

// excluded lists the workload's names that the link's filters hold back.
func (p *play) excluded(configs map[string]string) []string {
	list := []string{}
	for _, name := range []string{"consumer.offset.group.filters", "auto.create.mirror.topics.filters"} {
		var filters map[string][]struct{ Name, FilterType string }
		if configs[name] == "" {
			continue
		}
		require.NoError(p.t, json.Unmarshal([]byte(configs[name]), &filters), configs[name])
		for _, entries := range filters {
			for _, f := range entries {
				if strings.EqualFold(f.FilterType, "EXCLUDE") && strings.HasPrefix(f.Name, p.Workload.Name) {
					list = append(list, f.Name)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

func (p *play) admin(cluster string) (*kadm.Client, func()) {
	p.t.Helper()
	client, err := p.bench.Kafka(cluster, "lab")
	require.NoError(p.t, err)
	return kadm.NewClient(client), client.Close
}

// tidy puts back what workloads share: a fence that still stands would be copied by ACL sync, so it goes first, and with it what is
// remembered of it: ACL sync stays off for others while a fence stands.
func (p *play) tidy(ctx context.Context) {
	p.t.Helper()
	for _, cluster := range setup.Clusters {
		admin, done := p.admin(cluster)
		for _, a := range p.deny(ctx, cluster) {
			b := kadm.NewACLs().ResourcePatternType(a.Pattern).Operations(a.Operation).Deny(a.Principal).DenyHosts(a.Host)
			if a.Type == kmsgTopic {
				b = b.Topics(a.Name)
			} else {
				b = b.Groups(a.Name)
			}
			_, err := admin.DeleteACLs(ctx, b)
			require.NoError(p.t, err)
		}
		require.Empty(p.t, p.deny(ctx, cluster))
		done()
		p.forget(ctx, cluster, "acls/"+p.Workload.Name+"/")
	}
	if p.bench.Options().Link != setup.ClusterLinking {
		return
	}
	p.bench.call(p.t, http.MethodPut, p.bench.linkURL("/configs/acl.sync.enable"), map[string]string{"value": "true"}, nil)
	require.NoError(p.t, p.bench.healthy(ctx, p.t))
}

// forget has a cluster forget what is remembered of the workload under a prefix.
func (p *play) forget(ctx context.Context, cluster, prefix string) {
	p.t.Helper()
	client, err := p.bench.Kafka(cluster, "lab")
	require.NoError(p.t, err)
	defer client.Close()
	for _, of := range setup.Clusters {
		record := kgo.Record{Topic: activities.MarksTopic, Key: []byte(prefix + of)}
		require.NoError(p.t, client.ProduceSync(ctx, &record).FirstErr())
	}
}

// healthy waits until no task of the link speaks of a server that was away: a planned run does not begin over that.
func (b *bench) healthy(ctx context.Context, t *testing.T) error {
	return story.Until(ctx, "the link to be healthy", func() (bool, error) {
		var link struct {
			State string `json:"link_state"`
			Tasks []struct {
				Name   string `json:"task_name"`
				State  string `json:"state"`
				Errors []any  `json:"errors"`
			} `json:"tasks"`
		}
		b.call(t, http.MethodGet, b.linkURL("?include_tasks=true"), nil, &link)
		for _, task := range link.Tasks {
			if len(task.Errors) > 0 {
				return false, fmt.Errorf("%s is %s: %v", task.Name, task.State, task.Errors)
			}
		}
		return link.State == "ACTIVE", errors.New("the link is " + link.State)
	})
}

// configs of the link on west.
func (b *bench) configs(t *testing.T) map[string]string {
	t.Helper()
	var answer struct {
		Data []struct {
			Name  string  `json:"name"`
			Value *string `json:"value"`
		} `json:"data"`
	}
	b.call(t, http.MethodGet, b.linkURL("/configs"), nil, &answer)
	configs := map[string]string{}
	for _, c := range answer.Data {
		if c.Value != nil {
			configs[c.Name] = *c.Value
		}
	}
	return configs
}

func (b *bench) mirrors(t *testing.T) map[string]string {
	t.Helper()
	var answer struct {
		Data []struct {
			Topic  string `json:"mirror_topic_name"`
			Status string `json:"mirror_status"`
		} `json:"data"`
	}
	b.call(t, http.MethodGet, b.linkURL("/mirrors"), nil, &answer)
	statuses := map[string]string{}
	for _, m := range answer.Data {
		statuses[m.Topic] = m.Status
	}
	return statuses
}

// fault makes the link misbehave; the fault is removed by calling what is returned.
func (b *bench) fault(t *testing.T, f linkservice.Fault) (remove func()) {
	t.Helper()
	b.call(t, http.MethodPost, b.LinkURL()+"/lab/faults", f, nil)
	return func() { b.call(t, http.MethodDelete, b.LinkURL()+"/lab/faults/"+f.ID, nil, nil) }
}

func (b *bench) linkURL(path string) string {
	return b.LinkURL() + "/kafka/v3/clusters/" + url.PathEscape(b.ClusterID("west")) + "/links/" + setup.LinkName + path
}

func (b *bench) call(t *testing.T, method, at string, body, answer any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
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
	request.SetBasicAuth(b.LinkLogin().Username, b.LinkLogin().Password.Reveal())
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, 2, response.StatusCode/100, "%s %s: %s", method, at, raw)
	if answer != nil {
		require.NoError(t, json.Unmarshal(raw, answer), "%s", raw)
	}
}
