package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Progress is where builds say what they are doing; tests and the keeper may point it elsewhere before they build.
var Progress io.Writer = os.Stderr

// tool is a program that is built from a module of its own in lab/tools.
type tool struct {
	pkg     string // the main package
	module  string // whose version is the tool's
	usually string // how long a first build takes
	size    string
}

var tools = map[string]tool{
	"temporal": {pkg: "github.com/temporalio/cli/cmd/temporal", module: "github.com/temporalio/cli", usually: "2 to 3 minutes", size: "250 MB"},
	"consul":   {pkg: "github.com/hashicorp/consul", module: "github.com/hashicorp/consul", usually: "3 to 4 minutes", size: "150 MB"},
}

// Build returns the path of a program of lab/tools (temporal or consul). It is built once for each version into the
// user's cache folder, which takes minutes and is said on Progress; a program of exactly that version on the PATH serves
// as well. Two builders at once wait for each other.
func Build(ctx context.Context, name string) (string, error) {
	t, ok := tools[name]
	if !ok {
		return "", fmt.Errorf("build %s: there is no such tool", name)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	dir := filepath.Join(root, "lab", "tools", name)
	key, err := toolKey(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	path := filepath.Join(cache, "switchback", "tools", name+"-"+key, name) // its own name, so that its folder can be on a PATH
	if isProgram(path) {
		return path, nil
	}
	if found := onPath(ctx, dir, name, t.module); found != "" {
		return found, nil
	}
	return path, Locked(ctx, path+".lock", func() error {
		if isProgram(path) { // by whoever held the lock before
			return nil
		}
		begun := time.Now()
		fmt.Fprintf(Progress, "Building %s once, into %s (%s). This usually takes %s on two cores; later starts reuse it.\n", name, path, t.size, t.usually)
		unfinished := path + ".unfinished"
		if err := goBuild(ctx, dir, unfinished, "-ldflags=-s -w", t.pkg); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		fmt.Fprintf(Progress, "Built %s in %v.\n", name, time.Since(begun).Round(time.Second))
		return os.Rename(unfinished, path)
	})
}

// Product builds a program of this repository into out/bin: "worker", "starter" (the command switchback), "supervisor" or
// "lab". Go's own cache makes that a moment when nothing has changed. Tags get a folder of their own.
func Product(ctx context.Context, name string, tags ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir, pkg, file := root, "./"+name, name
	switch name {
	case "lab":
		dir, pkg = filepath.Join(root, "lab"), "."
	case "starter":
		file = "switchback"
	}
	slices.Sort(tags)
	path := filepath.Join(root, "out", "bin", strings.Join(tags, "-"), file)
	return path, Locked(ctx, path+".lock", func() error {
		if err := goBuild(ctx, dir, path, "-tags="+strings.Join(tags, ","), pkg); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		return nil
	})
}

// Root is the folder of the repository: $LAB_ROOT, or the nearest folder above the working directory or above
// this program that has both modules.
func Root() (string, error) {
	if root := os.Getenv("LAB_ROOT"); root != "" {
		return root, nil
	}
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if file, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			mod, err := os.ReadFile(filepath.Join(dir, "lab", "go.mod")) //nolint:gosec // a look at a file of that name
			if err == nil && bytes.HasPrefix(mod, []byte("module switchback/lab\n")) {
				return dir, nil
			}
		}
	}
	return "", errors.New("find the repository: no folder above has lab/go.mod; run this inside it, or set LAB_ROOT")
}

// toolKey names everything that decides what is built.
func toolKey(ctx context.Context, dir string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // a file of the repository
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	version, err := output(ctx, dir, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	fmt.Fprint(sum, version)
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// onPath returns a program on the PATH that says it is exactly the version that would be built, or "".
func onPath(ctx context.Context, dir, name, module string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	want, err := output(ctx, dir, "go", "list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return ""
	}
	says, err := output(ctx, dir, path, "--version")
	if err != nil || !saysVersion(says, want) {
		return ""
	}
	return path
}

var aVersion = regexp.MustCompile(`v?(\d+\.\d+\.\d+\S*)`)

// saysVersion looks at the first version in a program's answer ("Consul v1.21.0", "temporal version 1.5.1 (Server …").
func saysVersion(answer, want string) bool {
	found := aVersion.FindStringSubmatch(answer)
	return found != nil && found[1] == strings.TrimPrefix(strings.TrimSpace(want), "v")
}

func goBuild(ctx context.Context, dir, path string, args ...string) error {
	_, err := output(ctx, dir, "go", append([]string{"build", "-o", path}, args...)...)
	return err
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // go, or a tool that is asked for its version
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s in %s: %w\n%s", name, strings.Join(args, " "), dir, err, &stderr)
	}
	return stdout.String(), nil
}

// Locked runs f while no other process runs one with the same lock file. The system drops the lock of a process that
// dies, so that a crash never leaves it locked.
func Locked(ctx context.Context, path string, f func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a path of our own
	if err != nil {
		return err
	}
	defer lock.Close()
	for said := false; ; said = true {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a file descriptor fits
		if err == nil {
			return f()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
		if !said {
			fmt.Fprintf(Progress, "Another process is making %s; waiting for it.\n", strings.TrimSuffix(filepath.Base(path), ".lock"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for another build (%s): %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
}
