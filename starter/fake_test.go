package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	"switchback/activities"
	"switchback/workflows"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMain fixes the time zone, because lists show local times.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// at is when everything happens in these tests.
var at = time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC)

// fake is a Temporal with what a test puts into it. What is not there it does not know.
type fake struct {
	client.Client // anything not below panics: the command line is not to ask for it

	mu       sync.Mutex
	queries  map[string][]any // by id and name, such as "planned-orders/status": an answer or an error for each time, the last for ever
	updates  map[string]any   // by id and name: the answer, or an error
	said     []workflows.Order
	list     []*workflowpb.WorkflowExecutionInfo
	listed   []string // the queries
	workers  int
	started  []client.StartWorkflowOptions
	inputs   []any
	starting error
	result   any // of a run: a value, or an error
	closed   int
}

func newFake() *fake {
	return &fake{queries: map[string][]any{}, updates: map[string]any{}, workers: 1}
}

func encode(v any) (converter.EncodedValue, error) {
	if err, ok := v.(error); ok {
		return nil, err
	}
	p, err := converter.GetDefaultDataConverter().ToPayloads(v)
	return client.NewValue(p), err
}

func (f *fake) QueryWorkflow(_ context.Context, id, _, name string, _ ...any) (converter.EncodedValue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := id + "/" + name
	answers := f.queries[key]
	if len(answers) == 0 {
		return nil, serviceerror.NewNotFound("workflow not found for ID: " + id)
	}
	if len(answers) > 1 {
		f.queries[key] = answers[1:]
	}
	return encode(answers[0])
}

func (f *fake) UpdateWorkflow(_ context.Context, o client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, o.Args[0].(workflows.Order))
	answer, ok := f.updates[o.WorkflowID+"/"+o.UpdateName]
	if !ok {
		return nil, serviceerror.NewNotFound("workflow not found for ID: " + o.WorkflowID)
	}
	if err, is := answer.(error); is && !errors.As(err, new(refusal)) {
		return nil, err
	}
	return handle{answer: answer}, nil
}

// refusal is how a validator's sentence arrives: out of the handle, as the SDK does it.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

type handle struct {
	client.WorkflowUpdateHandle
	answer any
}

func (h handle) Get(_ context.Context, into any) error {
	v, err := encode(h.answer)
	if err != nil {
		return err
	}
	return v.Get(into)
}

func (f *fake) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started, f.inputs = append(f.started, o), append(f.inputs, args...)
	return ran{id: o.ID, result: f.result}, f.starting
}

type ran struct {
	client.WorkflowRun
	id     string
	result any
}

func (r ran) GetID() string    { return r.id }
func (r ran) GetRunID() string { return "first-run" }
func (r ran) Get(ctx context.Context, into any) error {
	if r.result == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return handle{answer: r.result}.Get(ctx, into)
}

func (f *fake) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = append(f.listed, r.GetQuery())
	found := &workflowservice.ListWorkflowExecutionsResponse{}
	for _, e := range f.list { // as far as these tests need SQL
		if strings.Contains(r.GetQuery(), `"`+e.GetType().GetName()+`"`) && (!strings.Contains(r.GetQuery(), "Running") || e.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING) {
			found.Executions = append(found.Executions, e)
		}
	}
	return found, nil
}

func (f *fake) DescribeTaskQueue(context.Context, string, enumspb.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error) {
	return &workflowservice.DescribeTaskQueueResponse{Pollers: make([]*taskqueuepb.PollerInfo, f.workers)}, nil
}

func (f *fake) Close() { f.mu.Lock(); f.closed++; f.mu.Unlock() }

// add puts a workflow into the list.
func (f *fake) add(id, kind string, status enumspb.WorkflowExecutionStatus, attributes map[string]string) {
	e := &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: id}, Type: &commonpb.WorkflowType{Name: kind}, Status: status,
		StartTime: timestamppb.New(at), SearchAttributes: &commonpb.SearchAttributes{IndexedFields: map[string]*commonpb.Payload{}},
	}
	for name, v := range attributes {
		p, err := converter.GetDefaultDataConverter().ToPayload(v)
		if err != nil {
			panic(err)
		}
		e.SearchAttributes.IndexedFields[name] = p
	}
	f.list = append(f.list, e)
}

// orders is the fake with a runbook whose run planned-orders holds it.
func orders() *fake {
	f := newFake()
	f.queries["runbook/orders/status"] = []any{activities.EntityStatus{Holder: &activities.Holder{Run: activities.Run{Runbook: "orders", WorkflowID: "planned-orders", FirstRunID: "r1"}, Since: at}}}
	return f
}

// told is what a command said and how it ended.
type told struct {
	out, err string
	code     int
}

// ask runs the command line against the fake.
func (f *fake) ask(t *testing.T, args ...string) told { return f.asked(t, nil, args...) }

// asked lets a test change what stands around it.
func (f *fake) asked(t *testing.T, change func(*cli), args ...string) told {
	t.Helper()
	var out, errs bytes.Buffer
	c := &cli{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: func() time.Time { return at },
		getenv: func(key string) string { return map[string]string{"SWITCHBACK_BY": "ann"}[key] },
		dial:   func(context.Context, *cli) (client.Client, error) { return f, nil },
	}
	if change != nil {
		change(c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	code := c.run(ctx, args)
	return told{out: out.String(), err: errs.String(), code: code}
}

// golden compares with testdata/<name>, and writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o750))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with: go test ./starter -update")
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); after a look, write it with: go test ./starter -update\n%s", path, diff)
	}
}

// goldenJSON is golden, and what is printed must be JSON that holds no terminal's colours.
func goldenJSON(t *testing.T, name, got string) {
	t.Helper()
	require.True(t, json.Valid([]byte(got)), got)
	golden(t, name, got)
}
