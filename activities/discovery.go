package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Discovery reads and switches what clients look up in Consul.
type Discovery struct {
	Consuls Consuls
	Secrets Secrets
}

// Entry is one discovery entry as activities use it.
type Entry interface {
	// Read reads the whole prefix in one recursive, consistent read (P39).
	Read(ctx context.Context) (EntryState, error)
	// Switch changes all keys in one transaction, each checked against what was read (P2). Nothing changed and no error
	// means that the entry says so already, by the same run. fault.ErrStale when the entry is not below epoch or not at
	// expect; fault.ErrConflict when somebody changed it meanwhile.
	Switch(ctx context.Context, expect int64, to EntryState) (changed bool, err error)
	// SetDesired sets clients/<client>/desired, checked against the epoch in the same transaction (P35b).
	SetDesired(ctx context.Context, epoch int64, desired map[string]string) (changed bool, err error)
	// Withdraw takes away what says where the cluster is. The epoch stays, so that it goes on growing, and so does what clients
	// were asked for.
	Withdraw(ctx context.Context, epoch int64) (changed bool, err error)
}

// EntryState is what an entry says. Epoch is replication.Unknown when absent or garbled.
type EntryState struct {
	Cluster          string
	BootstrapServers string
	SecurityProtocol string
	SASLMechanism    string
	Credentials      string // Vault path with {client} to fill in
	TopicPrefix      string
	Epoch            int64
	SwitchedBy       string
	Clients          map[string]ClientEntry
}

// ClientEntry is what an entry says of one client.
type ClientEntry struct {
	Desired   string
	Overrides map[string]string // keys under the client that win over the entry's for it
	Instances []Instance
}

// Instance is one running program, as its supervisor says.
type Instance struct {
	ID      string
	State   string // starting, running, stopped
	Epoch   int64
	Cluster string
	Since   time.Time
	Host    string
	Killed  bool // it had to be killed to stop it (P36)
}

