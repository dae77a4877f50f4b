package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"

	"switchback/internal/fault"
	"switchback/runbooks"
)

// Runbooks reads runbook files on the worker.
type Runbooks struct{ Dir string }

// SnapshotInput names the runbook, as its metadata does.
type SnapshotInput struct {
	Runbook string `json:"runbook"`
}

// Snapshot is a runbook with its defaults applied, as the run will use it to its end.
type Snapshot struct {
	Runbook runbooks.Runbook `json:"runbook"`
	SHA256  string           `json:"sha256"` // of the file's bytes
	Path    string           `json:"path"`
}

// runbookName keeps a name that somebody typed into a start form from leaving the folder.
var runbookName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// Snapshot reads <dir>/<name>.yaml. TypeNotFound and TypeInvalid (file, line, what is wrong) are not retried.
func (a *Runbooks) Snapshot(_ context.Context, in SnapshotInput) (Snapshot, error) {
	if !runbookName.MatchString(in.Runbook) {
		return Snapshot{}, fmt.Errorf("runbook %q is not a name: give the metadata.name of a runbook, such as orders: %w", in.Runbook, fault.ErrInvalid)
	}
	path := filepath.Join(a.Dir, in.Runbook+".yaml")
	loaded, err := runbooks.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Snapshot{}, fault.Hint(fmt.Errorf("runbook %s: %w", in.Runbook, fault.ErrNotFound), "put %s.yaml into the worker's runbooks folder", in.Runbook)
	case err != nil:
		return Snapshot{}, invalid{err}
	case loaded.Runbook.Metadata.Name != in.Runbook:
		return Snapshot{}, fmt.Errorf("%s says metadata.name %s: file and name must agree: %w", path, loaded.Runbook.Metadata.Name, fault.ErrInvalid)
	}
	return Snapshot{Runbook: loaded.Runbook, SHA256: loaded.SHA256, Path: loaded.Path}, nil
}

// invalid keeps a loader's sentences as they are, and is of the kind fault.ErrInvalid.
type invalid struct{ error }

func (invalid) Is(target error) bool { return target == fault.ErrInvalid } //nolint:errorlint // errors.Is asks here
