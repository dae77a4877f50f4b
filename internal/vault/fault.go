package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"switchback/internal/fault"
)

// effect says whether a request could have changed something: without an answer a write is unclear, a read is not.
type effect bool

const (
	reads  effect = false
	writes effect = true
)

// translate puts an error of the library into the words of package fault. What is in them already passes.
func translate(doing string, e effect, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, fault.ErrInvalid) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	hint, sentinel := judge(e, err)
	err = fmt.Errorf("%s: %w: %w", doing, sentinel, err)
	if hint != "" {
		return fault.Hint(err, "%s", hint)
	}
	return err
}

func judge(e effect, err error) (hint string, kind error) {
	var answer *api.ResponseError
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.Is(err, api.ErrSecretNotFound):
		return "", fault.ErrNotFound
	case errors.As(err, &answer):
		return judgeAnswer(e, answer)
	case errors.As(err, &certificate):
		return "check the CA file (vault.tls.ca of the worker, --vault-ca of supervisor) and the host name of the Vault address", fault.ErrUnreachable
	case errors.As(err, &op) && op.Op == "dial":
		return "", fault.ErrUnreachable
	case e == writes:
		return "", fault.ErrUnclear
	}
	return "", fault.ErrUnreachable
}

func judgeAnswer(e effect, a *api.ResponseError) (hint string, kind error) {
	says := strings.Join(a.Errors, "; ")
	switch {
	case a.StatusCode == http.StatusBadRequest && strings.Contains(says, "check-and-set"):
		return "somebody wrote the secret meanwhile", fault.ErrConflict
	case a.StatusCode == http.StatusBadRequest && strings.Contains(says, "invalid role or secret ID"),
		a.StatusCode == http.StatusBadRequest && strings.Contains(says, "invalid secret id"):
		return "check the files of the role id and the secret id", fault.ErrUnauthenticated
	case a.StatusCode == http.StatusForbidden:
		return "the policy of this role, or the token, does not allow it", fault.ErrDenied
	case a.StatusCode == http.StatusNotFound:
		return "", fault.ErrNotFound
	case a.StatusCode == http.StatusServiceUnavailable:
		return "Vault is sealed or has no leader", fault.ErrUnreachable // and did nothing
	case a.StatusCode == http.StatusTooManyRequests:
		return "", fault.ErrUnreachable
	case a.StatusCode < 500:
		return "", fault.ErrInvalid
	case e == writes:
		return "", fault.ErrUnclear
	}
	return "", fault.ErrUnreachable
}
