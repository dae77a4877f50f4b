//go:build killpoints

package killpoint

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Folder names the environment variable that says where the orders lie.
const Folder = "SWITCHBACK_KILLPOINTS"

var mu sync.Mutex

// Reach obeys the order that a test has left for this point: a file of the point's name, with a dot for the slash, that
// says kill or hold, and maybe how many times to pass by first, such as "kill 1". An order is obeyed once: the file then
// ends in .reached, so that the process after this one gets past the point, and the test sees that it was reached. A held
// process goes on when that file is gone.
func Reach(point string) {
	folder := os.Getenv(Folder)
	if folder == "" {
		return
	}
	file := filepath.Join(folder, strings.ReplaceAll(point, "/", "."))
	switch take(file) {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hold":
		for exists(file + ".reached") {
			time.Sleep(5 * time.Millisecond) //nolint:forbidigo // another process says when to go on
		}
	}
}

// take returns what is to be done now: kill, hold or nothing.
func take(file string) string {
	mu.Lock()
	defer mu.Unlock()
	raw, err := os.ReadFile(file) //nolint:gosec // the test's own folder
	if err != nil {
		return ""
	}
	order, times, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
	if n, _ := strconv.Atoi(times); n > 0 {
		_ = os.WriteFile(file, []byte(order+" "+strconv.Itoa(n-1)), 0o600) //nolint:gosec // the test's own folder
		return ""
	}
	if os.Rename(file, file+".reached") != nil {
		return ""
	}
	return order
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
