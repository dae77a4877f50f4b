package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is one entry of the tree; it outlives the starts and ends of what it describes.
type process struct {
	spec Spec

	starting sync.Mutex // held from the fork to readiness: two starts of one name never overlap

	mu    sync.Mutex
	pid   int
	state string
	since time.Time
	exit  string
	done  chan struct{} // closed when the current start has ended; nil before the first
}

// forks is the one OS thread that forks. Linux delivers a child's death signal when the *thread* that forked it ends,
// not the process, and Go ends threads as it likes; this one is locked and lives until the process dies.
var forks = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func (p *process) start(ctx context.Context) error {
	p.starting.Lock()
	defer p.starting.Unlock()
	p.mu.Lock()
	spec, state := p.spec, p.state
	p.mu.Unlock()
	if state == Running {
		return fmt.Errorf("start %s: it is running already", spec.Name)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", spec.Name, err)
	}
	done, err := p.fork(spec)
	if err != nil {
		return fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return p.awaitReady(ctx, spec, done)
}

func (p *process) fork(spec Spec) (<-chan struct{}, error) {
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// No exec.CommandContext: a process outlives the call that started it.
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:gosec // what to start is the caller's decision
	cmd.Dir, cmd.Stdout, cmd.Stderr = spec.Dir, log, log
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.SysProcAttr = attributes()

	started := make(chan error)
	forks() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.pid, p.state, p.since, p.exit, p.done = cmd.Process.Pid, Running, time.Now(), "", done
	p.mu.Unlock()
	go p.reap(cmd, done)
	return done, nil
}

// reap waits for the end of a process, ends what is left of its group, and only then gives its id back to the system:
// until then no other process can have that id.
func (p *process) reap(cmd *exec.Cmd, done chan<- struct{}) {
	awaitExit(cmd)
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait() // how it ended is in ProcessState
	if p.state == Running {
		p.state = Exited
	}
	p.exit, p.since = cmd.ProcessState.String(), time.Now()
	close(done)
}

func (p *process) awaitReady(ctx context.Context, spec Spec, done <-chan struct{}) error {
	if spec.Ready == nil {
		return nil
	}
	within := spec.ReadyWithin
	if within == 0 {
		within = 2 * time.Minute // who ends is seen at once; who is slow is on a busy machine
	}
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		if err := spec.Ready(wait); err == nil {
			return nil
		} else if last == nil || wait.Err() == nil { // an answer cut short by the deadline says less than the one before
			last = err
		}
		select {
		case <-done:
			return fmt.Errorf("start %s: it ended before it was ready: %s\n%s", spec.Name, p.status().Exit, Tail(spec.Log, 20))
		case <-wait.Done():
			return fmt.Errorf("start %s: not ready within %v: %w\n%s", spec.Name, within, last, Tail(spec.Log, 20))
		case <-time.After(pause):
		}
	}
}

func (p *process) kill() error {
	done, err := p.signal(syscall.SIGKILL, Killed)
	if err != nil {
		return err
	}
	<-done
	return nil
}

func (p *process) stop(ctx context.Context) error {
	p.mu.Lock()
	sig, grace := p.spec.Stop, p.spec.Grace
	p.mu.Unlock()
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if grace == 0 {
		grace = 10 * time.Second
	}
	done, err := p.signal(sig, Stopped)
	if errors.Is(err, errNotRunning) {
		return nil
	} else if err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if _, err := p.signal(syscall.SIGKILL, Stopped); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	<-done
	return nil
}

var errNotRunning = errors.New("it is not running")

// signal sends a signal under the lock that reap needs to release the process id, so that it never hits a stranger.
// SIGKILL goes to the whole group, others to the process alone: how it passes them on is its own affair.
func (p *process) signal(sig syscall.Signal, state string) (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return nil, fmt.Errorf("end %s: %w", p.spec.Name, errNotRunning)
	}
	select {
	case <-p.done:
		return nil, fmt.Errorf("end %s: %w (%s)", p.spec.Name, errNotRunning, p.exit)
	default:
	}
	target := p.pid
	if sig == syscall.SIGKILL {
		target = -p.pid
	}
	if err := syscall.Kill(target, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("send %v to %s (process %d): %w", sig, p.spec.Name, p.pid, err)
	}
	p.state = state
	return p.done, nil
}

func (p *process) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{Name: p.spec.Name, State: p.state, PID: p.pid, Since: p.since, Exit: p.exit, Log: p.spec.Log}
}

// Tail returns the last lines of a file, each indented, or why it cannot be read.
func Tail(path string, lines int) string {
	f, err := os.Open(path) //nolint:gosec // a log of this tree
	if err != nil {
		return "  (no log: " + err.Error() + ")"
	}
	defer f.Close()
	const most = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	all := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "  " + string(bytes.Join(all, []byte("\n  ")))
}