// pinned names the keys of clients that a switch to another entry cannot follow: they have a value of their own where the
// shared one changes, and would keep their client where it is. One that repeats the shared value is switched with it.
func (s EntryState) pinned(to EntryState) []string {
	var keys []string
	for _, k := range []struct{ key, was, is string }{
		{"cluster", s.Cluster, to.Cluster}, {"bootstrap.servers", s.BootstrapServers, to.BootstrapServers},
		{"security.protocol", s.SecurityProtocol, to.SecurityProtocol}, {"sasl.mechanism", s.SASLMechanism, to.SASLMechanism},
		{"credentials", s.Credentials, to.Credentials}, {"topic.prefix", s.TopicPrefix, to.TopicPrefix},
	} {
		for name, c := range s.Clients {
			if own, ok := c.Overrides[k.key]; ok && k.was != k.is && own != k.was && own != k.is {
				keys = append(keys, "clients/"+name+"/"+k.key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// ReadDiscoveryInput names the entries of a runbook.
type ReadDiscoveryInput struct {
	Entries []runbooks.Discovery `json:"entries"`
}

// DiscoveryEntry is one entry as it was read in one recursive, consistent read (P39).
type DiscoveryEntry struct {
	Address    string `json:"address"`
	Prefix     string `json:"prefix"`
	Required   bool   `json:"required"`
	Error      string `json:"error,omitempty"` // why it could not be read
	Cluster    string `json:"cluster"`
	Epoch      int64  `json:"epoch"` // replication.Unknown when absent or garbled
	SwitchedBy string `json:"switchedBy"`
	// TopicPrefix is what clients put before the names of topics; empty unless they read renamed mirrors.
	TopicPrefix string            `json:"topicPrefix,omitempty"`
	Desired     map[string]string `json:"desired"` // client -> run or stop
}

// ReadDiscoveryResult lists the entries in the runbook's order.
type ReadDiscoveryResult struct {
	Entries []DiscoveryEntry `json:"entries"`
}

// Required is the entry that counts (P40).
func (r ReadDiscoveryResult) Required() DiscoveryEntry {
	for _, e := range r.Entries {
		if e.Required {
			return e
		}
	}
	return DiscoveryEntry{Epoch: replication.Unknown, Error: "no required discovery entry"}
}

// HighestEpoch is the highest number seen anywhere, 0 when none could be read.
func (r ReadDiscoveryResult) HighestEpoch() int64 {
	var highest int64
	for _, e := range r.Entries {
		highest = max(highest, e.Epoch)
	}
	return highest
}

// entryTime is how long one entry may take to answer: one that swallows requests holds up nobody who reads the others.
const entryTime = 5 * time.Second

// Read reads every entry side by side. An entry out of reach is a result with Error, not an error.
func (a *Discovery) Read(ctx context.Context, in ReadDiscoveryInput) (ReadDiscoveryResult, error) {
	out := ReadDiscoveryResult{Entries: make([]DiscoveryEntry, len(in.Entries))}
	jobs := make([]func() error, len(in.Entries))
	for i, e := range in.Entries {
		jobs[i] = func() error {
			ctx, cancel := context.WithTimeout(ctx, entryTime)
			defer cancel()
			read := DiscoveryEntry{Address: e.Consul.Address, Prefix: e.Consul.Prefix, Required: e.Required, Epoch: replication.Unknown}
			if state, err := readEntry(ctx, a.Consuls, e); err != nil {
				read.Error = err.Error()
			} else {
				read.Cluster, read.Epoch, read.SwitchedBy, read.TopicPrefix = state.Cluster, state.Epoch, state.SwitchedBy, state.TopicPrefix
				read.Desired = map[string]string{}
				for name, c := range state.Clients {
					read.Desired[name] = c.Desired
				}
			}
			out.Entries[i] = read
			return nil
		}
	}
	return out, sideBySide(jobs...)
}

func readEntry(ctx context.Context, consuls Consuls, e runbooks.Discovery) (EntryState, error) {
	entry, err := consuls.Open(ctx, e)
	if err != nil {
		return EntryState{}, wrap("open discovery entry "+e.Consul.Address, err)
	}
	state, err := entry.Read(ctx)
	return state, wrap("read discovery entry "+e.Consul.Address, err)
}

// SwitchInput asks for the switch, or for raising the epoch in a rollback (To is then the cluster left from).
type SwitchInput struct {
	Guard       Guard                `json:"guard"`
	Entries     []runbooks.Discovery `json:"entries"`
	To          Site                 `json:"to"`
	Epoch       int64                `json:"epoch"` // the new number, absolute
	Credentials runbooks.Credentials `json:"credentials"`
	Clients     []string             `json:"clients"` // whose secrets are copied when credentials.copy asks for it
}

// SwitchResult says what became of each entry: OK, or Pending with the reason for an optional one out of reach.
type SwitchResult struct {
	Acted
	Entries []replication.Outcome `json:"entries"`
	At      time.Time             `json:"at"`
}

// Switch changes all keys of the required entry in one transaction checked against what was read, then sets the other
// entries to the same number, upwards only (P2, P40). A retry whose first answer was lost sees its own switchedBy.
// TypeStale when somebody else switched; TypeConflict when keys were changed by somebody else meanwhile.
func (a *Discovery) Switch(ctx context.Context, in SwitchInput) (out SwitchResult, err error) {
	ctx, out.Acted = begin(ctx)
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if err := a.copySecrets(wctx, in); err != nil {
		return out, err
	}
	to := entryFor(in)
	required, err := a.Consuls.Open(wctx, in.Guard.Discovery)
	if err != nil {
		return out, wrap("open the required discovery entry", err)
	}
	killpoint.Reach("Switch/before-sent")
	if out.Changed, err = required.Switch(wctx, in.Guard.Epoch, to); err != nil {
		return out, wrap(fmt.Sprintf("switch %s to %s", in.Guard.Discovery.Consul.Address, in.To.Name), err)
	}
	killpoint.Reach("Switch/middle")
	out.At = time.Now()
	out.Entries = a.others(wctx, in.Entries, to)
	return out, nil
}

func entryFor(in SwitchInput) EntryState {
	return EntryState{
		Cluster:          in.To.Name,
		BootstrapServers: strings.Join(in.To.Cluster.Bootstrap, ","),
		SecurityProtocol: in.To.Cluster.Security.Protocol,
		SASLMechanism:    in.To.Cluster.Security.Mechanism,
		Credentials:      in.Credentials.PathFor(in.To.Name, "{client}"),
		TopicPrefix:      in.To.TopicPrefix,
		Epoch:            in.Epoch,
		SwitchedBy:       in.Guard.Run.ID(),
	}
}

// copySecrets serves clients that read one fixed path: it needs the target's secret there before they start.
func (a *Discovery) copySecrets(ctx context.Context, in SwitchInput) error {
	if in.Credentials.Copy == nil {
		return nil
	}
	jobs := make([]func() error, len(in.Clients))
	for i, client := range in.Clients {
		jobs[i] = func() error {
			to := strings.ReplaceAll(in.Credentials.Copy.To, "{client}", client)
			_, err := a.Secrets.Copy(ctx, in.Credentials.PathFor(in.To.Name, client), to)
			return wrap("copy the credentials of "+client, err)
		}
	}
	return sideBySide(jobs...)
}

// othersTime bounds what optional entries may cost: a switch waits for them inside of the switch window, and one that does
// not answer is looked at again later.
const othersTime = time.Second

// others sets the optional entries to what the required one says, upwards only (P40). One that is out of reach, or
// higher already, is Pending: the run goes on, and Align looks again.
func (a *Discovery) others(ctx context.Context, entries []runbooks.Discovery, to EntryState) []replication.Outcome {
	ctx, cancel := context.WithTimeout(ctx, othersTime)
	defer cancel()
	outcomes := make([]replication.Outcome, len(entries))
	jobs := make([]func() error, len(entries))
	for i, e := range entries {
		jobs[i] = func() error {
			outcomes[i] = replication.Outcome{Name: e.Consul.Address, Status: replication.OK}
			if e.Required {
				return nil
			}
			if err := a.raise(ctx, e, to); err != nil {
				outcomes[i].Status, outcomes[i].Reason = replication.Pending, err.Error()
			}
			return nil
		}
	}
	_ = sideBySide(jobs...) // each outcome says how it went
	return outcomes
}

func (a *Discovery) raise(ctx context.Context, e runbooks.Discovery, to EntryState) error {
	entry, err := a.Consuls.Open(ctx, e)
	if err != nil {
		return err
	}
	state, err := entry.Read(ctx)
	if err != nil {
		return err
	}
	if state.Epoch == to.Epoch && state.Cluster == to.Cluster {
		return nil
	}
	if state.Epoch >= to.Epoch {
		return fault.Hint(fmt.Errorf("holds epoch %d for %s, not below %d: %w", state.Epoch, state.Cluster, to.Epoch, fault.ErrStale),
			"clients that see this entry follow it, because the highest epoch wins; find out who wrote it")
	}
	_, err = entry.Switch(ctx, state.Epoch, to)
	return err
}

// AlignInput names the entries to be brought to the required one's truth of now.
type AlignInput struct {
	Entries  []runbooks.Discovery `json:"entries"`
	Deadline time.Time            `json:"deadline"`
}

// alignEvery is the pause between two tries at an entry that is out of reach.
const alignEvery = time.Second

// Align retries entries that were out of reach until Deadline, with what the required entry says now (P2). What is left
// then is Pending in the result: a deviation, not a failure.
func (a *Discovery) Align(ctx context.Context, in AlignInput) (out SwitchResult, err error) {
	ctx, out.Acted = begin(ctx)
	err = until(ctx, in.Deadline, alignEvery, func(ctx context.Context) (bool, string, error) {
		truth, err := readEntry(ctx, a.Consuls, requiredOf(in.Entries))
		if err != nil {
			return false, "", err
		}
		out.Entries = a.others(ctx, in.Entries, truth)
		pending, text := notOK(out.Entries)
		return len(pending) == 0, text, nil
	})
	if len(out.Entries) > 0 && ctx.Err() == nil {
		return out, nil
	}
	return out, err
}

func requiredOf(entries []runbooks.Discovery) runbooks.Discovery {
	for _, e := range entries {
		if e.Required {
			return e
		}
	}
	return runbooks.Discovery{}
}
