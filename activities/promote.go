package activities

import (
	"context"
	"errors"

	"switchback/replication"
)

// Mirrors stops mirrors and keeps their marks.
type Mirrors struct{}

// PromoteResult lists the topics that are not stopped, or needed more than a promote.
type PromoteResult struct {
	Acted
	Topics     int                   `json:"topics"`
	NotStopped []replication.Outcome `json:"notStopped,omitempty"`
	FailedOver []string              `json:"failedOver,omitempty"` // promote hung; lossless, because equality was proven
	Text       string                `json:"text"`
}

// Promote looks once more for quiescence and copied fences, asks with validate_only for all topics, then promotes and
// waits until each is stopped (P7, P15, P16, P34). TypePromoteRefused means that nothing was sent; every other error
// lies past the point of no return.
func (a *Mirrors) Promote(ctx context.Context, in WaitInput) (PromoteResult, error) {
	return PromoteResult{}, errors.New("not written")
}

// MarksResult counts the marks kept.
type MarksResult struct {
	Partitions int    `json:"partitions"`
	Records    int64  `json:"records"` // stranded: 0 in a planned run
	Text       string `json:"text"`
}

// MarksInput names the route and the epoch of the switch that the marks belong to.
type MarksInput struct {
	Guard Guard `json:"guard"`
	Route Route `json:"route"`
	Epoch int64 `json:"epoch"`
}

// KeepMarks stores the position of every partition at the stop in switchback.marks of both clusters (P20).
func (a *Mirrors) KeepMarks(ctx context.Context, in MarksInput) (MarksResult, error) {
	return MarksResult{}, errors.New("not written")
}
