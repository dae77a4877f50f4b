// Package fault holds the few errors in which adapters report what went wrong, whatever the vendor's words were, and
// the hint that tells an operator what to do. Adapters translate into these; package activities translates these into
// Temporal's typed errors and decides what is retried.
package fault

import (
	"errors"
	"fmt"
)

// The sentinels. Unknown errors (none of these) are retried.
var (
	// ErrNotFound: the thing asked for does not exist there.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the state is not what the caller said it was; a compare-and-set lost.
	ErrConflict = errors.New("conflict")
	// ErrDenied: authenticated, but not allowed.
	ErrDenied = errors.New("not authorized")
	// ErrUnauthenticated: credentials were refused.
	ErrUnauthenticated = errors.New("authentication failed")
	// ErrInvalid: the request is wrong and stays wrong.
	ErrInvalid = errors.New("invalid")
	// ErrUnreachable: no answer, and the request was not sent or certainly not acted upon.
	ErrUnreachable = errors.New("unreachable")
	// ErrUnclear: the request may have been acted upon (time-out, reset, 5xx after sending). Read the state and decide.
	ErrUnclear = errors.New("outcome unknown")
	// ErrNotReady: a wait ended at its deadline; the text names the laggards.
	ErrNotReady = errors.New("not ready")
	// ErrStale: the epoch in discovery is not the run's: another run, or a rollback, has gone on (P35).
	ErrStale = errors.New("stale epoch")
)

// Error is an error with a hint for the operator.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() + " (" + e.Hint + ")" }
func (e *Error) Unwrap() error { return e.Err }

// Hint adds what the operator can do. A nil err stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Hint: fmt.Sprintf(format, args...)}
}

// HintOf returns the outermost hint, or "".
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
