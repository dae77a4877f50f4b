package servers

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"switchback/lab/tree"
)

// TemporalConfig says where the lab's Temporal listens and keeps its state.
type TemporalConfig struct {
	Program  string // see Build
	Dir      string
	Log      string
	Port     int // gRPC
	UIPort   int
	HTTPPort int
	// Defaults leaves the server's own settings as they are; otherwise it is tuned for short waits, in a way that users'
	// platform teams may follow as well.
	Defaults bool
}

// SearchAttributes that runs set, all of type Keyword.
var SearchAttributes = []string{"SwitchbackRunbook", "SwitchbackWorkflow", "SwitchbackPhase", "SwitchbackOutcome"}

// Address is host:port of the gRPC endpoint.
func (c TemporalConfig) Address() string { return "127.0.0.1:" + strconv.Itoa(c.Port) }

// Temporal is the server with its UI as a process.
func Temporal(c TemporalConfig) tree.Spec {
	args := []string{
		"server", "start-dev", "--ip", "127.0.0.1", "--ui-ip", "127.0.0.1",
		"--port", strconv.Itoa(c.Port), "--ui-port", strconv.Itoa(c.UIPort), "--http-port", strconv.Itoa(c.HTTPPort),
		"--db-filename", filepath.Join(c.Dir, "temporal.db"), "--log-level", "error", "--log-format", "json",
	}
	for _, name := range SearchAttributes {
		args = append(args, "--search-attribute", name+"=Keyword")
	}
	if !c.Defaults {
		for _, pragma := range []string{"journal_mode=wal", "synchronous=1"} {
			args = append(args, "--sqlite-pragma", pragma)
		}
		for _, value := range []string{
			"history.transferProcessorMaxPollRPS=1000", "history.timerProcessorMaxPollRPS=1000",
			`history.timerProcessorMaxTimeShift="100ms"`, "system.enableActivityEagerExecution=true",
		} {
			args = append(args, "--dynamic-config-value", value)
		}
	}
	return tree.Spec{
		Name: "temporal", Path: c.Program, Args: args, Dir: c.Dir, Log: c.Log, Grace: 5 * time.Second,
		// A frontend that answers is not enough: the first workflow needs the namespace.
		Ready: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			c, err := client.DialContext(ctx, client.Options{HostPort: c.Address(), Logger: Silent{}})
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{}); err != nil {
				return fmt.Errorf("count workflows: %w", err)
			}
			return nil
		},
	}
}

// Silent is a logger for clients that keeps the attempts to reach a server that is still starting out of the log.
type Silent struct{}

func (Silent) Debug(string, ...any) {}
func (Silent) Info(string, ...any)  {}
func (Silent) Warn(string, ...any)  {}
func (Silent) Error(string, ...any) {}
