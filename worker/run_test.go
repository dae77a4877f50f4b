package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"

	"switchback/internal/vault/vaulttest"
)

// frontend is the part of Temporal that a worker without work talks to.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	polled  chan struct{}
	polling sync.Once
}

func (*frontend) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{}, nil
}

func (*frontend) DescribeNamespace(_ context.Context, r *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	if r.GetNamespace() != "default" {
		return nil, serviceerror.ToStatus(serviceerror.NewNamespaceNotFound(r.GetNamespace())).Err()
	}
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

func (f *frontend) PollWorkflowTaskQueue(ctx context.Context, _ *workflowservice.PollWorkflowTaskQueueRequest) (*workflowservice.PollWorkflowTaskQueueResponse, error) {
	f.polling.Do(func() { close(f.polled) })
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*frontend) PollActivityTaskQueue(ctx context.Context, _ *workflowservice.PollActivityTaskQueueRequest) (*workflowservice.PollActivityTaskQueueResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*frontend) ShutdownWorker(context.Context, *workflowservice.ShutdownWorkerRequest) (*workflowservice.ShutdownWorkerResponse, error) {
	return &workflowservice.ShutdownWorkerResponse{}, nil
}

// temporal listens at address and says when it is first asked for work.
func temporal(t *testing.T, address string) (string, <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	f := &frontend{polled: make(chan struct{})}
	server := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), f.polled
}

// lines is a log that can be waited for.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}
func (l *lines) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }

func (l *lines) wait(t *testing.T, says string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(l.String(), says) }, 30*time.Second, 10*time.Millisecond, "the log never said %q:\n%s", says, l)
}

// started is a worker that runs until end is called.
type started struct {
	log  *lines
	end  context.CancelFunc
	code chan int
}

func start(t *testing.T, vaultURL string, args ...string) started {
	t.Helper()
	role, secretID := vaulttest.Files(t)
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	s := started{log: &lines{}, end: end, code: make(chan int, 1)}
	args = append([]string{"--runbooks", t.TempDir(), "--vault.address", vaultURL, "--vault.roleidfile", role, "--vault.secretidfile", secretID, "--log.format", "text"}, args...)
	go func() { s.code <- run(ctx, args, nil, io.Discard, s.log) }()
	return s
}

func (s started) ends(t *testing.T) int {
	t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(30 * time.Second):
		t.Fatalf("the worker does not end:\n%s", s.log)
		return -1
	}
}

func TestTheWorkerServesMetricsAndEndsWhenAsked(t *testing.T) {
	address, polled := temporal(t, "127.0.0.1:0")
	w := start(t, vaulttest.New(t).URL, "--temporal.address", address, "--metrics.address", "127.0.0.1:0", "--log.level", "debug")
	<-polled
	w.log.wait(t, "worker is ready")
	where := regexp.MustCompile(`metrics=(\S+)`).FindStringSubmatch(w.log.String())
	require.NotNil(t, where)
	answer, err := http.Get("http://" + where[1] + "/metrics")
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	for _, metric := range []string{"switchback_build_info{", `temporal_worker_start_total{`, `temporal_request_total{`, "go_goroutines", "process_resident_memory_bytes"} {
		require.Contains(t, string(body), metric)
	}
	w.end()
	require.Equal(t, 0, w.ends(t))
	w.log.wait(t, "worker is stopping")
	require.NotContains(t, w.log.String(), vaulttest.SecretID)
	require.NotContains(t, string(body), vaulttest.SecretID)
}

func TestTheWorkerWaitsForATemporalThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that nobody listens at in a moment
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	w := start(t, vaulttest.New(t).URL, "--temporal.address", address)
	w.log.wait(t, "Temporal does not answer yet; still trying")
	_, polled := temporal(t, address)
	<-polled
	w.log.wait(t, "worker is ready")
	w.end()
	require.Equal(t, 0, w.ends(t))
}

func TestTheWorkerEndsWhenAskedThoughTemporalNeverCame(t *testing.T) {
	t.Parallel()
	w := start(t, vaulttest.New(t).URL, "--temporal.address", "127.0.0.1:1")
	w.log.wait(t, "Temporal does not answer yet")
	w.end()
	require.Equal(t, 0, w.ends(t))
}

func TestTheWorkerSaysThatVaultDoesNotKnowItAndEnds(t *testing.T) {
	address, _ := temporal(t, "127.0.0.1:0")
	role, _ := vaulttest.Files(t)
	w := start(t, vaulttest.New(t).URL, "--temporal.address", address, "--vault.secretidfile", role)
	require.Equal(t, 1, w.ends(t))
	w.log.wait(t, "log in to Vault at")
	w.log.wait(t, "check the files of the role id and the secret id")
}

func TestTheWorkerWorksThoughVaultIsAway(t *testing.T) {
	t.Parallel()
	address, polled := temporal(t, "127.0.0.1:0")
	v := vaulttest.New(t)
	v.SetDown(true)
	w := start(t, v.URL, "--temporal.address", address)
	<-polled
	w.log.wait(t, "Vault does not answer yet")
	w.log.wait(t, "worker is ready")
	w.end()
	require.Equal(t, 0, w.ends(t))
}

func TestTheWorkerNamesTheNamespaceThatTemporalDoesNotKnow(t *testing.T) {
	address, _ := temporal(t, "127.0.0.1:0")
	w := start(t, vaulttest.New(t).URL, "--temporal.address", address, "--temporal.namespace", "nobody")
	require.Equal(t, 1, w.ends(t))
	w.log.wait(t, "start the worker in namespace nobody of Temporal at "+address)
}

func TestAMetricsPortThatIsTakenIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	w := start(t, "http://127.0.0.1:1", "--metrics.address", taken.Addr().String())
	require.Equal(t, 1, w.ends(t))
	w.log.wait(t, "set metrics.address to a host:port that is free")
}

func TestUsageAndWrongSettingsEndWithTwo(t *testing.T) {
	var out, errs lines
	require.Equal(t, 0, run(context.Background(), []string{"--help"}, nil, &out, &errs))
	require.Contains(t, out.String(), "worker --config /etc/switchback/worker.yaml")
	require.Contains(t, out.String(), "--vault.roleidfile")
	require.Empty(t, errs.String())
	for _, args := range [][]string{{"--nonsense"}, {"stray"}, {"--log.level", "loud"}, {"--config", "/nonexistent"}} {
		var errs lines
		require.Equal(t, 2, run(context.Background(), args, nil, &out, &errs), args)
		require.Contains(t, errs.String(), "worker: ")
	}
}
