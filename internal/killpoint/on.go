//go:build killpoints

package killpoint

import (
	"os"
	"syscall"
)

// Reach kills the process with SIGKILL when SWITCHBACK_KILL_AT names this point and the file named by
// SWITCHBACK_KILL_ONCE does not exist yet; it is created first, so that the next process gets past the point.
func Reach(point string) {
	if os.Getenv("SWITCHBACK_KILL_AT") != point {
		return
	}
	f, err := os.OpenFile(os.Getenv("SWITCHBACK_KILL_ONCE"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_ = f.Close()
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
