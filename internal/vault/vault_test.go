package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"switchback/internal/fault"
	"switchback/internal/vault/vaulttest"
	"switchback/runbooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ref(path string) runbooks.SecretRef { return runbooks.SecretRef{Vault: path} }

func open(t *testing.T) (*vaulttest.Server, *Vault) {
	t.Helper()
	s := vaulttest.New(t)
	role, id := vaulttest.Files(t)
	v, err := Open(Config{Address: s.URL, RoleIDFile: role, SecretIDFile: id})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return s, v
}

func TestSecretsAreReadByReference(t *testing.T) {
	s, v := open(t)
	s.Put("kafka/east/checkout", "username", "checkout", "password", "canary-password")
	s.Put("kafka/consul", "token", "canary-consul")
	s.Put("kafka/half", "username", "checkout")
	s.Put("kafka/gone", "username", "x", "password", "canary-password")
	s.Delete("kafka/gone")
	login, err := v.Login(t.Context(), ref("kafka/east/checkout"))
	require.NoError(t, err)
	require.Equal(t, "checkout", login.Username)
	require.Equal(t, "canary-password", login.Password.Reveal())
	token, err := v.Token(t.Context(), ref("kafka/consul"))
	require.NoError(t, err)
	require.Equal(t, "canary-consul", token.Reveal())
	require.Equal(t, 1, s.Logins(), "one login serves them all")

	s.Deny("kafka/data/denied")
	for path, want := range map[string]error{
		"kafka/half": fault.ErrInvalid, "kafka/none": fault.ErrNotFound, "kafka/gone": fault.ErrNotFound,
		"kafka/denied": fault.ErrDenied, "kafka": fault.ErrInvalid, "kafka/../sys": fault.ErrInvalid, "kafka/{client}": fault.ErrInvalid,
	} {
		_, err := v.Login(t.Context(), ref(path))
		require.ErrorIs(t, err, want, path)
		require.NotContains(t, err.Error(), "canary", path)
	}
	_, err = v.Token(t.Context(), ref("kafka/half"))
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.Equal(t, 1, s.Logins(), "a refusal by policy is not answered with a login")
}

func TestALostTokenIsReplaced(t *testing.T) {
	s, v := open(t)
	s.Put("kafka/a", "token", "x")
	_, err := v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
	s.RevokeTokens()
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
	require.Equal(t, 2, s.Logins())
	s.SetDown(true)
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.ErrorIs(t, err, fault.ErrUnreachable)
	s.SetDown(false)
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
}

func TestTheTokenIsRenewed(t *testing.T) {
	s, v := open(t)
	s.SetTTL(2 * time.Second)
	s.Put("kafka/a", "token", "x")
	_, err := v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Renewals() > 1 }, 10*time.Second, 10*time.Millisecond)
}

func TestATokenFileIsReadAgain(t *testing.T) {
	s := vaulttest.New(t)
	s.Put("kafka/a", "token", "x")
	s.AddToken("first")
	file := t.TempDir() + "/token"
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	v, err := Open(Config{Address: s.URL, TokenFile: file})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
	s.RevokeTokens()
	s.AddToken("second")
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.ErrorIs(t, err, fault.ErrDenied)
	require.NoError(t, os.WriteFile(file, []byte("second\n"), 0o600))
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.NoError(t, err)
}

func TestCopyIsCheckedAndIdempotent(t *testing.T) {
	s, v := open(t)
	s.Put("kafka/west/a", "username", "a", "password", "new")
	s.Put("kafka/active/a", "username", "a", "password", "old")
	changed, err := v.Copy(t.Context(), "kafka/west/a", "kafka/active/a")
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = v.CopySecret(t.Context(), ref("kafka/west/a"), ref("kafka/active/a"))
	require.NoError(t, err)
	require.False(t, changed)
	_, version := s.Get("kafka/active/a")
	require.Equal(t, 2, version)

	s.LoseNextAnswer()
	changed, err = v.Copy(t.Context(), "kafka/west/a", "kafka/active/b") // one that is not there yet
	require.NoError(t, err)
	require.True(t, changed)
	s.Delete("kafka/active/b")
	changed, err = v.Copy(t.Context(), "kafka/west/a", "kafka/active/b")
	require.NoError(t, err)
	require.True(t, changed)
	_, err = v.Copy(t.Context(), "kafka/none", "kafka/active/b")
	require.ErrorIs(t, err, fault.ErrNotFound)
}

func TestFaults(t *testing.T) {
	answer := func(code int, text string) error {
		return fmt.Errorf("reading: %w", &api.ResponseError{StatusCode: code, Errors: []string{text}})
	}
	for name, c := range map[string]struct {
		err         error
		read, write error
	}{
		"dial":          {&net.OpError{Op: "dial", Err: errors.New("refused")}, fault.ErrUnreachable, fault.ErrUnreachable},
		"reset":         {&net.OpError{Op: "read", Err: errors.New("reset")}, fault.ErrUnreachable, fault.ErrUnclear},
		"time-out":      {context.DeadlineExceeded, fault.ErrUnreachable, fault.ErrUnclear},
		"cancelled":     {context.Canceled, context.Canceled, context.Canceled},
		"403":           {answer(403, "permission denied"), fault.ErrDenied, fault.ErrDenied},
		"404":           {answer(404, ""), fault.ErrNotFound, fault.ErrNotFound},
		"absent":        {api.ErrSecretNotFound, fault.ErrNotFound, fault.ErrNotFound},
		"version":       {answer(400, "check-and-set parameter did not match the current version"), fault.ErrConflict, fault.ErrConflict},
		"wrong role":    {answer(400, "invalid role or secret ID"), fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		"other 400":     {answer(400, "?"), fault.ErrInvalid, fault.ErrInvalid},
		"sealed":        {answer(503, "Vault is sealed"), fault.ErrUnreachable, fault.ErrUnreachable},
		"too many":      {answer(429, ""), fault.ErrUnreachable, fault.ErrUnreachable},
		"server errors": {answer(500, ""), fault.ErrUnreachable, fault.ErrUnclear},
	} {
		require.ErrorIs(t, translate("read", reads, c.err), c.read, name)
		require.ErrorIs(t, translate("write", writes, c.err), c.write, name)
	}
	for _, cfg := range []Config{{}, {Address: "http://x"}, {Address: "http://x", RoleIDFile: "a"}, {Address: "http://x", RoleIDFile: "a", SecretIDFile: "b", TokenFile: "c"}} {
		_, err := Open(cfg)
		require.ErrorIs(t, err, fault.ErrInvalid)
	}
	v, err := Open(Config{Address: "http://127.0.0.1:1", RoleIDFile: "/none", SecretIDFile: "/none"})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Token(t.Context(), ref("kafka/a"))
	require.ErrorIs(t, err, fault.ErrInvalid)
}

// A Vault that takes requests and answers none holds up each of those that ask for as long as that one wants to wait.
func TestNobodyWaitsForTheLoginOfAnotherLongerThanItWants(t *testing.T) {
	deaf, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = deaf.Close() })
	role, id := vaulttest.Files(t)
	v, err := Open(Config{Address: "http://" + deaf.Addr().String(), RoleIDFile: role, SecretIDFile: id})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	long, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- v.Check(long) }()
	require.Eventually(t, func() bool { return len(v.turn) == 1 }, 10*time.Second, time.Millisecond)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, v.Check(short), fault.ErrUnreachable)
	require.Empty(t, ended, "the first one still waits")
	stop()
	require.Error(t, <-ended)
}
