package linkservice

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestLinksAreMadeShownAndDeleted(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	links := "/kafka/v3/clusters/lkc-west/links"
	for _, c := range []struct {
		what, query, body string
		status, code      int
	}{
		{"no name", "?link_name=", `{"source_cluster_id":"lkc-east"}`, 400, 40002},
		{"unknown cluster", "?link_name=x", `{"source_cluster_id":"lkc-north"}`, 400, 40002},
		{"unknown config", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"no.such","value":"1"}]}`, 400, 40002},
		{"bad value", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"acl.sync.enable","value":"yes"}]}`, 400, 40002},
		{"interval too short", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"consumer.offset.sync.ms","value":"1"}]}`, 400, 40002},
		{"long prefix", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"cluster.link.prefix","value":"thirteen-long"}]}`, 400, 40002},
		{"prefix with ACL sync", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"cluster.link.prefix","value":"e."},{"name":"acl.sync.enable","value":"true"}]}`, 400, 40002},
		{"wrong password", "?link_name=x", `{"source_cluster_id":"lkc-east","configs":[{"name":"sasl.jaas.config","value":"M required username=\"link\" password=\"wrong\";"},{"name":"sasl.mechanism","value":"SCRAM-SHA-512"}]}`, 400, 40002},
		{"source half first", "?link_name=x", `{"destination_cluster_id":"lkc-east","configs":[{"name":"link.mode","value":"SOURCE"}]}`, 400, 40002},
	} {
		got := l.call("POST", links+c.query, c.body, c.status)
		if got["error_code"] != float64(c.code) {
			t.Errorf("%s: %v", c.what, got)
		}
		if strings.Contains(fmt.Sprint(got), "wrong\"") {
			t.Errorf("%s: the answer shows the password: %v", c.what, got)
		}
	}
	l.call("POST", links+"?link_name=east-west&validate_only=true", `{"source_cluster_id":"lkc-east"}`, 204)
	l.call("GET", link1, "", 404)
	l.createLink("sasl.jaas.config", `M required username="link" password="link-secret";`, "sasl.mechanism", "SCRAM-SHA-512")
	if got := l.call("POST", links+"?link_name=east-west", `{"source_cluster_id":"lkc-east"}`, 409); got["error_code"] != 40902.0 {
		t.Errorf("same name: %v", got)
	}
	if got := l.call("GET", link1+"/configs/sasl.jaas.config", "", 200); got["value"] != nil || got["is_sensitive"] != true {
		t.Errorf("credentials are shown: %v", got)
	}
	if info, err := os.Stat(l.svc.statePath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v %v", info.Mode(), err)
	}
	l.mirror("orders")
	l.awaitStatus(link1, "orders", "ACTIVE")
	if got := l.call("DELETE", link1, "", 403); got["error_code"] != 40301.0 {
		t.Errorf("delete with a mirror: %v", got)
	}
	l.call("POST", link1+"/mirrors", `{"source_topic_name":"orders"}`, 400)
	l.call("POST", link1+"/mirrors", `{"source_topic_name":"nothing"}`, 404)
	l.call("GET", link1+"/mirrors/nothing", "", 404)
	l.call("GET", "/kafka/v3/clusters/lkc-west/links/-/mirrors", "", 200)
	l.call("DELETE", link1+"?force=true&validate_only=true", "", 200)
	l.call("DELETE", link1+"?force=true", "", 200)
	l.call("GET", link1, "", 404)
	if l.refusesWrites(l.west, "orders") {
		t.Error("the link is gone and its topic still refuses writes")
	}
}

func TestSourceInitiatedLink(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.write(l.east, "orders", 0, "a")
	l.createLink("link.mode", "DESTINATION", "connection.mode", "INBOUND")
	l.call("POST", "/kafka/v3/clusters/lkc-east/links?link_name=east-west", `{"destination_cluster_id":"lkc-west","configs":[`+
		configJSON("link.mode", "SOURCE", "local.sasl.jaas.config", `M required username="link" password="link-secret";`, "local.sasl.mechanism", "SCRAM-SHA-512")+`]}`, 204)
	if a, b := l.call("GET", link1, "", 200), l.call("GET", linkBack, "", 200); a["cluster_link_id"] != b["cluster_link_id"] || b["destination_cluster_id"] != "lkc-west" {
		t.Errorf("halves: %v %v", a, b)
	}
	l.mirror("orders")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 1 })
}

func TestConfigs(t *testing.T) {
	l := newLab(t, nil)
	l.createLink()
	if n := len(l.call("GET", link1+"/configs", "", 200)["data"].([]any)); n != len(defaults) {
		t.Errorf("%d configs, want %d", n, len(defaults))
	}
	value := func(name string) string {
		t.Helper()
		return fmt.Sprint(l.call("GET", link1+"/configs/"+name, "", 200)["value"])
	}
	l.call("PUT", link1+"/configs/consumer.offset.sync.ms", `{"value":"5000"}`, 204)
	if got := value("consumer.offset.sync.ms"); got != "5000" {
		t.Errorf("after PUT: %s", got)
	}
	l.call("DELETE", link1+"/configs/consumer.offset.sync.ms", "", 204)
	if got := value("consumer.offset.sync.ms"); got != "30000" {
		t.Errorf("after DELETE: %s", got)
	}
	filter := `{\"aclFilters\":[]}`
	l.call("PUT", link1+"/configs:alter", `{"data":[{"name":"acl.sync.enable","value":"true"},{"name":"acl.filters","value":"`+filter+`","operation":"SET"}]}`, 204)
	l.call("PUT", link1+"/configs:alter?validate_only=true", `{"data":[{"name":"acl.sync.enable","value":"false"}]}`, 204)
	if got := value("acl.filters"); got != `{"aclFilters":[]}` {
		t.Errorf("filters: %s", got)
	}
	l.call("PUT", link1+"/configs:alter", `{"data":[{"name":"acl.sync.enable","value":"false"}]}`, 204)
	if got := value("acl.filters"); got != "" {
		t.Errorf("filters after turning the sync off: %s", got)
	}
	l.call("PUT", link1+"/configs:alter", `{"data":[{"name":"acl.sync.ms","value":"7"},{"name":"link.mode","value":"SOURCE"}]}`, 400)
	if got := value("acl.sync.ms"); got != "5000" {
		t.Errorf("a refused batch changed a config: %s", got)
	}
	l.call("GET", link1+"/configs/no.such", "", 404)
}

