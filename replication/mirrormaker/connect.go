package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
	"switchback/replication"
)

// State is a word of Connect's for a connector or a task.
type State string

// The states that Connect knows. A connector is Stopped, never a task: a stopped connector has none.
const (
	Running    State = "RUNNING"
	Paused     State = "PAUSED"
	Stopped    State = "STOPPED"
	Failed     State = "FAILED"
	Unassigned State = "UNASSIGNED"
	Restarting State = "RESTARTING"
)

// About is who answers.
type About struct {
	Version string `json:"version"`
	Cluster string `json:"kafka_cluster_id"` // id of the Kafka cluster that the workers themselves live on
}

// Connector is one connector as Connect tells of it. State is "" where it has no status yet.
type Connector struct {
	Name     string
	State    State
	Why      string // of a FAILED one: first line and cause
	Tasks    []Task
	settings settings
}

// Task of a connector.
type Task struct {
	ID    int
	State State
	Why   string // of a FAILED one: first line and cause
}

// Idle says whether the connector is stopped and nothing of it runs any more. The answer to a stop is only the intent.
func (c Connector) Idle() bool { return c.State == Stopped && len(c.Tasks) == 0 }

type wireStatus struct {
	Name      string     `json:"name"`
	Connector *wireState `json:"connector"`
	Tasks     []wireState
}

type wireState struct {
	ID    int    `json:"id"`
	State string `json:"state"`
	Trace string `json:"trace"`
}

// connector is what a status says. Without one nothing is known: neither a state nor that there are no tasks.
func (w *wireStatus) connector(name string) Connector {
	c := Connector{Name: name}
	if w == nil || w.Connector == nil {
		return c
	}
	c.State, c.Why = State(w.Connector.State), cause(w.Connector.Trace)
	for _, t := range w.Tasks {
		c.Tasks = append(c.Tasks, Task{t.ID, State(t.State), cause(t.Trace)})
	}
	slices.SortFunc(c.Tasks, func(a, b Task) int { return a.ID - b.ID })
	return c
}

// cause is the first line of a stack trace and the last of its causes, which is what an operator can act upon.
func cause(trace string) string {
	if len(trace) > 64<<10 {
		trace = trace[:64<<10]
	}
	first, rest1, _ := strings.Cut(strings.TrimSpace(trace), "\n")
	why := rest.Plain(first, nil)
	if i := strings.LastIndex(rest1, "Caused by: "); i >= 0 {
		line, _, _ := strings.Cut(rest1[i+len("Caused by: "):], "\n")
		why += ": " + rest.Plain(line, nil)
	}
	return why
}

func connectorPath(name, rest string) string { return "/connectors/" + url.PathEscape(name) + rest }

// About asks who answers. fault.ErrInvalid when it is no Kafka Connect, as MirrorMaker 2 in dedicated mode is none;
// fault.ErrUnreachable where that may be one that is only starting, and knows none of its addresses yet.
func (c *Client) About(ctx context.Context) (About, error) {
	var a About
	err := c.read(ctx, "/", nil, &a)
	if errors.Is(err, fault.ErrNotFound) || errors.Is(err, rest.ErrMalformed) {
		return About{}, fault.Hint(fmt.Errorf("%s: what answers is no Kafka Connect, or one that is starting: %w", strings.Join(c.names, ", "), fault.ErrUnreachable), notConnect)
	}
	if err == nil && (a.Version == "" || a.Cluster == "") {
		return About{}, invalid(strings.Join(c.names, ", ")+": what answers is no Kafka Connect", notConnect)
	}
	if err != nil {
		return About{}, fmt.Errorf("ask Connect who it is: %w", err)
	}
	return a, nil
}

// Health asks every worker how it is: an outcome for each, by its address.
func (c *Client) Health(ctx context.Context) []replication.Outcome {
	out := make([]replication.Outcome, len(c.workers))
	_ = each(c.workers, func(i int, w *rest.Client) error {
		var said struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		}
		err := w.Send(ctx, rest.Reading, http.MethodGet, "/health", nil, nil, &said)
		if e, ok := rest.AsError(err); ok && e.Status == http.StatusNotFound { // before 4.0
			err = w.Send(ctx, rest.Reading, http.MethodGet, "/", nil, nil, &struct{}{})
		}
		out[i] = replication.Outcome{Name: c.names[i], Status: replication.OK}
		if err != nil {
			out[i].Status, out[i].Reason = replication.Failed, err.Error()
		}
		return nil
	})
	return out
}

// Connectors reads states and settings of every connector, in one request.
func (c *Client) Connectors(ctx context.Context) (map[string]Connector, error) {
	var all map[string]struct {
		Status *wireStatus `json:"status"`
		Info   *struct {
			Config settings `json:"config"`
		} `json:"info"`
	}
	if err := c.read(ctx, "/connectors", url.Values{"expand": {"status", "info"}}, &all); err != nil {
		return nil, fmt.Errorf("list connectors: %w", err)
	}
	if all == nil {
		return nil, fmt.Errorf("list connectors: %w", rest.ErrMalformed)
	}
	out := make(map[string]Connector, len(all))
	for name, w := range all {
		connector := w.Status.connector(name)
		if w.Info != nil {
			connector.settings = w.Info.Config
		}
		out[name] = connector
	}
	return out, nil
}

