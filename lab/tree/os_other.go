//go:build !linux

package tree

import (
	"os/exec"
	"syscall"
)

// attributes give each process a group of its own. There is no death signal here: when the keeper is killed with -9 its
// processes have to be ended by hand.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit returns when a child has ended. There is no waiting without reaping here, so its group is ended a moment
// after its id was given back.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }
