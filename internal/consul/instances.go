package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"switchback/internal/fault"
)

// The life of a session. Consul wants 10 s or more, and may take twice as long to notice that nobody renews it.
const (
	sessionTTL   = 10 * time.Second
	renewEvery   = sessionTTL / 3
	callTime     = 5 * time.Second
	retryFirst   = 50 * time.Millisecond
	retryAtWorst = 3 * time.Second
)

// Registration is one instance's key under a session of its own: it vanishes when nobody renews it. It is kept up in
// the background and made anew when Consul comes back without it.
type Registration struct {
	d        *Discovery
	key      string
	log      *slog.Logger
	replaces func(Instance) bool

	mu      sync.Mutex // held over the calls: records are written in the order in which they were set
	session string
	renewed time.Time
	record  *Instance
	dirty   bool

	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}
}

// RegisterOptions are all optional.
type RegisterOptions struct {
	Log *slog.Logger
	// Replaces says that who holds the id now is certainly dead, so that its session may be ended instead of outlived.
	// Without it a second instance of the same id waits: two that share a key could say stopped for each other.
	Replaces func(holder Instance) bool
}

// Register keeps the instance's key from the first Set or Claim until Close. fault.ErrInvalid for names with a slash.
func (d *Discovery) Register(client, id string, o RegisterOptions) (*Registration, error) {
	if client == "" || id == "" || strings.Contains(client+id, "/") {
		return nil, fmt.Errorf("register instance %q of client %q: names are not empty and have no slash: %w", id, client, fault.ErrInvalid)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registration{
		d: d, key: "clients/" + client + "/instances/" + id, log: o.Log, replaces: o.Replaces,
		wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{}),
	}
	go r.keep(ctx)
	return r, nil
}

// Set says what the instance does. It returns at once; the newest record is written as soon as Consul takes it.
func (r *Registration) Set(i Instance) {
	r.mu.Lock()
	r.record, r.dirty = &i, true
	r.mu.Unlock()
	r.poke()
}

// Claim writes the record only if desired and epoch of the client are still as they were read, and returns when that is
// certain. A run that asks for a stop therefore either comes first, and the claim fails with fault.ErrConflict, or
// finds the record: no child can start unseen (P22, P35).
func (r *Registration) Claim(ctx context.Context, i Instance, read State) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	client := strings.Split(r.key, "/")[1]
	guards := []op{unchanged(read, keyEpoch), unchanged(read, "clients/"+client+"/epoch"), unchanged(read, "clients/"+client+"/desired")}
	if err := r.write(ctx, i, guards...); err != nil {
		return err
	}
	r.record, r.dirty = &i, false
	r.poke()
	return nil
}

// Check compares what a read found with what was set, and writes it anew where it is gone.
func (r *Registration) Check(s State) {
	r.mu.Lock()
	gone := r.record != nil && s.Keys[r.key].Session == ""
	r.dirty = r.dirty || gone
	r.mu.Unlock()
	if gone {
		r.poke()
	}
}

// Close ends the session: the key vanishes. Without Consul it vanishes by itself.
func (r *Registration) Close(ctx context.Context) {
	r.stop()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == "" {
		return
	}
	if _, err := r.d.client.Session().Destroy(r.session, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		r.log.Warn("the session could not be ended; it expires by itself", "error", translate(r.d.doing("end session under"), writes, err))
	}
	r.session = ""
}

func (r *Registration) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// keep renews the session and writes what is not written yet.
func (r *Registration) keep(ctx context.Context) {
	defer close(r.done)
	pause, failing := retryFirst, false
	for {
		wait := renewEvery
		if err := r.upkeep(ctx); err != nil && ctx.Err() == nil {
			if !failing {
				r.log.Warn("the instance cannot be seen in Consul; trying on", "error", err)
			}
			failing, wait = true, pause
			pause = min(2*pause, retryAtWorst)
		} else {
			pause, failing = retryFirst, false
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-r.wake:
			timer.Stop()
			if failing { // woken for a new record while Consul is away: no faster than once per pause
				select {
				case <-ctx.Done():
					return
				case <-time.After(retryFirst):
				}
			}
		}
	}
}

func (r *Registration) upkeep(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.record == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if r.session != "" && time.Since(r.renewed) >= renewEvery {
		entry, _, err := r.d.client.Session().Renew(r.session, (&api.WriteOptions{}).WithContext(ctx))
		if err != nil {
			return translate(r.d.doing("renew session under"), writes, err)
		}
		if entry == nil { // expired while we were cut off
			r.session, r.dirty = "", true
		}
		r.renewed = time.Now()
	}
	if r.session != "" && !r.dirty {
		return nil
	}
	if err := r.write(ctx, *r.record); err != nil {
		return err
	}
	r.dirty = false
	return nil
}

// write puts the record under the session, making one where there is none. Called with mu held.
func (r *Registration) write(ctx context.Context, i Instance, guards ...op) error {
	value, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("encode instance: %w", err)
	}
	for try := 0; ; try++ {
		if r.session == "" {
			if r.session, err = r.newSession(ctx); err != nil {
				return err
			}
			r.renewed = time.Now()
		}
		lock := op{r.key, api.KVTxnOp{Verb: api.KVLock, Value: value, Session: r.session}}
		err := r.d.commit(ctx, r.d.doing("write instance under"), append(guards[:len(guards):len(guards)], lock))
		var lost *conflict
		switch {
		case !errors.As(err, &lost) || try == 5:
			return err
		case lost.says("lock delay"): // the session before this one ended a moment ago
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return err
			}
		case lost.says("invalid session"):
			r.session = ""
		case lost.names(r.key) && lost.says("lock is already held"):
			if err := r.replace(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// replace ends the session of a holder that is certainly dead.
func (r *Registration) replace(ctx context.Context) error {
	pair, _, err := r.d.client.KV().Get(r.d.key(r.key), (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return translate(r.d.doing("read instance under"), reads, err)
	}
	if pair == nil || pair.Session == "" {
		return nil
	}
	holder := parseInstance(string(pair.Value))
	if r.replaces == nil || !r.replaces(holder) {
		return fault.Hint(fmt.Errorf("%s is held by another instance, on host %s, process %d: %w", r.key, holder.Host, holder.PID, fault.ErrConflict),
			"give each instance an id of its own; one that died is forgotten within %s", 2*sessionTTL)
	}
	_, err = r.d.client.Session().Destroy(pair.Session, (&api.WriteOptions{}).WithContext(ctx))
	return translate(r.d.doing("end the session of a dead instance under"), writes, err)
}

// newSession depends on nothing but its renewal: not on the health of the Consul agent's node, which says nothing about
// the instance. The lock delay is as short as can be, so that the key can be taken again at once.
func (r *Registration) newSession(ctx context.Context) (string, error) {
	id, _, err := r.d.client.Session().CreateNoChecks(&api.SessionEntry{
		Name: "switchback " + r.key, Behavior: api.SessionBehaviorDelete, TTL: sessionTTL.String(), LockDelay: time.Millisecond,
	}, (&api.WriteOptions{}).WithContext(ctx))
	return id, translate(r.d.doing("create session for"), writes, err)
}
