package runbooks

import (
	"fmt"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and prints as 5m or 30s, in YAML and in JSON. It is never negative.
type Duration time.Duration

// D is the duration as Go's own type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String prints the shortest form that ParseDuration reads back: 5m, not 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText prints as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 90s, 5m or 1h30m, and refuses a number without a unit and what is negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration: write a number and a unit, such as 30s, 5m or 1h30m", text)
	case v < 0:
		return fmt.Errorf("%q is negative: a duration is 0s or longer", text)
	}
	*d = Duration(v)
	return nil
}
