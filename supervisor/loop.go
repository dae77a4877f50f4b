package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
)

// loop holds everything that happens to one instance. Its fields belong to its own goroutine, except where said.
type loop struct {
	s            settings
	log          *slog.Logger
	io           stdio
	inherited    []string
	entries      []*consul.Discovery // the first is the required one
	vault        logins
	registration *consul.Registration
	host, boot   string

	login     secret.Login // of the preparation that is under way or was last; never two at a time
	loginPath string

	known     knowledge
	child     *child
	last      consul.View // what the child runs with, or ran with
	preparing context.CancelFunc
	result    chan prepared
	again     *time.Timer // a start or a preparation waits for it; nil when none does
	backoff   time.Duration
	patience  time.Duration

	said      consul.Instance // the newest record
	killed    bool            // how the last child ended
	killedWhy string

	leaving   bool // a signal, or the end of --once
	leaveWith syscall.Signal
	code      int
}

// preparePause is the first pause after a preparation that failed.
const preparePause = 200 * time.Millisecond

// run is the life of the supervisor. It returns the exit code.
func (l *loop) run(ctx context.Context, signals <-chan os.Signal) int {
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	updates := make(chan news)
	for i, d := range l.entries {
		followers.Go(func() { follow(following, i, d, updates, l.log) })
	}
	l.known.states = make([]*consul.State, len(l.entries))
	l.last.Epoch = consul.Unknown
	l.result = make(chan prepared, 1)
	l.backoff, l.patience = l.s.backoff, preparePause
	over := ctx.Done()
	for {
		if l.decide(following) {
			return l.code
		}
		select {
		case n := <-updates:
			l.onNews(n)
		case p := <-l.result:
			l.onPrepared(p)
		case e := <-l.ends():
			l.onEnd(e)
		case <-l.wait():
			l.again = nil
		case s := <-signals:
			l.onSignal(s)
		case <-over:
			over = nil
			l.onSignal(syscall.SIGTERM)
		}
	}
}

// decide does what follows from what is known; it is asked after each event and says whether all is over.
func (l *loop) decide(ctx context.Context) (over bool) {
	want, ok := l.known.view(l.s.client)
	switch {
	case l.child != nil && l.leaving:
		l.child.stop(l.leaveWith, l.s.stopTimeout)
	case l.child != nil && ok && want.Desired == consul.Stop:
		l.stopChild("asked to stop")
	case l.child != nil && ok && l.known.fresh && want.Desired == consul.Run && want.Epoch > l.last.Epoch:
		l.stopChild("moves to a new epoch")
	case l.child != nil: // healthy: kept, whatever else is out of reach
	case l.preparing != nil:
		if l.leaving || ok && want.Desired == consul.Stop {
			l.preparing() // its result comes back at once
		}
	case l.leaving:
		l.say(consul.Stopped, l.last, "")
		return true
	case ok && want.Desired == consul.Stop:
		// No child runs, and a start needs a claim that Consul would refuse.
		l.again, l.backoff = nil, l.s.backoff
		l.say(consul.Stopped, want, "")
	case l.again == nil:
		var pctx context.Context
		pctx, l.preparing = context.WithCancel(ctx)
		known, last := l.known.clone(), l.last
		claim := l.instance(consul.Starting, want, "")
		go func() { l.result <- l.prepare(pctx, known, last, claim) }()
	}
	return false
}

func (l *loop) stopChild(why string) {
	if l.child.isAsked() {
		return
	}
	l.log.Info("stopping the command", "why", why, "pid", l.child.pid)
	l.child.stop(syscall.SIGTERM, l.s.stopTimeout)
	l.say(consul.Stopping, l.last, why)
}

func (l *loop) onNews(n news) {
	before, _ := l.known.view(l.s.client)
	l.known.learn(n)
	if after, _ := l.known.view(l.s.client); after != before {
		l.again = nil // what a pause was for may be over
	}
	if n.entry == 0 && n.err == nil {
		l.registration.Check(n.state)
	}
}

