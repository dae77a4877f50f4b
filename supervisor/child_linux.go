package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts the child into a group of its own, and lets the kernel kill it when the supervisor dies: nobody could
// ask it to stop any more.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// adopt makes the supervisor the parent of what its child leaves behind, so that it can see it end.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// reap collects the ended processes of a group.
func reap(pgid int) {
	for {
		if pid, err := syscall.Wait4(-pgid, nil, syscall.WNOHANG, nil); err != nil && err != syscall.EINTR || pid == 0 {
			return
		}
	}
}
