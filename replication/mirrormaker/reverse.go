package mirrormaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
	"switchback/replication"
)

var _ replication.Mirrored = (*Link)(nil)

// configuration is the whole configuration of a connector. Every value is kept as a secret: some are, and which is not told.
type configuration map[string]secret.Value

// UnmarshalJSON takes texts alone, as Connect keeps them.
func (w *configuration) UnmarshalJSON(b []byte) error {
	var all map[string]string
	if err := json.Unmarshal(b, &all); err != nil {
		return errors.New("a setting is no text") // the decoder's own words may quote one
	}
	*w = make(configuration, len(all))
	for k, v := range all {
		(*w)[k] = secret.New(v)
	}
	return nil
}

func (w configuration) get(key string) string { return w[key].Reveal() }

func (w configuration) set(key, value string) { w[key] = secret.New(value) }

// same says whether two configurations are equal, value by value.
func (w configuration) same(o configuration) bool {
	return maps.EqualFunc(w, o, func(a, b secret.Value) bool { return a.Reveal() == b.Reveal() })
}

// list is the configuration as it is sent.
func (w configuration) list() []Setting {
	out := make([]Setting, 0, len(w))
	for _, key := range slices.Sorted(maps.Keys(w)) {
		out = append(out, Setting{Name: key, Secret: w[key]})
	}
	return out
}

