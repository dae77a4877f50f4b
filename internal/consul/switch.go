package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"switchback/internal/fault"
)

// MaxOperations is how many operations every Consul takes in one transaction; newer ones take 128.
const MaxOperations = 64

// AnyLower, as SwitchInput.Expect, accepts every epoch below the new one, and an entry that holds none yet: for the
// entries that are not the required one (P40).
const AnyLower int64 = -2

// SwitchInput asks for new values at a new epoch, the same number in every entry.
type SwitchInput struct {
	Expect int64  // the epoch that the entry must hold now, or AnyLower
	Values Values // what the entry says from now on
	Epoch  int64  // absolute, above Expect
	By     string // the run, for switchedBy
	// Overrides are the new values of keys under clients/<client>/, by client and key. Without them an override that
	// repeats the shared value follows it, and one with a value of its own makes the switch refuse: it would keep its
	// client on the cluster that is left.
	Overrides map[string]map[string]string
}

// SwitchResult is the entry before and after. Changed is false when the same run had switched it already.
type SwitchResult struct {
	Changed bool
	Before  State
	After   State
}

// Switch changes all keys of the entry in one transaction, each checked against what was read (P2). It may be repeated.
//
// fault.ErrStale: the entry holds another epoch than expected, or one that is not below the new one.
// fault.ErrConflict: somebody changed the keys that are named; nothing was written. fault.ErrInvalid: it cannot work as asked.
// fault.ErrUnclear: the answer was lost and the entry does not show the switch yet; repeat.
func (d *Discovery) Switch(ctx context.Context, in SwitchInput) (SwitchResult, error) {
	doing := d.doing("switch")
	before, err := d.Read(ctx)
	if err != nil {
		return SwitchResult{}, err
	}
	if in.done(before) {
		if changed := in.differing(before); len(changed) > 0 {
			return SwitchResult{Before: before, After: before}, fault.Hint(
				fmt.Errorf("%s: this run switched to epoch %d, and %s was changed since: %w",
					doing, in.Epoch, strings.Join(changed, ", "), fault.ErrConflict),
				"find out who changed it, put it right, then retry")
		}
		return SwitchResult{Before: before, After: before}, nil
	}
	if err := in.refuse(before); err != nil {
		return SwitchResult{Before: before}, fmt.Errorf("%s: %w", doing, err)
	}
	ops, err := in.operations(before)
	if err != nil {
		return SwitchResult{Before: before}, fmt.Errorf("%s: %w", doing, err)
	}
	cause := d.commit(ctx, doing, ops)
	if cause != nil && !errors.Is(cause, fault.ErrConflict) && !errors.Is(cause, fault.ErrUnclear) {
		return SwitchResult{Before: before}, cause
	}
	after, err := d.Read(ctx)
	switch {
	case cause == nil && err != nil:
		return SwitchResult{Before: before}, fmt.Errorf("%w: switched, but not read back: %w", fault.ErrUnclear, err)
	case err != nil:
		return SwitchResult{Before: before}, errors.Join(cause, err)
	case in.done(after): // also when the answer was lost, or an attempt before this one was applied meanwhile
		return SwitchResult{Changed: true, Before: before, After: after}, nil
	case in.refuse(after) != nil:
		return SwitchResult{Before: before, After: after}, fmt.Errorf("%s: %w", doing, in.refuse(after))
	case cause == nil:
		return SwitchResult{Before: before, After: after}, fmt.Errorf("%s: read back without the switch: %w", doing, fault.ErrConflict)
	}
	return SwitchResult{Before: before, After: after}, cause
}

// Withdraw takes away, in one transaction, what says where the cluster is, while the entry holds the epoch. epoch, switchedBy and
// what stands under clients/ stay: a later Switch counts on from there. It may be repeated.
//
// fault.ErrStale, fault.ErrConflict (a key was changed meanwhile: repeat), fault.ErrUnclear (repeat).
func (d *Discovery) Withdraw(ctx context.Context, epoch int64) (changed bool, err error) {
	s, err := d.Read(ctx)
	if err != nil {
		return false, err
	}
	if err := d.sameEpoch(s, epoch); err != nil {
		return false, err
	}
	ops := []op{unchanged(s, keyEpoch)}
	for _, key := range slices.Sorted(maps.Keys(s.byKey())) {
		if k, held := s.Keys[key]; held {
			ops = append(ops, op{key, api.KVTxnOp{Verb: api.KVDeleteCAS, Index: k.ModifyIndex}})
		}
	}
	if len(ops) == 1 {
		return false, nil
	}
	return true, d.commit(ctx, d.doing("take away where the cluster is under"), ops)
}

func (in SwitchInput) done(s State) bool { return s.Epoch == in.Epoch && s.SwitchedBy == in.By }

