package dial

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
)

func TestAnAuthorityOfItsOwnIsTrustedAndNoOther(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	get := func(f Files) error {
		config, err := TLS(f)
		require.NoError(t, err)
		web := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		defer web.CloseIdleConnections()
		answer, err := web.Get(server.URL)
		if err == nil {
			err = answer.Body.Close()
		}
		return err
	}
	require.NoError(t, get(Files{CA: ca}))
	require.NoError(t, get(Files{CA: ca, ServerName: "example.com"}))
	require.ErrorContains(t, get(Files{CA: ca, ServerName: "elsewhere"}), "certificate is valid for")
	require.Error(t, get(Files{}), "the system does not know this authority")
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "wrong.pem")
	require.NoError(t, os.WriteFile(wrong, []byte("canary-secret"), 0o600))
	for says, f := range map[string]Files{
		"/nonexistent":                     {CA: "/nonexistent"},
		wrong + " holds no PEM":            {CA: wrong},
		"needs both of its files":          {Cert: wrong},
		"read the client certificate: inv": {Cert: wrong, Key: wrong},
	} {
		_, err := TLS(f)
		require.ErrorIs(t, err, fault.ErrInvalid)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "canary")
	}
}