// Connector reads the state and the settings of one connector. fault.ErrNotFound when there is none of that name.
func (c *Client) Connector(ctx context.Context, name string) (Connector, error) {
	var config settings
	if err := c.read(ctx, connectorPath(name, "/config"), nil, &config); err != nil {
		return Connector{}, fmt.Errorf("read connector %s: %w", name, err)
	}
	var status *wireStatus
	err := c.read(ctx, connectorPath(name, "/status"), nil, &status)
	if err != nil && !errors.Is(err, fault.ErrNotFound) { // a connector that was just made has no status yet
		return Connector{}, fmt.Errorf("read connector %s: %w", name, err)
	}
	connector := status.connector(name)
	connector.settings = config
	return connector, nil
}

// Stop asks for a connector to be stopped: it keeps its configuration and its offsets, and loses its tasks. An answer is
// the intent alone; read the state until it is Idle.
func (c *Client) Stop(ctx context.Context, name string) error { return c.ask(ctx, name, "stop") }

// Pause asks for a connector and its tasks to be paused. The tasks keep running and hold what they hold.
func (c *Client) Pause(ctx context.Context, name string) error { return c.ask(ctx, name, "pause") }

// Resume asks for a stopped or paused connector to run again, from the offsets that Connect has stored.
func (c *Client) Resume(ctx context.Context, name string) error { return c.ask(ctx, name, "resume") }

func (c *Client) ask(ctx context.Context, name, what string) error {
	if err := c.write(ctx, http.MethodPut, connectorPath(name, "/"+what), nil, nil); err != nil {
		return fmt.Errorf("%s connector %s: %w", what, name, err)
	}
	return nil
}

// Restart restarts what of a connector has failed, its tasks among it.
func (c *Client) Restart(ctx context.Context, name string) error {
	query := url.Values{"includeTasks": {"true"}, "onlyFailed": {"true"}}
	if err := c.write(ctx, http.MethodPost, connectorPath(name, "/restart"), query, nil); err != nil {
		return fmt.Errorf("restart connector %s: %w", name, err)
	}
	return nil
}

// Setting is one of a new configuration; a Secret wins over a Value.
type Setting struct {
	Name   string
	Value  string
	Secret secret.Value
}

func wireSettings(list []Setting) (config map[string]string, secrets []string) {
	config = make(map[string]string, len(list))
	for _, s := range list {
		config[s.Name] = s.Value
		if !s.Secret.IsZero() {
			config[s.Name] = s.Secret.Reveal()
			secrets = append(secrets, s.Secret.Reveal())
		}
	}
	return config, secrets
}

// Create makes a connector in the state given: Stopped, so that its offsets can be set before it runs, or Running.
// fault.ErrConflict when one of that name is there. A connector that had been deleted goes on from its old offsets.
func (c *Client) Create(ctx context.Context, name string, initial State, list []Setting) error {
	config, secrets := wireSettings(list)
	in := struct {
		Name    string            `json:"name"`
		Config  map[string]string `json:"config"`
		Initial State             `json:"initial_state"`
	}{name, config, initial}
	if err := c.write(ctx, http.MethodPost, "/connectors", nil, in, secrets...); err != nil {
		return fmt.Errorf("create connector %s: %w", name, err)
	}
	return nil
}

// Configure replaces the whole configuration of a connector, or makes one. It restarts the tasks.
func (c *Client) Configure(ctx context.Context, name string, list []Setting) error {
	config, secrets := wireSettings(list)
	if err := c.write(ctx, http.MethodPut, connectorPath(name, "/config"), nil, config, secrets...); err != nil {
		return fmt.Errorf("configure connector %s: %w", name, err)
	}
	return nil
}

// Delete deletes a connector. Its offsets stay: see Forget.
func (c *Client) Delete(ctx context.Context, name string) error {
	if err := c.write(ctx, http.MethodDelete, connectorPath(name, ""), nil, nil); err != nil {
		return fmt.Errorf("delete connector %s: %w", name, err)
	}
	return nil
}

// Complaints asks Connect to validate settings, which changes nothing, and returns what it says about one of them.
func (c *Client) Complaints(ctx context.Context, class, about string, config map[string]string) ([]string, error) {
	var said struct {
		Configs []struct {
			Value struct {
				Name   string   `json:"name"`
				Errors []string `json:"errors"`
			} `json:"value"`
		} `json:"configs"`
	}
	path := "/connector-plugins/" + url.PathEscape(class) + "/config/validate"
	if err := c.send(ctx, rest.Reading, http.MethodPut, path, nil, config, &said); err != nil {
		return nil, fmt.Errorf("validate %s: %w", about, err)
	}
	for _, v := range said.Configs {
		if v.Value.Name == about {
			return v.Value.Errors, nil
		}
	}
	return nil, fmt.Errorf("validate %s: %w: it is not mentioned", about, rest.ErrMalformed)
}
