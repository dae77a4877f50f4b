package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"switchback/lab/setup"
)

// Points is a folder of orders for the kill points of a worker, so that something can happen in the middle of a step.
type Points string

// Obeyed is how a lab is started whose worker obeys them.
func (p Points) Obeyed(o *setup.Options) {
	o.WorkerTags = append(o.WorkerTags, "killpoints")
	o.WorkerEnv = append(o.WorkerEnv, "SWITCHBACK_KILLPOINTS="+string(p))
}

// Hold holds the worker at a point the next time that it is reached.
func (p Points) Hold(point string) error { return os.WriteFile(p.file(point), []byte("hold"), 0o600) }

// Kill kills the worker at a point the next time that it is reached.
func (p Points) Kill(point string) error { return os.WriteFile(p.file(point), []byte("kill"), 0o600) }

// Reached says whether the worker has met an order.
func (p Points) Reached(point string) bool {
	_, err := os.Stat(p.file(point) + ".reached")
	return err == nil
}

// Forget takes an order back that the worker has not met.
func (p Points) Forget(point string) { _ = os.Remove(p.file(point)) }

// Held waits until the worker is held at a point.
func (p Points) Held(ctx context.Context, point string) error {
	return Until(ctx, "the worker to reach "+point, func() (bool, error) {
		_, err := os.Stat(p.file(point) + ".reached")
		return err == nil, err
	})
}

// GoOn lets a held worker go on.
func (p Points) GoOn(point string) error {
	if err := os.Remove(p.file(point) + ".reached"); err != nil {
		return fmt.Errorf("let the worker go on from %s: %w", point, err)
	}
	return nil
}

func (p Points) file(point string) string {
	return filepath.Join(string(p), strings.ReplaceAll(point, "/", "."))
}