func TestPauseOfTopicAndLink(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	l.awaitStatus(link1, "orders", "ACTIVE")
	l.accepted(link1, "pause", "orders")
	l.awaitStatus(link1, "orders", "PAUSED")
	l.write(l.east, "orders", 0, "a")
	l.accepted(link1, "resume", "orders")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 1 })
	l.call("PUT", link1+"/configs/cluster.link.paused", `{"value":"true"}`, 204)
	l.awaitStatus(link1, "orders", "LINK_PAUSED")
	if got := l.call("GET", link1, "", 200)["link_state"]; got != "PAUSED" {
		t.Errorf("link_state %v", got)
	}
}

func TestLoginIsAsked(t *testing.T) {
	l := newLab(t, nil)
	for _, login := range [][2]string{{"", ""}, {"api", "wrong"}, {"wrong", "api-secret"}} {
		req, err := http.NewRequestWithContext(l.ctx(), "GET", l.svc.URL+"/kafka/v3/clusters/lkc-west/links", nil)
		l.ok(err)
		req.SetBasicAuth(login[0], login[1])
		resp, err := http.DefaultClient.Do(req)
		l.ok(err)
		_ = resp.Body.Close()
		if resp.StatusCode != 401 {
			t.Errorf("%v: %d", login, resp.StatusCode)
		}
	}
}
