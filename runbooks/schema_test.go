package runbooks

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	"github.com/stretchr/testify/require"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files anew")

// generateSchema reads keys, enums and required from the tags of the types, and descriptions from their comments.
func generateSchema(t *testing.T) []byte {
	t.Helper()
	r := jsonschema.Reflector{RequiredFromJSONSchemaTags: true, Anonymous: true, Mapper: func(t reflect.Type) *jsonschema.Schema {
		if t == reflect.TypeFor[Duration]() {
			return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, Examples: []any{"30s", "5m", "1h30m"}}
		}
		return nil
	}}
	require.NoError(t, r.AddGoComments("switchback/runbooks", "./"))
	s := r.Reflect(&Runbook{})
	s.Title = "Runbook of Switchback"
	data, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	return append(data, '\n')
}

func TestSchemaIsUpToDate(t *testing.T) {
	want := generateSchema(t)
	if *update {
		require.NoError(t, os.WriteFile("schema.json", want, 0o600))
		return
	}
	require.Equal(t, string(want), string(Schema), "run: go test ./runbooks -run TestSchemaIsUpToDate -update")
}

func compiled(t *testing.T) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(generateSchema(t)))
	require.NoError(t, err)
	c := validator.NewCompiler()
	require.NoError(t, c.AddResource("runbook.json", doc))
	s, err := c.Compile("runbook.json")
	require.NoError(t, err)
	return s
}

func instance(t *testing.T, data []byte) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(data)
	require.NoError(t, err)
	v, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	require.NoError(t, err)
	return v
}

func TestSchemaAcceptsExamplesAndRefusesWrongOnes(t *testing.T) {
	s := compiled(t)
	for _, file := range examples(t) {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, s.Validate(instance(t, data)), file)
	}
	for old, wrong := range map[string]string{
		"home: east":          "hmoe: east",          // an unknown key
		"role: producer":      "role: prodcer",       // an unknown value
		"rto: 5m":             "rto: 5",              // a number where a duration belongs
		"metadata: {name":     "metadata: {title",    // a required key that is missing
		"include: [orders,":   "include: [[orders],", // a list where text belongs
		"protocol: SASL_SSL}": "protocol: TLS}",
	} {
		require.Error(t, s.Validate(instance(t, []byte(strings.Replace(base, old, wrong, 1)))), wrong)
	}
}
