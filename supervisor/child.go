package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// stdio is what the supervisor and its child read and write.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// child is the command in a process group of its own.
type child struct {
	pid  int
	done chan ended // one value, when no process of the group is left

	mu     sync.Mutex
	asked  bool // stop was called
	killed bool // SIGKILL was needed
	over   bool // the group is gone: its number may be somebody else's by now
	timer  *time.Timer
}

// ended is how a child ended.
type ended struct {
	code   int // its exit code, or 128 + signal
	signal syscall.Signal
	killed bool
	reason string
	ran    time.Duration
}

// startChild starts the command. All that it starts in its group must end before the child counts as ended.
func startChild(command, env []string, io stdio, stopTimeout time.Duration) (*child, error) {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // running the operator's command is what it is for
	cmd.Env, cmd.Stdout, cmd.Stderr = env, io.out, io.err
	if f, ok := io.in.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		cmd.Stdin = f
	}
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second
	c := &child{done: make(chan ended, 1)}
	started := make(chan error)
	go func() {
		// The kernel ends the child when the *thread* that started it ends: this one lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		began := time.Now()
		err := cmd.Start()
		if err == nil {
			c.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		c.emptyGroup(stopTimeout)
		c.end()
		c.done <- c.how(cmd.ProcessState, err, time.Since(began))
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return c, nil
}

// stop asks the whole group to end, and kills it when the time is over. It returns at once; only the first call counts.
func (c *child) stop(with syscall.Signal, timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked || c.over {
		return
	}
	c.asked = true
	_ = syscall.Kill(-c.pid, with) // ESRCH: it has just ended
	c.timer = time.AfterFunc(timeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.over {
			c.killed = true
			_ = syscall.Kill(-c.pid, syscall.SIGKILL)
		}
	})
}

func (c *child) isAsked() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.asked }

// forward sends a signal to the group.
func (c *child) forward(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = syscall.Kill(-c.pid, s) // ESRCH: it has just ended
	}
}

func (c *child) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// emptyGroup waits until nothing of the group is left after its leader has ended; what the leader left behind is asked
// to end first. Something that still writes must never be called stopped.
func (c *child) emptyGroup(timeout time.Duration) {
	for reap(c.pid); groupLives(c.pid); reap(c.pid) {
		c.stop(syscall.SIGTERM, timeout)
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // nobody is told when a process group becomes empty
	}
}

func groupLives(pgid int) bool { return !errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH) }

func (c *child) how(state *os.ProcessState, err error, ran time.Duration) ended {
	e := ended{code: state.ExitCode(), ran: ran}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.signal = status.Signal()
		e.code = 128 + int(e.signal)
		e.reason = "ended by signal " + e.signal.String()
	} else if e.code != 0 {
		e.reason = fmt.Sprintf("ended with code %d", e.code)
	} else {
		e.reason = "ended"
	}
	if err != nil && e.code == -1 {
		e.reason = err.Error()
	}
	switch {
	case c.killed:
		e.killed, e.reason = true, "did not end within its stop time and was killed"
	case c.asked && e.signal != 0 && e.signal != syscall.SIGTERM && e.signal != syscall.SIGINT:
		e.killed, e.reason = true, "was asked to stop and "+e.reason
	}
	return e
}
