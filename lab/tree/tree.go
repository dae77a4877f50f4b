// Package tree keeps the lab's processes: it starts them side by side, waits until each is ready, kills one with -9,
// starts it again, and stops all in reverse order. Whatever it starts ends with it, also when it is killed itself.
//
// Start reading at Tree.Start. What differs between operating systems is in os_linux.go and os_other.go. Nothing here
// knows what the processes are; package setup does.
package tree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Spec is one process: how to start it, how to see that it is ready, how to ask it to stop.
type Spec struct {
	// Name is what the process is known by: unique in its tree.
	Name string
	Path string
	Args []string
	// Env is added to the environment of this process.
	Env []string
	Dir string
	// Log is the file to which standard output and error are appended, mode 0600.
	Log string
	// Ready is asked again and again until it returns nil. A nil Ready means: ready once started.
	Ready func(ctx context.Context) error
	// ReadyWithin bounds that wait; 2 min when zero.
	ReadyWithin time.Duration
	// Stop asks for a graceful end; SIGTERM when zero.
	Stop syscall.Signal
	// Grace is the time between Stop and SIGKILL; 10 s when zero.
	Grace time.Duration
}

// The states of a process.
const (
	Running = "running"
	Killed  = "killed"  // by Kill
	Stopped = "stopped" // by Stop or Down
	Exited  = "exited"  // by itself
)

// Status is what is known of one process.
type Status struct {
	Name  string    `json:"name"`
	State string    `json:"state"`
	PID   int       `json:"pid"` // of the last start
	Since time.Time `json:"since"`
	// Exit is how it ended ("exit status 1", "signal: killed"); empty while it runs.
	Exit string `json:"exit,omitempty"`
	Log  string `json:"log"`
}

// ErrUnknown is returned for a name that was never started.
var ErrUnknown = errors.New("no such process")

// Tree is a set of processes. The zero value is ready for use, and safe for concurrent use.
type Tree struct {
	mu      sync.Mutex
	known   map[string]*process
	batches [][]string // in the order of their start
	down    bool
}

// Start starts processes side by side and returns when all are ready. On an error those that were started keep running:
// Down ends them. Processes that are started by one call are stopped side by side as well.
func (t *Tree) Start(ctx context.Context, specs ...Spec) error {
	procs, err := t.add(specs)
	if err != nil {
		return err
	}
	errs := make([]error, len(procs))
	var wg sync.WaitGroup
	for i, p := range procs {
		wg.Go(func() { errs[i] = p.start(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (t *Tree) add(specs []Spec) ([]*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return nil, errors.New("the process tree is being taken down: nothing can be started any more")
	}
	if t.known == nil {
		t.known = map[string]*process{}
	}
	var procs []*process
	var names []string
	for _, s := range specs {
		if s.Name == "" || s.Log == "" {
			return nil, fmt.Errorf("start %q: a process needs a name and a log file", s.Path)
		}
		if t.known[s.Name] != nil || slices.Contains(names, s.Name) {
			return nil, fmt.Errorf("start %s: there is a process of that name already", s.Name)
		}
		procs, names = append(procs, &process{spec: s}), append(names, s.Name)
	}
	for _, p := range procs {
		t.known[p.spec.Name] = p
	}
	t.batches = append(t.batches, names)
	return procs, nil
}

// Kill ends a process and its group with SIGKILL, and returns when it is gone.
func (t *Tree) Kill(name string) error {
	p, err := t.find(name)
	if err != nil {
		return err
	}
	return p.kill()
}

// Stop asks a process to end, kills it when its grace is over, and returns when it is gone. Stopping one that has
// ended is no error.
func (t *Tree) Stop(ctx context.Context, name string) error {
	p, err := t.find(name)
	if err != nil {
		return err
	}
	return p.stop(ctx)
}

// StartAgain starts a process that has ended, as it was started first, and waits until it is ready.
func (t *Tree) StartAgain(ctx context.Context, name string) error {
	p, err := t.find(name)
	if err != nil {
		return err
	}
	t.mu.Lock()
	down := t.down
	t.mu.Unlock()
	if down {
		return errors.New("the process tree is being taken down: nothing can be started any more")
	}
	return p.start(ctx)
}

// Change edits the spec with which the next StartAgain starts a process.
func (t *Tree) Change(name string, edit func(*Spec)) error {
	p, err := t.find(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.spec)
	return nil
}

// Wait returns when the process has ended, or when the context has.
func (t *Tree) Wait(ctx context.Context, name string) (Status, error) {
	p, err := t.find(name)
	if err != nil {
		return Status{}, err
	}
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	select {
	case <-done:
		return p.status(), nil
	case <-ctx.Done():
		return p.status(), fmt.Errorf("wait for %s to end: %w", name, ctx.Err())
	}
}

// Status of every process, in the order of their start.
func (t *Tree) Status() []Status {
	t.mu.Lock()
	var procs []*process
	for _, b := range t.batches {
		for _, name := range b {
			procs = append(procs, t.known[name])
		}
	}
	t.mu.Unlock()
	all := make([]Status, len(procs))
	for i, p := range procs {
		all[i] = p.status()
	}
	return all
}

// Down stops everything, what was started last first, and refuses to start anything after that. When the context ends
// what is left is killed: Down never leaves a process behind.
func (t *Tree) Down(ctx context.Context) error {
	t.mu.Lock()
	t.down = true
	batches := slices.Clone(t.batches)
	t.mu.Unlock()
	var errs []error
	for _, batch := range slices.Backward(batches) {
		results := make([]error, len(batch))
		var wg sync.WaitGroup
		for i, name := range batch {
			wg.Go(func() { results[i] = t.Stop(ctx, name) })
		}
		wg.Wait()
		errs = append(errs, results...)
	}
	return errors.Join(errs...)
}

func (t *Tree) find(name string) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.known[name]; p != nil {
		return p, nil
	}
	var names []string
	for _, b := range t.batches {
		names = append(names, b...)
	}
	return nil, fmt.Errorf("%w: %q (there are %v)", ErrUnknown, name, names)
}
