package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"switchback/internal/secret"
	"switchback/lab/kafka"
	"switchback/lab/linkservice"
)

// LinkName of the one link that all workloads share.
const LinkName = "east-west"

func (l *Lab) linkLogin() secret.Login {
	return secret.Login{Username: "switchback", Password: l.secrets.password("link-rest")}
}

func (l *Lab) linkConfig() linkservice.Config {
	user := func(s secret.Login) linkservice.User {
		return linkservice.User{Name: s.Username, Password: kafka.Password(s.Password.Reveal())}
	}
	cfg := linkservice.Config{
		Addr: l.state.address("link"), Dir: l.path("link"), Timings: l.options.LinkTimings,
		Users: []linkservice.User{user(l.linkLogin())}, CAFile: l.certs.ca, CertFile: l.certs.cert, KeyFile: l.certs.key,
	}
	for _, cluster := range Clusters {
		cfg.Clusters = append(cfg.Clusters, linkservice.ClusterEndpoint{
			Name: cluster, ID: l.state.ClusterIDs[cluster], Bootstrap: l.state.bootstrap(cluster),
			ControlURL: l.ControlURL(cluster),
			Admin:      user(l.login(cluster, superuser)), Link: user(l.login(cluster, linkUser)),
		})
	}
	return cfg
}

// linkAnswers is nil when the link's API does.
func (l *Lab) linkAnswers(ctx context.Context) error {
	status, err := l.rest(ctx, http.MethodGet, Clusters[1], "/links", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the link's API says %d to a list of links", status)
	}
	return err
}

// provisionLink makes the link and a mirror for each topic, unless there is a link already: then its mirrors may have
// been promoted long ago.
func (l *Lab) provisionLink(ctx context.Context) error {
	east, west := Clusters[0], Clusters[1]
	status, err := l.rest(ctx, http.MethodGet, west, "/links/"+LinkName, nil)
	if err != nil || status == http.StatusOK {
		return err
	}
	forward := l.linkBody(east, map[string]string{
		"consumer.offset.sync.enable": "true", "consumer.offset.sync.ms": "1000", "consumer.offset.group.filters": l.groupFilters(),
		"acl.sync.enable": "true", "acl.sync.ms": "1000", "acl.filters": everyACL,
		"topic.config.sync.ms": "1000",
	})
	if err := l.must(ctx, west, "/links?link_name="+LinkName, forward); err != nil {
		return fmt.Errorf("make the link: %w", err)
	}
	// The other half, or the link of the other direction, mirrors nothing yet; its syncs are off, or ACLs would go round in
	// circles.
	if err := l.must(ctx, east, "/links?link_name="+LinkName, l.linkBody(west, nil)); err != nil {
		return fmt.Errorf("make the link's other half: %w", err)
	}
	whole := ctx
	mirrors, ctx := errgroup.WithContext(ctx)
	mirrors.SetLimit(8)
	for _, w := range l.options.Workloads {
		for _, topic := range w.TopicNames() {
			mirrors.Go(func() error {
				return l.must(ctx, west, "/links/"+LinkName+"/mirrors", map[string]string{"source_topic_name": topic})
			})
		}
	}
	if err := mirrors.Wait(); err != nil {
		return fmt.Errorf("make mirrors: %w", err)
	}
	return l.autoCreate(whole)
}

// autoCreate is turned on when the mirrors stand: beside their making it would meet topics that exist already, and the
// link would say that it is unwell.
func (l *Lab) autoCreate(ctx context.Context) error {
	alter := func(name, value string) map[string]string {
		return map[string]string{"name": name, "value": value, "operation": "SET"}
	}
	body := map[string]any{"data": []map[string]string{
		alter("auto.create.mirror.topics.enable", "true"), alter("auto.create.mirror.topics.filters", l.topicFilters()),
	}}
	if _, err := l.rest(ctx, http.MethodPut, Clusters[1], "/links/"+LinkName+"/configs:alter", body); err != nil {
		return fmt.Errorf("turn auto-create on: %w", err)
	}
	return nil
}

func (l *Lab) linkBody(remote string, configs map[string]string) map[string]any {
	all := map[string]string{
		"bootstrap.servers": strings.Join(l.state.bootstrap(remote), ","),
		"security.protocol": l.certs.protocol(), "sasl.mechanism": "SCRAM-SHA-512",
	}
	body := map[string]any{}
	if l.options.OneWayLink {
		body["source_cluster_id"] = l.state.ClusterIDs[remote]
	} else {
		body["remote_cluster_id"] = l.state.ClusterIDs[remote]
		all["link.mode"] = "BIDIRECTIONAL"
	}
	for name, value := range configs {
		all[name] = value
	}
	var list []map[string]string
	for name, value := range all {
		list = append(list, map[string]string{"name": name, "value": value})
	}
	body["configs"] = list
	return body
}

const everyACL = `{"aclFilters":[{"resourceFilter":{"resourceType":"any","patternType":"any"},"accessFilter":{"operation":"any","permissionType":"any"}}]}`

func (l *Lab) groupFilters() string {
	var filters []map[string]string
	for _, w := range l.options.Workloads {
		for _, group := range w.Groups() {
			filters = append(filters, map[string]string{"name": group, "patternType": "LITERAL", "filterType": "INCLUDE"})
		}
	}
	return compact(map[string]any{"groupFilters": filters})
}

func (l *Lab) topicFilters() string {
	var filters []map[string]string
	for _, w := range l.options.Workloads {
		filters = append(filters, map[string]string{"name": w.Name + ".", "patternType": "PREFIXED", "filterType": "INCLUDE"})
	}
	return compact(map[string]any{"topicFilters": filters})
}

// must posts, and takes "exists already" for done: auto-create may have been faster.
func (l *Lab) must(ctx context.Context, cluster, path string, body any) error {
	status, err := l.rest(ctx, http.MethodPost, cluster, path, body)
	switch {
	case err != nil && strings.Contains(err.Error(), "already"):
		return nil
	case status == http.StatusNotFound:
		return fmt.Errorf("POST %s: not found on %s", path, cluster)
	}
	return err
}

// rest asks the link's API at a cluster. 404 is an answer, every other one that is not 2xx is an error.
func (l *Lab) rest(ctx context.Context, method, cluster, path string, body any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, l.LinkURL()+"/kafka/v3/clusters/"+url.PathEscape(l.state.ClusterIDs[cluster])+path, content)
	if err != nil {
		return 0, err
	}
	login := l.linkLogin()
	request.SetBasicAuth(login.Username, login.Password.Reveal())
	request.Header.Set("Content-Type", "application/json")
	response, err := l.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if response.StatusCode/100 != 2 && response.StatusCode != http.StatusNotFound {
		return response.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return response.StatusCode, nil
}
