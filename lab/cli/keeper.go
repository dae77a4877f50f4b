package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"switchback/lab/setup"
	"switchback/lab/tree"
)

// keeper holds a lab: every process of it is a child of the keeper's process and ends with it. It answers on a socket in
// the lab's folder, which only the folder's owner can open.
type keeper struct {
	mu   sync.Mutex
	lab  *setup.Lab
	fail error

	down sync.Once
	end  chan struct{} // closed when somebody asked for the end
}

// report is what the keeper says of itself.
type report struct {
	// Phase is starting, ready or failed.
	Phase     string        `json:"phase"`
	Error     string        `json:"error,omitempty"`
	PID       int           `json:"pid"`
	Processes []tree.Status `json:"processes"`
	Places    []place       `json:"places"`
}

// place is something to look at, or a variable for a shell.
type place struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// socketOf a lab's folder. A socket's path may have some hundred bytes: where the folder's is longer, it is reached
// through a short link in the temporary folder.
func socketOf(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "keeper.sock")
	if len(path) < 100 {
		return path, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	short := filepath.Join(os.TempDir(), fmt.Sprintf("switchback-lab-%d-%d", os.Getuid(), inode))
	if target, err := os.Readlink(short); err != nil || target != dir {
		_ = os.Remove(short)
		if err := os.Symlink(dir, short); err != nil {
			return "", err
		}
	}
	return filepath.Join(short, "keeper.sock"), nil
}

// keep runs a lab until ctx ends or somebody asks for its end.
func keep(ctx context.Context, o setup.Options) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	// One keeper for a folder: the lock goes with the process, however that ends.
	lock, err := os.OpenFile(filepath.Join(o.Dir, "keeper.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a file descriptor fits
		return fmt.Errorf("a lab runs in %s already: `lab down` ends it", o.Dir)
	}
	socket, err := socketOf(o.Dir)
	if err != nil {
		return err
	}
	_ = os.Remove(socket) // of a keeper that was killed
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	k := &keeper{end: make(chan struct{})}
	server := &http.Server{Handler: k.routes(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-k.end:
			cancel()
		case <-ctx.Done():
		}
	}()
	lab, err := setup.Up(ctx, o)
	k.set(lab, err)
	if err != nil {
		linger(ctx, 2*time.Second) // whoever waits reads why
		return err
	}
	<-ctx.Done()
	return lab.Down()
}

func linger(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (k *keeper) set(lab *setup.Lab, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lab, k.fail = lab, err
}

func (k *keeper) get() (*setup.Lab, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lab, k.fail
}

func (k *keeper) report() report {
	lab, err := k.get()
	r := report{Phase: "starting", PID: os.Getpid()}
	switch {
	case err != nil:
		r.Phase, r.Error = "failed", err.Error()
	case lab != nil:
		r.Phase, r.Processes, r.Places = "ready", lab.Status(), placesOf(lab)
	}
	return r
}

func (k *keeper) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(k.report()) // the caller went away
	})
	mux.HandleFunc("POST /down", func(http.ResponseWriter, *http.Request) { k.down.Do(func() { close(k.end) }) })
	mux.HandleFunc("POST /kill/{name}", k.onProcess(func(_ context.Context, lab *setup.Lab, name string) error { return lab.Kill(name) }))
	mux.HandleFunc("POST /start/{name}", k.onProcess(func(ctx context.Context, lab *setup.Lab, name string) error { return lab.StartAgain(ctx, name) }))
	return mux
}

func (k *keeper) onProcess(do func(context.Context, *setup.Lab, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lab, err := k.get()
		if lab == nil && err == nil {
			err = errors.New("the lab is still starting")
		}
		if err == nil {
			err = do(r.Context(), lab, r.PathValue("name"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

// errNoKeeper is returned when nothing runs in a folder.
var errNoKeeper = errors.New("no lab runs")

// ask sends a request to the keeper of a folder, and decodes a report when there is one.
func ask(ctx context.Context, dir, method, path string) (report, error) {
	var r report
	socket, err := socketOf(dir)
	if err != nil {
		return r, fmt.Errorf("%w in %s: `lab up` starts one", errNoKeeper, dir)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return r, err
	}
	response, err := client.Do(request)
	if method == http.MethodGet && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) {
		response, err = client.Do(request) // it died while it was asked: now nobody listens any more
	}
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return r, fmt.Errorf("%w in %s: `lab up` starts one", errNoKeeper, dir)
		}
		return r, fmt.Errorf("ask the lab in %s: %w", dir, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return r, errors.New(text(response))
	}
	if method == http.MethodGet {
		err = json.NewDecoder(response.Body).Decode(&r)
	}
	return r, err
}

func processPath(verb, name string) string { return "/" + verb + "/" + url.PathEscape(name) }
