package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"switchback/internal/fault"
	"switchback/replication"
)

// behindCopies names groups that have not read past the last recovered record on the cluster that is left (P26). A mirror that
// numbers anew leaves those records out on their way home, where their originals lie before the point at which groups go on: a
// group that moved in the middle of them would skip the rest.
func behindCopies(ctx context.Context, r *route, groups []string) (behind []string, err error) {
	if r.link.StopIsFinal() { // mirrors byte for byte: the copies go home as they are
		return nil, nil
	}
	last, err := lastCopies(ctx, r)
	if err != nil || len(last) == 0 {
		return nil, err
	}
	texts := make([]string, len(groups))
	err = each(groups, func(i int, group string) error {
		at, err := r.from.Committed(ctx, group)
		if err != nil {
			return wrap("read the offsets of group "+group, err)
		}
		for p, copied := range last {
			if stands, reads := at[p]; reads && stands <= copied && texts[i] == "" {
				texts[i] = fmt.Sprintf("group %s is at offset %d of %s on %s, the last recovered record is at %d", group, stands, p.Name(), r.names.From.Name, copied)
			}
		}
		return nil
	})
	for _, text := range texts {
		if text != "" {
			behind = append(behind, text)
		}
	}
	return behind, err
}

// lastCopies are the offsets of the last copy in each partition of the source that was recovered from the target.
func lastCopies(ctx context.Context, r *route) (map[replication.Partition]int64, error) {
	to, err := r.to.Identity(ctx)
	if err != nil {
		return nil, wrap("read the identity of "+r.names.To.Name, err)
	}
	all, err := r.from.Records(replication.RecoveryTopic).Load(ctx, to.ClusterID+"/")
	if errors.Is(err, fault.ErrNotFound) { // nothing was ever recovered there
		return nil, nil
	}
	if err != nil {
		return nil, wrap("read what was recovered", err)
	}
	last := map[replication.Partition]int64{}
	for key, raw := range all {
		var one replication.Recovered
		if err := json.Unmarshal(raw, &one); err != nil {
			return nil, fmt.Errorf("decode record %s: %w", key, err)
		}
		if one.Treatment == replication.TreatAppend && one.Tally.Recovered > 0 {
			last[one.Into] = max(last[one.Into], one.LastCopy)
		}
	}
	return last, nil
}

// pastCopies refuses to hand over groups that are behind.
func pastCopies(ctx context.Context, r *route, groups []string) error {
	behind, err := behindCopies(ctx, r, groups)
	if err != nil || len(behind) == 0 {
		return err
	}
	return fault.Hint(fmt.Errorf("recovered records are not read yet, and would be skipped at %s: %s: %w", r.names.To.Name, strings.Join(behind[:min(len(behind), 5)], "; "), fault.ErrInvalid),
		"let the consumers read on until they are past it, then start again")
}
