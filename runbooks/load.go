package runbooks

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Schema is the JSON Schema of a runbook file, for editors. It is generated from the types of this package.
//
//go:embed schema.json
var Schema []byte

// maxBytes is far above any real runbook; a larger file is another file.
const maxBytes = 1 << 20

// Loaded is a runbook with its defaults applied and its rules checked.
type Loaded struct {
	Runbook Runbook
	SHA256  string // of the file's bytes, in hex
	Path    string
}

// Error is one thing that is wrong. Line and Column count from 1; 0 means that the runbook came from no file.
type Error struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"` // such as links[0].clusterLinking.rest
	Message string `json:"message"`       // what is wrong and what would be right
}

func (e Error) Error() string {
	s := e.Message
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, s)
	}
	return s
}

// Errors is everything that is wrong with a runbook, in the order of the file.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads a runbook file. A file that does not exist is fs.ErrNotExist; what is wrong in it is Errors.
func Load(path string) (*Loaded, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("read runbook: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a runbook from bytes; name stands for the file in errors. What is wrong is Errors.
func Parse(name string, data []byte) (*Loaded, error) {
	d := decoder{file: name, at: map[string]position{}}
	var r Runbook
	if len(data) > maxBytes {
		d.fail("", position{1, 1}, "is larger than 1 MiB: this is not a runbook")
	} else {
		d.document(data, &r)
	}
	if len(d.errs) > 0 {
		return nil, d.sorted()
	}
	r.applyDefaults(func(key string) bool { _, ok := d.at[key]; return ok })
	var wrong Errors
	if errors.As(r.Validate(), &wrong) {
		for _, e := range wrong {
			d.fail(e.Key, d.nearest(e.Key), "%s", e.Message)
		}
		return nil, d.sorted()
	}
	sum := sha256.Sum256(data)
	return &Loaded{Runbook: r, SHA256: hex.EncodeToString(sum[:]), Path: name}, nil
}

// nearest is where a key stands, or the innermost of its parents that does.
func (d *decoder) nearest(key string) position {
	for key != "" {
		if p, ok := d.at[key]; ok {
			return p
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return position{1, 1}
}

func (d *decoder) sorted() Errors {
	sort.SliceStable(d.errs, func(i, j int) bool {
		a, b := d.errs[i], d.errs[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return d.errs
}
