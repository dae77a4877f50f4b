// Package secret keeps credentials from being seen: a Value prints as *** however it is printed.
package secret

import "log/slog"

const mask = "***"

// Value is a secret string. Only Reveal shows it; every printer, encoder and logger shows ***.
type Value struct{ s string }

// New wraps a secret.
func New(s string) Value { return Value{s} }

// Reveal returns the secret, for the one call that needs it.
func (v Value) Reveal() string { return v.s }

// IsZero says whether there is no secret.
func (v Value) IsZero() bool { return v.s == "" }

func (v Value) String() string               { return mask }
func (v Value) GoString() string             { return mask }
func (v Value) MarshalText() ([]byte, error) { return []byte(mask), nil }
func (v Value) LogValue() slog.Value         { return slog.StringValue(mask) }

// Login is a user name and its password, as Kafka's SASL and HTTP basic use them.
type Login struct {
	Username string
	Password Value
}
