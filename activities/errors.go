package activities

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
