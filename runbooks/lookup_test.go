package runbooks

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatHappensToATopic(t *testing.T) {
	r := Recovery{Default: "append", Topics: map[string]string{"customers": "divert", "orders*": "report", "orders.eu.*": "rewind", "*": "report"}}
	for topic, mode := range map[string]string{
		"customers": "divert", "orders.us": "report", "orders.eu.1": "rewind", "payments": "report",
	} {
		require.Equal(t, mode, r.Of(topic), topic)
	}
	require.Equal(t, "append", Recovery{Default: "append", Topics: map[string]string{"customers": "divert"}}.Of("orders"))
}
