package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// harm is what befalls a recovery when it sends its so manieth request.
type harm int

const (
	cutBefore harm = iota // killed: the request never leaves
	cutAfter              // killed: the request arrives, its answer is lost
	stall                 // a zombie: the request leaves once its successor is at work, and it goes on from there
	harms
)

// plug is the network of one recovery, which ends or stands still at one moment chosen beforehand.
type plug struct {
	mu      sync.Mutex
	left    int
	what    harm
	out     bool
	conns   []net.Conn
	struck  chan struct{} // closed when the moment has come
	release chan struct{} // lets a zombie go on
}

func newPlug(after int, what harm) *plug {
	return &plug{left: after, what: what, struck: make(chan struct{}), release: make(chan struct{})}
}

func (p *plug) dial(ctx context.Context, network, host string) (net.Conn, error) {
	p.mu.Lock()
	out := p.out
	p.mu.Unlock()
	if out {
		return nil, errors.New("the plug is out")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conn)
	return &pluggedConn{conn, p}, nil
}

// pull ends every connection, as the kernel does for a process that was killed.
func (p *plug) pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = true
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// strikes says that the moment is this request's.
func (p *plug) strikes() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	if p.left == 0 {
		close(p.struck)
	}
	return p.left == 0
}

type pluggedConn struct {
	net.Conn
	p *plug
}

func (c *pluggedConn) Write(b []byte) (int, error) {
	if !c.p.strikes() {
		return c.Conn.Write(b)
	}
	switch c.p.what {
	case cutBefore:
		c.p.pull()
		return 0, net.ErrClosed
	case cutAfter:
		n, err := c.Conn.Write(b)
		c.p.pull()
		return n, err
	}
	<-c.p.release
	return c.Conn.Write(b)
}

// through opens a fake over a plug.
func through(t testing.TB, name string, f *kfake.Cluster, p *plug) *Cluster {
	t.Helper()
	c, err := Open(Config{Name: name, Bootstrap: f.ListenAddrs()})
	require.NoError(t, err)
	c.client.Close()
	c.opts = append(c.opts, kgo.Dialer(p.dial))
	c.client, err = kgo.NewClient(c.opts...)
	require.NoError(t, err)
	return c
}

// seed is printed; SWITCHBACK_SEED repeats it.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("SWITCHBACK_SEED"); v != "" {
		var err error
		s, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("repeat with SWITCHBACK_SEED=%d", s)
	return s
}

// attack runs a job again and again while each run is killed or stalled at a random request, until so many were and one
// comes through. Zombies go on while their successors work.
func (p *pair) attack(rnd *rand.Rand, job replication.CopyJob, strikes int) []replication.Recovered {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var gone sync.WaitGroup
	defer gone.Wait()
	defer cancel()
	var zombies []*plug
	wake := func() {
		for _, z := range zombies {
			close(z.release)
		}
		zombies = nil
	}
	defer wake()
	for round, struck := 0, 0; ; round++ {
		require.Less(p.t, round, strikes*20, "it does not get on")
		after := 1 << 30 // in the end nothing befalls it
		if struck < strikes {
			after = 1 + rnd.IntN(60)
		}
		pl := newPlug(after, harm(rnd.IntN(int(harms))))
		job.Run = fmt.Sprintf("run-%d", round)
		old, to := through(p.t, "east", p.east, pl), through(p.t, "west", p.west, pl)
		type result struct {
			all []replication.Recovered
			err error
		}
		done := make(chan result, 1)
		runCtx, kill := context.WithCancel(ctx)
		gone.Go(func() {
			r := &recovery{old: old, to: to, job: job, every: time.Millisecond, most: 1 + round%40}
			all, err := r.run(runCtx)
			done <- result{all, err}
			old.Close()
			to.Close()
		})
		if len(zombies) > 0 && rnd.IntN(2) == 0 {
			wake()
		}
		select {
		case <-pl.struck:
			struck++
			if pl.what == stall {
				zombies = append(zombies, pl)
			} else {
				kill() // what is left of it may not wait for a network that does not come back
			}
		case out := <-done:
			kill()
			if struck < strikes && out.err == nil {
				return append(out.all, p.attack(rnd, p.more(rnd, job), strikes-struck)...)
			}
			if out.err == nil {
				return out.all
			}
			p.t.Logf("round %d: %v", round, out.err) // fenced by a zombie whose last words came late
		case <-time.After(time.Minute):
			kill()
			require.Fail(p.t, "a recovery hangs", "round %d", round)
		}
		context.AfterFunc(ctx, kill)
	}
}

// more is another job, over tails that nobody has touched, for an attack that outlives the first.
func (p *pair) more(rnd *rand.Rand, job replication.CopyJob) replication.CopyJob {
	p.t.Helper()
	topic := fmt.Sprintf("more-%d", rnd.Uint64())
	for _, c := range []*Cluster{p.old, p.to} {
		require.NoError(p.t, c.CreateTopic(short(p.t), replication.NewTopic{Name: topic, Partitions: 3, ReplicationFactor: 1}))
	}
	p.strand(rnd, 400, part(topic, 0), part(topic, 1), part(topic, 2))
	job.Tails = p.tails(replication.TreatAppend, topic)
	return job
}

func TestP30_ExactlyOnceThrough200Kills(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seed(t), 30))
	for range 5 {
		p := newPair(t, 3, "orders")
		p.strand(rnd, 1500, part("orders", 0), part("orders", 1), part("orders", 2))
		job := p.job(p.tails(replication.TreatAppend, "orders"))
		p.requireRecovered(p.attack(rnd, job, 42))
	}
}