func (l *loop) onPrepared(p prepared) {
	l.preparing()
	l.preparing = nil
	if p.state != nil && (l.known.states[0] == nil || p.state.Index > l.known.states[0].Index) {
		l.known.learn(news{entry: 0, state: *p.state}) // never an older one than the watch has seen
	}
	resumes := l.said.State == consul.Stopped
	if p.claimed != nil { // whether it was written is not always certain: what is said next is written in any case
		l.said = *p.claimed
	}
	want, _ := l.known.view(l.s.client)
	switch {
	case l.leaving || want.Desired == consul.Stop: // also when the stop came after the claim
	case errors.Is(p.err, errNotDesired), errors.Is(p.err, context.Canceled):
		l.pause(preparePause) // the watch is about to see the same
	case p.err == nil:
		l.start(p, resumes)
	case p.claimed != nil && errors.Is(p.err, fault.ErrConflict) && l.patience == preparePause:
		l.patience *= 2 // the keys changed while it was prepared: again at once, the first time
	default:
		l.log.Warn("the command is not started yet", "error", p.err)
		l.say(consul.Starting, want, p.err.Error())
		l.pause(l.patience)
		l.patience = min(2*l.patience, l.s.backoffMax)
	}
}

func (l *loop) start(p prepared, resumes bool) {
	c, err := startChild(l.s.command, childEnv(l.inherited, p.env), l.io, l.s.stopTimeout)
	if err != nil {
		l.onEnd(ended{code: 126, reason: err.Error()})
		return
	}
	l.patience = preparePause
	l.child, l.last = c, p.view
	if resumes {
		l.killed, l.killedWhy = false, ""
	}
	l.log.Info("started the command", "pid", c.pid, "cluster", p.view.Cluster, "epoch", p.view.Epoch)
	l.say(consul.Running, p.view, "")
}

// onEnd is the end of a child: asked for, or by itself.
func (l *loop) onEnd(e ended) {
	asked := l.child != nil && l.child.isAsked() && (l.said.State == consul.Stopping || l.leaving)
	l.child = nil
	l.code = e.code
	l.killed, l.killedWhy = e.killed, ""
	if e.killed {
		l.killedWhy = e.reason
	}
	l.log.Info("the command ended", "how", e.reason, "code", e.code, "killed", e.killed, "ran", e.ran.Round(time.Millisecond).String())
	switch {
	case asked:
	case l.s.once:
		l.leaving = true
	default:
		if e.ran > l.s.backoffMax {
			l.backoff = l.s.backoff
		}
		l.log.Warn("the command ended by itself and is started again", "in", l.backoff.String())
		want, _ := l.known.view(l.s.client)
		if want.Desired != consul.Stop {
			l.say(consul.Starting, l.last, e.reason+"; starts again in "+l.backoff.String())
		}
		l.pause(l.backoff)
		l.backoff = min(2*l.backoff, l.s.backoffMax)
	}
}

// onSignal forwards to the command; those that end a program end the supervisor after it.
func (l *loop) onSignal(s os.Signal) {
	number, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	if number == syscall.SIGTERM || number == syscall.SIGINT {
		l.log.Info("leaving", "signal", number.String())
		if !l.leaving {
			l.leaving, l.leaveWith = true, number
			if l.child == nil || !l.child.isAsked() {
				return // decide sends it
			}
		}
	}
	if l.child != nil {
		l.child.forward(number)
	}
}

// instance is the record of now. Since is when the state was reached.
func (l *loop) instance(state string, v consul.View, reason string) consul.Instance {
	i := consul.Instance{
		State: state, Epoch: v.Epoch, Cluster: v.Cluster, Since: l.said.Since, Host: l.host, PID: os.Getpid(), Boot: l.boot,
		Killed: l.killed, KilledReason: l.killedWhy, Reason: reason,
	}
	if state != l.said.State || v.Epoch != l.said.Epoch {
		i.Since = time.Now().UTC()
	}
	return i
}

// say tells runs and operators what the instance does.
func (l *loop) say(state string, v consul.View, reason string) {
	i := l.instance(state, v, reason)
	same := i == l.said
	l.said = i
	if !same {
		l.registration.Set(i)
	}
}

func (l *loop) pause(d time.Duration) {
	if l.again != nil {
		l.again.Stop()
	}
	l.again = time.NewTimer(d)
}

func (l *loop) wait() <-chan time.Time {
	if l.again == nil {
		return nil
	}
	return l.again.C
}

func (l *loop) ends() <-chan ended {
	if l.child == nil {
		return nil
	}
	return l.child.done
}
