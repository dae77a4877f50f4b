// Package servers knows how each server of the lab is built and started: Temporal and Consul as programs built from
// pinned modules, Vault inside this program.
//
// Start reading at Build (programs of lab/tools, built once for each version and kept in the user's cache) and Product
// (Switchback's own programs). temporal.go, consul.go and vault.go hold the settings of one server each. What is put into
// the servers is package setup's affair.
package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// FreePorts finds n ports of the loopback interface that nobody listens on. They are below those that systems give to
// outgoing connections: a server that is started again some seconds later finds its port free. Until this process ends
// no other one is given them: between finding a port and its server's start another lab would, and then two labs talk to
// one server.
func FreePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		port := 15_000 + rand.IntN(17_000) //nolint:gosec // no secret
		err := claim(ctx, port)
		var l net.Listener
		if err == nil {
			l, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		}
		if err != nil {
			if tries > 1000 {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			continue
		}
		defer l.Close() // held until all are found
		ports = append(ports, port)
	}
	return ports, nil
}

// claimed are held until the process ends; the list keeps them from being collected.
var claimed struct {
	sync.Mutex
	ports []net.Listener
}

// claim takes a port at another address of the loopback interface, where no server of a lab listens. A system that has
// no such address (macOS) knows no claims.
func claim(ctx context.Context, port int) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.2:"+strconv.Itoa(port))
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return err
	}
	claimed.Lock()
	defer claimed.Unlock()
	claimed.ports = append(claimed.ports, l)
	return nil
}

// WriteJSON writes a value to a file that its owner alone can read. Readers see the old file or the new one, whole.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'))
}

// WriteFile is WriteJSON for bytes. The file is on disk when it returns.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already when all went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ReadJSON reads a file written by WriteJSON.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path) //nolint:gosec // the lab's own folder
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Answers asks an HTTP endpoint until it says 200; the error says what it said instead.
func Answers(url string) func(context.Context) error { return AnswersOver(http.DefaultClient, url) }

// AnswersOver is Answers with a client that trusts the endpoint's certificate.
func AnswersOver(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s says %s: %s", url, response.Status, body)
		}
		return nil
	}
}
