package apache

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchback/internal/secret"
	"switchback/lab/servers"
	"switchback/lab/tree"
)

//go:embed connect.properties
var connectProperties []byte

// Principals of Kafka Connect and MirrorMaker 2, on both clusters. None is a super user.
const (
	ConnectUser = "connect"   // the worker's own topics and its group
	DataUser    = "mm2-data"  // writes the records of a mirror
	AdminUser   = "mm2-admin" // reads from the source, makes topics, syncs ACLs and groups on the target
)

// Users of Kafka Connect and MirrorMaker 2.
var Users = []string{ConnectUser, DataUser, AdminUser}

// Worker is one worker of Kafka Connect.
type Worker struct {
	Name      string // connect-west, as its process and its group are called
	Dir       string // settings and secrets
	Log       string
	Host      string   // of the REST API; 127.0.0.1 when empty
	Port      int      // of the REST API
	Bootstrap []string // of the cluster that it writes to
	TLS       TLS      // of the clusters, and of the REST API
	Replicas  int      // of its topics
	// ExactlyOnce lets connectors write exactly once: exactly.once.source.support=enabled.
	ExactlyOnce bool
	Login       secret.Login // of the REST API
	// Passwords of Users, by the names that connect.properties and the connectors know: connect, mm2-data, mm2-admin.east,
	// mm2-admin.west.
	Passwords map[string]secret.Value
	// Options of its java besides those that the lab always gives.
	JVM []string
}

// loginModule makes Connect ask for the logins of a file.
const loginModule = `KafkaConnect {
  org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule required file="%s";
};
`

// WriteFiles writes what the worker reads from its folder, mode 0600: connect.properties, the logins that it and its
// connectors have (secrets.properties), and those that its REST API asks for (jaas.conf leads to logins.properties).
func (w Worker) WriteFiles() error {
	encrypted, err := w.encrypted()
	if err != nil {
		return fmt.Errorf("write the files of %s: %w", w.Name, err)
	}
	var passwords strings.Builder
	for _, user := range slices.Sorted(maps.Keys(w.Passwords)) {
		fmt.Fprintf(&passwords, "%s=%s\n", user, w.Passwords[user].Reveal())
	}
	for name, content := range map[string]string{
		"connect.properties": string(connectProperties) + encrypted, "secrets.properties": passwords.String(),
		"logins.properties": w.Login.Username + "=" + w.Login.Password.Reveal() + "\n",
		"jaas.conf":         fmt.Sprintf(loginModule, w.file("logins.properties")),
	} {
		if err := servers.WriteFile(w.file(name), []byte(content)); err != nil {
			return fmt.Errorf("write the files of %s: %w", w.Name, err)
		}
	}
	return nil
}

// encrypted is what connect.properties needs besides with TLS: whom clients trust, and what the REST API shows.
func (w Worker) encrypted() (string, error) {
	shown, err := w.TLS.store(w.Dir, "listeners.https.")
	if err != nil || len(shown) == 0 {
		return "", err
	}
	all := "\n" + strings.Join(shown, "\n") + "\n"
	for _, prefix := range []string{"", "producer.", "admin.", "consumer."} {
		all += lines(w.TLS.trust(prefix))
	}
	return all, nil
}

func (w Worker) file(name string) string { return filepath.Join(w.Dir, name) }

// Spec is the worker's process. Its secrets go by files that it reads itself.
func (w Worker) Spec(r Runtime) (tree.Spec, error) {
	if err := w.WriteFiles(); err != nil {
		return tree.Spec{}, err
	}
	exactly := "disabled"
	if w.ExactlyOnce {
		exactly = "enabled"
	}
	args := r.args("512m", append([]string{"-Djava.security.auth.login.config=" + w.file("jaas.conf")}, w.JVM...)...)
	return tree.Spec{
		Name: w.Name, Path: r.Java, Args: append(args, "org.apache.kafka.connect.cli.ConnectDistributed", w.file("connect.properties")),
		Env: []string{
			"CONNECT_BOOTSTRAP=" + strings.Join(w.Bootstrap, ","), "CONNECT_PROTOCOL=" + w.TLS.protocol(), "CONNECT_GROUP=" + w.Name,
			"CONNECT_LISTENERS=" + w.URL(), "CONNECT_REPLICATION=" + strconv.Itoa(w.Replicas), "CONNECT_EXACTLY_ONCE=" + exactly,
		},
		Dir: w.Dir, Log: w.Log, Ready: w.ready, ReadyWithin: 3 * time.Minute, Grace: 5 * time.Second,
	}, nil
}

// URL of the REST API.
func (w Worker) URL() string {
	scheme := "http://"
	if w.TLS.on() {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(cmp.Or(w.Host, loopback), strconv.Itoa(w.Port))
}

func (w Worker) ready(ctx context.Context) error {
	return w.ask(ctx, http.MethodGet, "/health", nil, nil)
}

// Connector is one connector: its name and its whole configuration.
type Connector struct {
	Name   string
	Config map[string]string
}

// Create makes connectors, and returns when each of them and all of its tasks run. One that is there already is left as it
// is: somebody may have stopped it for good.
func (w Worker) Create(ctx context.Context, connectors ...Connector) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, c := range connectors {
		// A checkpoint connector has no task before the first group has committed.
		tasks := 1
		if strings.HasSuffix(c.Config["connector.class"], ".MirrorCheckpointConnector") {
			tasks = 0
		}
		there := w.ask(ctx, http.MethodGet, "/connectors/"+url.PathEscape(c.Name), nil, nil)
		if there == nil {
			continue
		}
		if !errors.Is(there, errNotFound) {
			return fmt.Errorf("create connector %s: %w", c.Name, there)
		}
		err := servers.Until(ctx, func() error {
			return w.ask(ctx, http.MethodPut, "/connectors/"+url.PathEscape(c.Name)+"/config", c.Config, nil)
		})
		if err == nil {
			err = servers.Until(ctx, func() error { return w.runs(ctx, c.Name, tasks) })
		}
		if err != nil {
			return fmt.Errorf("create connector %s: %w", c.Name, err)
		}
	}
	return nil
}

// runs is nil once a connector and all of its tasks are RUNNING, so many at least.
func (w Worker) runs(ctx context.Context, name string, tasks int) error {
	type state struct {
		State string `json:"state"`
		Trace string `json:"trace"`
	}
	var status struct {
		Connector state   `json:"connector"`
		Tasks     []state `json:"tasks"`
	}
	if err := w.ask(ctx, http.MethodGet, "/connectors/"+url.PathEscape(name)+"/status", nil, &status); err != nil {
		return err
	}
	for _, s := range append(status.Tasks, status.Connector) {
		if s.State != "RUNNING" {
			return fmt.Errorf("it is %s: %s", s.State, s.Trace)
		}
	}
	if len(status.Tasks) < tasks {
		return errors.New("it has no task yet")
	}
	return nil
}

var errNotFound = errors.New("not found")

// ask sends a request to the REST API. 404 is errNotFound.
func (w Worker) ask(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, w.URL()+path, content)
	if err != nil {
		return err
	}
	request.SetBasicAuth(w.Login.Username, w.Login.Password.Reveal())
	request.Header.Set("Content-Type", "application/json")
	client, err := w.TLS.client()
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	switch {
	case response.StatusCode == http.StatusNotFound:
		return errNotFound
	case response.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, data[:min(len(data), 1000)])
	case err != nil || answer == nil:
		return err
	}
	return json.Unmarshal(data, answer)
}
