package linkservice

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func faultLab(t *testing.T) *lab {
	l := newLab(t, nil)
	l.topic(l.east, "a", 3)
	l.topic(l.east, "b", 3)
	l.createLink()
	l.mirror("a")
	l.mirror("b")
	l.awaitStatus(link1, "a", "ACTIVE")
	l.awaitStatus(link1, "b", "ACTIVE")
	return l
}

func TestFaultsBeforeAndAfterTheAction(t *testing.T) {
	l := faultLab(t)
	pause := `{"mirror_topic_names":["a"]}`
	for _, c := range []struct {
		fault   Fault
		status  int // 0: no answer
		body    string
		applied bool
	}{
		{Fault{Kind: "unauthorized"}, 401, "40101", false},
		{Fault{Kind: "tooMany"}, 429, "<html>", false},
		{Fault{Kind: "refuse", Status: 403, Value: "Request is not authorized"}, 403, "not authorized", false},
		{Fault{Kind: "resetBefore"}, 0, "", false},
		{Fault{Kind: "error", Status: 500}, 500, "Internal Server Error", true},
		{Fault{Kind: "error", Status: 503}, 503, "50003", true},
		{Fault{Kind: "reset"}, 0, "", true},
		{Fault{Kind: "slow", Delay: 30 * time.Millisecond}, 200, "AlterMirrorsData", true},
		{Fault{Kind: "malformed"}, 200, "", true},
		{Fault{Kind: "status", Status: 201}, 201, "", true},
	} {
		t.Run(fmt.Sprint(c.fault.Kind, c.fault.Status), func(t *testing.T) {
			l.noFaults()
			c.fault.Path, c.fault.Times = "mirrors:pause", 1
			l.fault(c.fault)
			start := time.Now()
			resp, body, err := l.raw("POST", link1+"/mirrors:pause", pause)
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("answered %d %s", resp.StatusCode, body)
			case c.status != 0 && err != nil:
				t.Fatal(err)
			case c.status != 0 && (resp.StatusCode != c.status || !strings.Contains(string(body), c.body)):
				t.Errorf("%d %s", resp.StatusCode, body)
			case time.Since(start) < c.fault.Delay:
				t.Error("not slow")
			}
			if c.status == 401 || c.status == 429 || c.status >= 500 {
				l.conforms("POST", link1+"/mirrors:pause", pause, resp, body)
			}
			if got := l.status(link1, "a"); (got == "PAUSED") != c.applied {
				t.Errorf("mirror is %s, applied: %v", got, c.applied)
			}
			if c.applied {
				l.accepted(link1, "resume", "a")
			}
		})
	}
}

func TestFaultOfTheRequestThatActs(t *testing.T) {
	l := faultLab(t)
	l.fault(Fault{Kind: "resetBefore", Path: "mirrors:pause?validate_only=false"})
	pause := `{"mirror_topic_names":["a"]}`
	if resp, body, err := l.raw("POST", link1+"/mirrors:pause?validate_only=true", pause); err != nil || resp.StatusCode != 200 {
		t.Errorf("the question was hit: %v %s", err, body)
	}
	if _, _, err := l.raw("POST", link1+"/mirrors:pause?validate_only=false", pause); err == nil {
		t.Error("the request that acts was not hit")
	}
}

func TestFaultsInsideAnswers(t *testing.T) {
	l := faultLab(t)
	get := func() string {
		_, b, err := l.raw("GET", link1+"/mirrors/a", "")
		l.ok(err)
		return string(b)
	}
	for _, c := range []struct {
		fault Fault
		want  string
	}{
		{Fault{Kind: "topicStatus", Value: "PENDING_TELEPORT"}, `"mirror_status":"PENDING_TELEPORT"`},
		{Fault{Kind: "topicLag", Value: "77"}, `"lag":77`},
		{Fault{Kind: "minusOne"}, `"last_source_fetch_offset":-1`},
		{Fault{Kind: "refuse", Status: 404, Value: "not yet"}, `not yet`},
	} {
		l.fault(c.fault)
		if got := get(); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.fault.Kind, got)
		}
		l.noFaults()
	}
	l.fault(Fault{Kind: "unordered"})
	if got := get(); strings.Index(got, `"partition":0`) < strings.Index(got, `"partition":1`) && strings.Index(got, `"partition":1`) < strings.Index(got, `"partition":2`) {
		t.Errorf("in order: %s", got)
	}
	l.noFaults()
	l.fault(Fault{Kind: "missingPartition"})
	if got := get(); strings.Contains(got, `"partition":0`) {
		t.Errorf("partition 0 is there: %s", got)
	}
	l.noFaults()
	l.fault(Fault{Kind: "emptyLink"})
	if n := len(l.call("GET", "/kafka/v3/clusters/lkc-west/links", "", 200)["data"].([]any)); n != 2 {
		t.Errorf("%d links, want the empty one too", n)
	}
	l.fault(Fault{Kind: "oldShape"})
	if _, b, err := l.raw("GET", link1+"/configs/acl.sync.ms", ""); err != nil || !strings.Contains(string(b), `"read_only":false`) || strings.Contains(string(b), "is_read_only") {
		t.Errorf("old shape: %s %v", b, err)
	}
}

func TestFaultsOfSingleTopics(t *testing.T) {
	l := faultLab(t)
	l.fault(Fault{Kind: "topicError", Topic: "a", Status: 401})
	if codes := l.action(link1, "promote", "a", "b"); codes[0] != 401.0 || codes[1] != nil {
		t.Errorf("error codes %v, want [401 nil]", codes)
	}
	l.awaitStatus(link1, "b", "STOPPED")
	if got := l.status(link1, "a"); got != "ACTIVE" {
		t.Errorf("refused topic is %s", got)
	}
	l.noFaults()
	l.fault(Fault{Kind: "stuck", Topic: "a"})
	l.accepted(link1, "promote", "a")
	for range 20 {
		if got := l.status(link1, "a"); got != "PENDING_STOPPED" {
			t.Fatalf("stuck topic is %s", got)
		}
	}
	l.fault(Fault{Kind: "mirrorFailed", Topic: "a", Value: "ILLEGAL_STATE"})
	if got := l.call("GET", link1+"/mirrors/a", "", 200); got["mirror_status"] != "FAILED" || got["mirror_topic_error"] != "ILLEGAL_STATE" {
		t.Errorf("failed mirror: %v %v", got["mirror_status"], got["mirror_topic_error"])
	}
	l.noFaults()
	l.accepted(link1, "failover", "a")
	l.awaitStatus(link1, "a", "STOPPED")
}
