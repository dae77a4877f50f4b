package mirrormaker

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"switchback/internal/rest"
	"switchback/replication"
)

// Stored is one offset that Connect keeps for a MirrorSourceConnector: that of the last record it says it has mirrored.
type Stored struct {
	Cluster string // the alias that the connector had
	replication.Partition
	Offset int64 // replication.Unknown is none: in a change, to be forgotten
}

func (s Stored) String() string { return s.Name() + "=" + strconv.FormatInt(s.Offset, 10) }

type wireOffset struct {
	Partition struct {
		Cluster   *string `json:"cluster"`
		Topic     *string `json:"topic"`
		Partition *int64  `json:"partition"`
	} `json:"partition"`
	Offset *struct {
		Offset *int64 `json:"offset"`
	} `json:"offset"`
}

type wireOffsets struct {
	Offsets *[]wireOffset `json:"offsets"`
}

// stored leaves out what is no offset of a partition: unknown is not zero.
func (w wireOffsets) stored() (out []Stored) {
	for _, o := range *w.Offsets {
		p := o.Partition
		if p.Cluster == nil || p.Topic == nil || p.Partition == nil || *p.Partition < 0 || *p.Partition > math.MaxInt32 ||
			o.Offset == nil || o.Offset.Offset == nil || *o.Offset.Offset < 0 {
			continue
		}
		out = append(out, Stored{*p.Cluster, replication.Partition{Topic: *p.Topic, Partition: int32(*p.Partition)}, *o.Offset.Offset})
	}
	return out
}

// Offsets reads what Connect has stored for a source connector, in one request whatever the number of partitions. It is
// a hint: flushed once a minute, and with errors.tolerance=all it counts what was never written (P17).
func (c *Client) Offsets(ctx context.Context, name string) ([]Stored, error) {
	var w wireOffsets
	err := c.read(ctx, connectorPath(name, "/offsets"), nil, &w)
	if err == nil && w.Offsets == nil {
		err = rest.ErrMalformed // a missing list is no empty one
	}
	if err != nil {
		return nil, fmt.Errorf("read the offsets of connector %s: %w", name, err)
	}
	return w.stored(), nil
}

// SetOffsets changes offsets of a stopped connector; those not named stay. fault.ErrNotReady when it is not stopped.
// Connect takes aliases and topics that the connector does not know without a word: read back.
func (c *Client) SetOffsets(ctx context.Context, name string, list []Stored) error {
	var in wireOffsets
	offsets := make([]wireOffset, 0, len(list))
	for _, s := range list {
		var w wireOffset
		partition := int64(s.Partition.Partition)
		w.Partition.Cluster, w.Partition.Topic, w.Partition.Partition = &s.Cluster, &s.Topic, &partition
		if s.Offset >= 0 {
			w.Offset = &struct {
				Offset *int64 `json:"offset"`
			}{&s.Offset}
		}
		offsets = append(offsets, w)
	}
	in.Offsets = &offsets
	if err := c.write(ctx, http.MethodPatch, connectorPath(name, "/offsets"), nil, in); err != nil {
		return fmt.Errorf("set the offsets of connector %s: %w", name, err)
	}
	return nil
}

// Forget drops every offset of a stopped connector, which then begins at the start of each partition.
func (c *Client) Forget(ctx context.Context, name string) error {
	if err := c.write(ctx, http.MethodDelete, connectorPath(name, "/offsets"), nil, nil); err != nil {
		return fmt.Errorf("forget the offsets of connector %s: %w", name, err)
	}
	return nil
}
