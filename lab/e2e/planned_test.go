package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// The story that goes well: traffic, a planned failover, traffic; nothing lost, nothing read twice, and a report that the
// ledger agrees with in every number.
func TestPlannedFailover(t *testing.T) {
	p := up(t).play(t, "orders")
	p.flows("east")
	before := p.look()
	out := p.ends(p.start("quarterly-exercise"), workflows.Completed)
	p.flows("west")
	after := p.wentOver(before)
	require.Equal(t, out.Run, after.SwitchedBy)
	v := p.clean("west", out)
	require.True(t, v.Agrees)
	require.NotNil(t, v.SwitchWindowSeconds)
	t.Logf("switch window of the producers %.2f s, of the consumers %.2f s", *v.SwitchWindowSeconds, *v.ConsumerWindowSeconds)
	require.Empty(t, out.Deviations)

	t.Run("the report keeps its schema", func(t *testing.T) {
		raw, err := os.ReadFile(out.Report)
		require.NoError(t, err)
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(report.Schema))
		require.NoError(t, err)
		compiler := jsonschema.NewCompiler()
		require.NoError(t, compiler.AddResource("report.json", schema))
		compiled, err := compiler.Compile("report.json")
		require.NoError(t, err)
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		require.NoError(t, err)
		require.NoError(t, compiled.Validate(document))
		var whole report.Report
		strict := json.NewDecoder(bytes.NewReader(raw))
		strict.DisallowUnknownFields()
		require.NoError(t, strict.Decode(&whole))
	})
	t.Run("page, workflow and report have the same steps", func(t *testing.T) {
		status, err := p.Status(t.Context(), "quarterly-exercise")
		require.NoError(t, err)
		var workflow, reported []string
		for _, s := range status.Steps {
			workflow = append(workflow, string(s.Step))
			require.Equal(t, workflows.Done, s.State, "%s: %s", s.Step, s.Text)
		}
		for _, s := range p.report(out).Steps {
			reported = append(reported, s.Name)
		}
		require.Equal(t, runbooks.PlannedFailoverSteps, workflow)
		require.Equal(t, workflow, reported)
		require.Equal(t, workflow, pageSteps(t))
	})
	t.Run("the Markdown is for people", func(t *testing.T) {
		raw, err := os.ReadFile(out.Markdown)
		require.NoError(t, err)
		for _, word := range append(runbooks.PlannedFailoverSteps, "completed", "orders.00", "exercise", "operator", after.SwitchedBy[:10]) {
			require.Contains(t, string(raw), word)
		}
	})
}

// pageSteps are the numbered steps of a planned run on the operator's page.
func pageSteps(t *testing.T) (steps []string) {
	t.Helper()
	raw, err := os.ReadFile("../../runbooks/examples/orders.md")
	require.NoError(t, err)
	_, page, _ := strings.Cut(string(raw), "## The fifteen steps\n")
	page, _, _ = strings.Cut(page, "\n## ")
	for _, line := range strings.Split(page, "\n") {
		if m := regexp.MustCompile(`^\|?\s*\d+\.?\s*\|?\s*\**` + "`" + `([a-z-]+)` + "`").FindStringSubmatch(line); m != nil {
			steps = append(steps, m[1])
		}
	}
	return steps
}