// refuse says why the switch must not be made from here.
func (in SwitchInput) refuse(s State) error {
	_, held := s.Keys[keyEpoch]
	switch {
	case in.By == "" || in.Epoch <= 0 || in.Values.Cluster == "" || in.Values.Bootstrap == "":
		return fmt.Errorf("epoch, run, cluster and bootstrap.servers are all needed: %w", fault.ErrInvalid)
	case held && s.Epoch == Unknown:
		return fault.Hint(fmt.Errorf("the epoch %q is no number: %w", s.Keys[keyEpoch].Value, fault.ErrInvalid),
			"find out who wrote it and put the right number back")
	case s.Epoch >= in.Epoch:
		return fmt.Errorf("the entry holds epoch %d by %q, and %d is not above it: %w", s.Epoch, s.SwitchedBy, in.Epoch, fault.ErrStale)
	case in.Expect != AnyLower && s.Epoch != in.Expect:
		return fmt.Errorf("the entry holds epoch %d by %q, not %d: %w", s.Epoch, s.SwitchedBy, in.Expect, fault.ErrStale)
	}
	return nil
}

// differing names the shared keys that are not what the run wrote.
func (in SwitchInput) differing(s State) []string {
	var names []string
	for key, value := range in.Values.byKey() {
		if s.Keys[key].Value != value {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	return names
}

// operations lists the writes, each checked against the index that was read.
func (in SwitchInput) operations(s State) ([]op, error) {
	shared := in.Values.byKey()
	shared[keyEpoch] = strconv.FormatInt(in.Epoch, 10)
	shared[keySwitchedBy] = in.By
	var ops []op
	for _, key := range slices.Sorted(maps.Keys(shared)) {
		ops = append(ops, write(s, key, shared[key]))
	}
	pinned := s.Pinned(in.Values, in.Overrides)
	if len(pinned) > 0 {
		return nil, fault.Hint(fmt.Errorf("%s would keep pointing where they do: %w", strings.Join(pinned, ", "), fault.ErrConflict),
			"delete these keys, or set them to what they should be on %s, then retry", in.Values.Cluster)
	}
	for _, client := range slices.Sorted(maps.Keys(s.Clients)) {
		for _, key := range slices.Sorted(maps.Keys(s.Clients[client].Overrides)) {
			value, told := in.Overrides[client][key]
			own := s.Clients[client].Overrides[key]
			if !told {
				value = shared[key]
			}
			if !told && key != keyEpoch && key != keySwitchedBy && own != s.Keys[key].Value {
				continue // a value of its own for a key that does not change
			}
			if key == keyEpoch && parseEpoch(own) >= in.Epoch {
				return nil, fmt.Errorf("clients/%s/epoch holds %s, and %d is not above it: %w", client, own, in.Epoch, fault.ErrStale)
			}
			ops = append(ops, write(s, "clients/"+client+"/"+key, value))
		}
	}
	if len(ops) > MaxOperations {
		return nil, fault.Hint(fmt.Errorf("the switch needs %d operations in one transaction, Consul takes %d: %w",
			len(ops), MaxOperations, fault.ErrInvalid), "remove overrides under clients/<client>/ that repeat the shared values")
	}
	return ops, nil
}

// Pinned names the overrides that a switch to these values cannot follow: they have a value of their own for a key
// whose shared value changes, and told does not say what they become. Preflight shows them before anybody stops.
func (s State) Pinned(to Values, told map[string]map[string]string) []string {
	var pinned []string
	for key, value := range to.byKey() {
		was := s.Keys[key].Value
		for client, c := range s.Clients {
			own, overridden := c.Overrides[key]
			_, known := told[client][key]
			if overridden && !known && was != value && own != was && own != value {
				pinned = append(pinned, "clients/"+client+"/"+key)
			}
		}
	}
	slices.Sort(pinned)
	return pinned
}

// op is one operation with the key as State knows it.
type op struct {
	key string
	kv  api.KVTxnOp
}

// write sets a key if it is still as it was read; index 0 means that it must not exist.
func write(s State, key, value string) op {
	return op{key, api.KVTxnOp{Verb: api.KVCAS, Value: []byte(value), Index: s.Keys[key].ModifyIndex}}
}

// unchanged checks that a key is still as it was read, or still absent.
func unchanged(s State, key string) op {
	if k, ok := s.Keys[key]; ok {
		return op{key, api.KVTxnOp{Verb: api.KVCheckIndex, Index: k.ModifyIndex}}
	}
	return op{key, api.KVTxnOp{Verb: api.KVCheckNotExists}}
}

// commit runs one transaction. A roll-back is a *conflict that names the keys.
func (d *Discovery) commit(ctx context.Context, doing string, ops []op) error {
	txn := make(api.TxnOps, len(ops))
	for i, o := range ops {
		o.kv.Key = d.key(o.key)
		txn[i] = &api.TxnOp{KV: &o.kv}
	}
	ok, resp, _, err := d.client.Txn().Txn(txn, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return translate(doing, writes, err)
	}
	if ok {
		return nil
	}
	lost := &conflict{}
	for _, e := range resp.Errors {
		if strings.Contains(e.What, "Permission denied") {
			return translate(doing, writes, api.StatusError{Code: 403, Body: e.What})
		}
		if e.OpIndex >= 0 && e.OpIndex < len(ops) && !lost.names(ops[e.OpIndex].key) {
			lost.keys = append(lost.keys, ops[e.OpIndex].key)
		}
		lost.whats = append(lost.whats, e.What)
	}
	return fmt.Errorf("%s: %w", doing, lost)
}