// secrets are the values that may not stand in a message. Short ones are words such as true, which occur in any.
func (w configuration) secrets() (out []string) {
	for _, v := range w {
		if s := v.Reveal(); len(s) > 5 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // the whole before its parts
	return out
}

// configuration reads the whole configuration of a connector. fault.ErrNotFound when there is none of that name.
func (c *Client) configuration(ctx context.Context, name string) (configuration, error) {
	var w configuration
	if err := c.read(ctx, connectorPath(name, "/config"), nil, &w); err != nil {
		return nil, fmt.Errorf("read the configuration of connector %s: %w", name, err)
	}
	return w, nil
}

// validate asks Connect what it finds wrong with a configuration, which changes nothing. fault.ErrInvalid names the settings
// and says what Connect said of them, without any value.
func (c *Client) validate(ctx context.Context, name string, config configuration) error {
	var said struct {
		Configs []struct {
			Value struct {
				Name   string   `json:"name"`
				Errors []string `json:"errors"`
			} `json:"value"`
		} `json:"configs"`
	}
	class := config.get("connector.class")
	class = class[strings.LastIndex(class, ".")+1:]
	in, secrets := wireSettings(config.list())
	path := "/connector-plugins/" + url.PathEscape(class) + "/config/validate"
	if err := c.send(ctx, rest.Reading, http.MethodPut, path, nil, in, &said, secrets...); err != nil {
		return fmt.Errorf("validate the configuration of connector %s: %w", name, err)
	}
	var wrong []string
	for _, v := range said.Configs {
		for _, text := range v.Value.Errors {
			wrong = append(wrong, v.Value.Name+": "+rest.Plain(text, config.secrets()))
		}
	}
	if len(wrong) > 0 {
		return fault.Hint(fmt.Errorf("validate the configuration of connector %s: %w: %s", name, fault.ErrInvalid, strings.Join(wrong, "; ")),
			"see to it that the workers know what the other side's know: configuration providers, files of certificates, plugins")
	}
	return nil
}

// The names under which the filter of P26 stands in a connector's configuration.
const (
	homeFilter    = "switchbackRecovered"
	hasHeaderKey  = "org.apache.kafka.connect.transforms.predicates.HasHeaderKey"
	filterSetting = "transforms." + homeFilter + ".type"
)

// filterHome adds the transform that leaves out records which carry the header, and says whether it lacked.
func (w configuration) filterHome(header string) (added bool) {
	before := maps.Clone(w)
	list := func(key string) {
		names := strings.FieldsFunc(w.get(key), func(r rune) bool { return r == ',' || r == ' ' })
		if !slices.Contains(names, homeFilter) {
			names = append(names, homeFilter)
		}
		w.set(key, strings.Join(names, ","))
	}
	list("transforms")
	list("predicates")
	w.set(filterSetting, smtFilter)
	w.set("transforms."+homeFilter+".predicate", homeFilter)
	w.set("predicates."+homeFilter+".type", hasHeaderKey)
	w.set("predicates."+homeFilter+".name", header)
	return !w.same(before)
}

// turned is the configuration of a connector for the other direction: what was said of the source cluster is now said of the
// target, and the other way round. err says what cannot be turned.
func (w configuration) turned(name string) (configuration, error) {
	const from, to, writes = "source.cluster.", "target.cluster.", "producer.override.bootstrap.servers"
	out := make(configuration, len(w))
	for key, value := range w {
		switch {
		case strings.HasPrefix(key, from):
			key = to + key[len(from):]
		case strings.HasPrefix(key, to):
			key = from + key[len(to):]
		}
		out[key] = value
	}
	out.set("name", name)
	if at := w.get(writes); at != "" {
		if at != w.get(to+"bootstrap.servers") {
			return nil, invalid("the other direction's connector writes to brokers that are not its target's: "+writes, "create connector "+name+" by hand, stopped")
		}
		out.set(writes, w.get(from+"bootstrap.servers"))
	}
	for _, key := range []string{from + "alias", to + "alias", from + "bootstrap.servers", to + "bootstrap.servers"} {
		if out.get(key) == "" {
			return nil, invalid("the other direction's connector does not say "+key, "create connector "+name+" by hand, stopped")
		}
	}
	return out, nil
}

// CreateStopped makes the link's connectors after those of the other direction.
func (l *Link) CreateStopped(ctx context.Context, opposite replication.Link, target string) ([]replication.Outcome, error) {
	other, ok := opposite.(*Link)
	switch {
	case !ok:
		return nil, invalid("the link of the other direction is none of MirrorMaker 2", "name one for each direction in the runbook")
	case l.cfg.Names.Policy != PolicyIdentity || other.cfg.Names.Policy != PolicyIdentity:
		return nil, invalid("with the replication policy "+PolicyDefault+" the topics have other names on each cluster, and MirrorMaker 2 takes those that it had mirrored for a cycle",
			"use "+PolicyIdentity+" for a workload that is to come home; or let the clients go on under the mirrors' names")
	case l.cfg.Names.Source != other.cfg.Names.Target || l.cfg.Names.Target != other.cfg.Names.Source:
		return nil, invalid(fmt.Sprintf("the aliases of both directions do not agree: %s to %s, and %s to %s", other.cfg.Names.Source, other.cfg.Names.Target, l.cfg.Names.Source, l.cfg.Names.Target), "correct alias: of the links")
	case target == "":
		return nil, invalid("the id of the cluster that is mirrored to is not known", "see to that cluster first")
	}
	var out []replication.Outcome
	for _, pair := range [][2]string{{l.cfg.Source, other.cfg.Source}, {l.cfg.Checkpoint, other.cfg.Checkpoint}, {l.cfg.Heartbeat, other.cfg.Heartbeat}} {
		name, after := pair[0], pair[1]
		if name == "" {
			continue
		}
		done, err := l.createStopped(ctx, name, other, after, target)
		if err != nil {
			return append(out, replication.Outcome{Name: name, Status: replication.Failed, Reason: err.Error()}), fmt.Errorf("make connector %s: %w", name, err)
		}
		out = append(out, replication.Outcome{Name: name, Status: replication.OK, Reason: done})
	}
	return out, nil
}

// createStopped makes one connector, or gives the one that is there the filter.
func (l *Link) createStopped(ctx context.Context, name string, other *Link, after, target string) (done string, err error) {
	header := replication.HeaderFrom(target)
	filters := name == l.cfg.Source // checkpoints and heartbeats carry no records of the workload
	there, err := l.client.Connector(ctx, name)
	switch {
	case err == nil && !there.Idle():
		return "", fault.Hint(fmt.Errorf("it is %s: %w", there.raw(), fault.ErrNotReady), "stop it and wait until it has no tasks: a running one would copy everything from where it stood")
	case err == nil && !filters:
		return "it was there, stopped", nil
	case err == nil:
		want, err := l.client.configuration(ctx, name)
		if err != nil {
			return "", err
		}
		if !want.filterHome(header) {
			return "it was there, stopped", nil
		}
		return "it was there, stopped; it leaves out recovered records from now on", l.configured(ctx, name, want)
	case !errors.Is(err, fault.ErrNotFound):
		return "", err
	case after == "":
		return "", invalid("the other direction has no such connector to make it after", "create it by hand, stopped, or take it out of the runbook")
	}
	template, err := other.client.configuration(ctx, after)
	if err != nil {
		return "", err
	}
	want, err := template.turned(name)
	if err != nil {
		return "", err
	}
	if filters {
		want.filterHome(header)
	}
	if err := l.client.validate(ctx, name, want); err != nil {
		return "", err
	}
	if err := l.client.Create(ctx, name, Stopped, want.list()); err != nil && !errors.Is(err, fault.ErrUnclear) && !errors.Is(err, fault.ErrConflict) {
		return "", err
	}
	return "made after " + after + ", stopped", l.reads(ctx, name, want)
}

// configured writes the configuration of a stopped connector and reads it back.
func (l *Link) configured(ctx context.Context, name string, want configuration) error {
	if err := l.client.validate(ctx, name, want); err != nil {
		return err
	}
	if err := l.client.Configure(ctx, name, want.list()); err != nil && !errors.Is(err, fault.ErrUnclear) {
		return err
	}
	return l.reads(ctx, name, want)
}

// reads waits until the connector has the configuration, is stopped and runs nothing.
func (l *Link) reads(ctx context.Context, name string, want configuration) error {
	for until := time.Now().Add(l.settle); ; {
		have, err := l.client.configuration(ctx, name)
		var c Connector
		if err == nil {
			c, err = l.client.Connector(ctx, name)
		}
		if err == nil && have.same(want) && c.Idle() {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(l.poll):
			if time.Now().Before(until) {
				continue
			}
		}
		if err != nil {
			return err
		}
		return fault.Hint(fmt.Errorf("read back connector %s: %w: it is %s, and its configuration is as written: %t", name, fault.ErrConflict, c.raw(), have.same(want)),
			"somebody else may be changing it; do not resume it")
	}
}
