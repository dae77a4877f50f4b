package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// intent of a request: after a lost answer a read has changed nothing, a write may have been done.
type intent bool

const (
	reading intent = false
	writing intent = true
)

// sentinels of the codes that brokers answer with. What is not here stays unknown, and unknown is retried.
var sentinels = map[*kerr.Error]error{
	kerr.UnknownTopicOrPartition: fault.ErrNotFound,
	kerr.UnknownTopicID:          fault.ErrNotFound,
	kerr.GroupIDNotFound:         fault.ErrNotFound,
	kerr.TransactionalIDNotFound: fault.ErrNotFound,

	kerr.TopicAuthorizationFailed:           fault.ErrDenied,
	kerr.GroupAuthorizationFailed:           fault.ErrDenied,
	kerr.ClusterAuthorizationFailed:         fault.ErrDenied,
	kerr.TransactionalIDAuthorizationFailed: fault.ErrDenied,

	kerr.SaslAuthenticationFailed: fault.ErrUnauthenticated,
	kerr.UnsupportedSaslMechanism: fault.ErrUnauthenticated,
	kerr.IllegalSaslState:         fault.ErrUnauthenticated,

	kerr.TopicAlreadyExists:   fault.ErrConflict,
	kerr.NonEmptyGroup:        fault.ErrConflict,
	kerr.UnknownMemberID:      fault.ErrConflict,
	kerr.IllegalGeneration:    fault.ErrConflict,
	kerr.RebalanceInProgress:  fault.ErrConflict,
	kerr.FencedInstanceID:     fault.ErrConflict,
	kerr.FencedMemberEpoch:    fault.ErrConflict,
	kerr.StaleMemberEpoch:     fault.ErrConflict,
	kerr.ProducerFenced:       fault.ErrConflict,
	kerr.InvalidProducerEpoch: fault.ErrConflict,
	kerr.OffsetOutOfRange:     fault.ErrConflict,

	kerr.LeaderNotAvailable:        fault.ErrNotReady,
	kerr.NotLeaderForPartition:     fault.ErrNotReady,
	kerr.FencedLeaderEpoch:         fault.ErrNotReady,
	kerr.UnknownLeaderEpoch:        fault.ErrNotReady,
	kerr.OffsetNotAvailable:        fault.ErrNotReady,
	kerr.ReplicaNotAvailable:       fault.ErrNotReady,
	kerr.BrokerNotAvailable:        fault.ErrNotReady,
	kerr.CoordinatorLoadInProgress: fault.ErrNotReady,
	kerr.CoordinatorNotAvailable:   fault.ErrNotReady,
	kerr.NotCoordinator:            fault.ErrNotReady,
	kerr.NotController:             fault.ErrNotReady,
	kerr.UnstableOffsetCommit:      fault.ErrNotReady,
	kerr.ConcurrentTransactions:    fault.ErrNotReady,
	kerr.NotEnoughReplicas:         fault.ErrNotReady,
	kerr.ThrottlingQuotaExceeded:   fault.ErrNotReady,
	kerr.KafkaStorageError:         fault.ErrNotReady,

	kerr.NotEnoughReplicasAfterAppend: fault.ErrUnclear,

	kerr.InvalidTopicException:     fault.ErrInvalid,
	kerr.InvalidPartitions:         fault.ErrInvalid,
	kerr.InvalidReplicationFactor:  fault.ErrInvalid,
	kerr.InvalidConfig:             fault.ErrInvalid,
	kerr.InvalidRequest:            fault.ErrInvalid,
	kerr.InvalidGroupID:            fault.ErrInvalid,
	kerr.InvalidTransactionTimeout: fault.ErrInvalid,
	kerr.PolicyViolation:           fault.ErrInvalid,
	kerr.UnsupportedVersion:        fault.ErrInvalid,
	kerr.SecurityDisabled:          fault.ErrInvalid,
	kerr.MessageTooLarge:           fault.ErrInvalid,
	kerr.RecordListTooLarge:        fault.ErrInvalid,
}

// translate puts the sentinel of package fault before an error, whose own text stays.
func translate(err error, in intent) error {
	if err == nil || known(err) {
		return err
	}
	lost := fault.ErrUnreachable
	if in == writing {
		lost = fault.ErrUnclear
	}
	if code, ok := errors.AsType[*kerr.Error](err); ok {
		if s, ok := sentinels[code]; ok {
			return fmt.Errorf("%w: %w", s, err)
		}
		if code == kerr.RequestTimedOut || code == kerr.NetworkException {
			return fmt.Errorf("%w: %w", lost, err)
		}
		return err
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnreachable, err), "check security.ca and the names in the broker's certificate")
	}
	if _, ok := errors.AsType[*kgo.ErrFirstReadEOF](err); ok {
		return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnreachable, err), "check security.protocol: TLS or SASL on one side only ends like this")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnreachable, err), "check that the brokers run and that this worker may connect to them")
	}
	_, network := errors.AsType[net.Error](err)
	switch {
	case network, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return fmt.Errorf("%w: %w", lost, err)
	}
	return err
}

func known(err error) bool {
	for _, s := range []error{fault.ErrNotFound, fault.ErrConflict, fault.ErrDenied, fault.ErrUnauthenticated, fault.ErrInvalid,
		fault.ErrUnreachable, fault.ErrUnclear, fault.ErrNotReady, fault.ErrStale} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// fail translates the error of a request to this cluster and says what was being done. A nil err stays nil.
func (c *Cluster) fail(doing string, err error, in intent) error {
	if err == nil {
		return nil
	}
	// A broker that hangs up on a wrong password leaves an EOF, or a context that ended while it was tried again. No
	// request of ours was sent over a connection without a login, so nothing is unclear.
	_, coded := errors.AsType[*kerr.Error](err)
	if c.logins.refused.Load() && !coded {
		err = fmt.Errorf("%w: the broker hung up during the login: %w", fault.ErrUnauthenticated, err)
	}
	err = translate(err, in)
	c.logins.note(err)
	if errors.Is(err, fault.ErrUnauthenticated) && fault.HintOf(err) == "" {
		err = fault.Hint(err, "check the user name, password and mechanism that Vault and the runbook hold for cluster %s", c.name)
	}
	return fmt.Errorf("%s: %s: %w", c.name, doing, err)
}

// partial gathers the failures of an operation on many things.
type partial struct {
	op     string
	in     intent
	failed []replication.Outcome
	first  error
}

// add records that one thing failed; a nil error adds nothing.
func (p *partial) add(name string, err error) {
	if err == nil {
		return
	}
	err = translate(err, p.in)
	status := replication.Failed
	if errors.Is(err, fault.ErrUnclear) || errors.Is(err, fault.ErrUnreachable) || errors.Is(err, fault.ErrNotReady) {
		status = replication.Unclear
	}
	if p.first == nil {
		p.first = err
	}
	p.failed = append(p.failed, replication.Outcome{Name: name, Status: status, Reason: err.Error()})
}

func (p *partial) err(c *Cluster) error {
	if len(p.failed) == 0 {
		return nil
	}
	c.logins.note(p.first)
	return &replication.Partial{Op: c.name + ": " + p.op, Failed: p.failed, Err: p.first}
}

// coded is the error of a response's code and message, nil for code 0.
func coded(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err == nil || message == nil || *message == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, *message)
}
