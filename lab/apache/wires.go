package apache

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"switchback/lab/tree"
)

// Wires are the ways on which brokers hear from the controllers of the others. A broker whose wires are cut goes on
// answering its clients with what it knew before, its ACLs among it, until the controllers give it up
// (broker.session.timeout.ms). The zero value has none; safe for concurrent use.
type Wires struct {
	mu     sync.Mutex
	relays map[string][]*relay // by the broker's process
}

// Lay leads a broker to the controllers of the others over wires of its own: before it is first started.
func (w *Wires) Lay(broker *tree.Spec) error {
	const own, voters = "KAFKA_NODE_ID=", "KAFKA_VOTERS="
	at := slices.IndexFunc(broker.Env, func(e string) bool { return strings.HasPrefix(e, voters) })
	me := slices.IndexFunc(broker.Env, func(e string) bool { return strings.HasPrefix(e, own) })
	if at < 0 || me < 0 {
		return fmt.Errorf("lay wires of %s: it is no broker", broker.Name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.relays == nil {
		w.relays = map[string][]*relay{}
	}
	list := strings.Split(strings.TrimPrefix(broker.Env[at], voters), ",")
	for i, voter := range list {
		id, address, _ := strings.Cut(voter, "@")
		if id == strings.TrimPrefix(broker.Env[me], own) {
			continue
		}
		r, err := relayTo(address)
		if err != nil {
			return fmt.Errorf("lay wires of %s: %w", broker.Name, err)
		}
		w.relays[broker.Name] = append(w.relays[broker.Name], r)
		list[i] = id + "@" + r.listener.Addr().String()
	}
	broker.Env = slices.Clone(broker.Env)
	broker.Env[at] = voters + strings.Join(list, ",")
	return nil
}

// Cut cuts the wires of a broker; mend lets it hear again.
func (w *Wires) Cut(broker string) (mend func()) {
	w.mu.Lock()
	relays := w.relays[broker]
	w.mu.Unlock()
	for _, r := range relays {
		r.set(true)
	}
	return func() {
		for _, r := range relays {
			r.set(false)
		}
	}
}

// Close takes all wires away.
func (w *Wires) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	for _, relays := range w.relays {
		for _, r := range relays {
			err = errors.Join(err, r.listener.Close())
			r.set(true)
		}
	}
	w.relays = nil
	return err
}

// relay hands on what arrives at a port of its own, in both directions.
type relay struct {
	listener net.Listener
	target   string

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

func relayTo(target string) (*relay, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0")) //nolint:noctx // it lives until it is closed
	if err != nil {
		return nil, err
	}
	r := &relay{listener: listener, target: target, open: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.carry(conn)
		}
	}()
	return r, nil
}

// set cuts the relay, or mends it. What was open is closed.
func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if cut {
		for conn := range r.open {
			_ = conn.Close()
		}
	}
}

// keep says whether connections may stay, and remembers them.
func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.open[c] = true
	}
	return !r.cut
}

func (r *relay) carry(from net.Conn) {
	defer r.end(from)
	if !r.keep(from) {
		return
	}
	to, err := net.Dial("tcp", r.target) //nolint:noctx // the loopback says at once whether somebody listens
	if err != nil {
		return
	}
	defer r.end(to)
	if !r.keep(to) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(to, from)
		_ = to.Close()
	}()
	_, _ = io.Copy(from, to)
	_ = from.Close()
	<-done
}

func (r *relay) end(conn net.Conn) {
	_ = conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, conn)
}
