package activities

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"switchback/internal/fault"
)

// The types of application errors that workflows decide by. Every other error is unknown, and unknown is retried.
const (
	TypeStale          = "Stale"          // discovery holds another epoch than the run's: somebody else has gone on
	TypeHeld           = "Held"           // another run holds the runbook or the link
	TypeNotReady       = "NotReady"       // a wait ended at its deadline; the message names the laggards
	TypeInvalid        = "Invalid"        // the request is wrong and stays wrong
	TypeDenied         = "Denied"         // not authorized, or credentials refused
	TypeConflict       = "Conflict"       // the state is not what was expected
	TypeNotFound       = "NotFound"       // what was named does not exist
	TypeUnreachable    = "Unreachable"    // no answer
	TypeUnclear        = "Unclear"        // may have been acted upon
	TypeStillWriting   = "StillWriting"   // a writer goes on behind the fence; the message names it
	TypePromoteRefused = "PromoteRefused" // validate_only said no and nothing was sent: not past the point of no return
)

// Errors that only activities know.
var (
	errHeld           = errors.New("held by another run")
	errStillWriting   = errors.New("somebody still writes")
	errPromoteRefused = errors.New("promote refused")
	// errTimeUp ends a wait of ours at its deadline. Adapters' fault.ErrNotReady is another thing: a leader that is being
	// elected, a setting that is not seen yet. That passes, and is tried again.
	errTimeUp = fmt.Errorf("the time for it is over: %w", fault.ErrNotReady)
	// errWritesOver: this attempt may not write any more (P35a); the next one may.
	errWritesOver = fmt.Errorf("the time for writes of this attempt is over: %w", fault.ErrUnreachable)
)

// kinds maps what adapters say to what workflows decide by. final errors are not retried: another try would find the
// same. Denied is not final: Vault's and the brokers' authorizers are caches.
var kinds = []struct {
	sentinel error
	name     string
	final    bool
}{
	{fault.ErrStale, TypeStale, true},
	{errPromoteRefused, TypePromoteRefused, true}, // before the reasons that it carries
	{errHeld, TypeHeld, true},
	{errStillWriting, TypeStillWriting, true},
	{errTimeUp, TypeNotReady, true},
	{fault.ErrInvalid, TypeInvalid, true},
	{fault.ErrDenied, TypeDenied, false},
	{fault.ErrUnauthenticated, TypeDenied, false},
	{fault.ErrNotFound, TypeNotFound, true},
	{fault.ErrConflict, TypeConflict, false},
	{fault.ErrUnclear, TypeUnclear, false},
	{fault.ErrUnreachable, TypeUnreachable, false},
	{fault.ErrNotReady, TypeUnreachable, false},
}

// toApplication turns an error into Temporal's typed one. Cancellation and errors that are typed already pass.
func toApplication(err error) error {
	var typed *temporal.ApplicationError
	if err == nil || errors.As(err, &typed) || errors.Is(err, context.Canceled) {
		return err
	}
	for _, k := range kinds {
		if !errors.Is(err, k.sentinel) {
			continue
		}
		if k.final {
			return temporal.NewNonRetryableApplicationError(err.Error(), k.name, nil)
		}
		return temporal.NewApplicationError(err.Error(), k.name)
	}
	return err
}

// sideBySide runs what does not depend on each other and joins the errors.
func sideBySide(jobs ...func() error) error {
	errs := make([]error, len(jobs))
	var g errgroup.Group
	for i, job := range jobs {
		g.Go(func() error { errs[i] = job(); return nil })
	}
	_ = g.Wait() // the jobs' errors are in errs
	return errors.Join(errs...)
}

// final says that waiting longer will not help.
func final(err error) bool {
	for _, k := range kinds {
		if errors.Is(err, k.sentinel) {
			return k.final
		}
	}
	return false
}
