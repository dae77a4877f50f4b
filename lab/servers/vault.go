package servers

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/builtin/credential/approle"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"

	"switchback/internal/secret"
)

// VaultConfig says where the lab's Vault listens and keeps its state.
type VaultConfig struct {
	Address string `json:"address"` // host:port
	Dir     string `json:"dir"`     // state and keys; made when missing
	// PEM files; with them the API is served over TLS.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// VaultKeys are made at the first start and stored in <dir>/keys.json, mode 0600. A real Vault's unseal key would never
// lie beside its data; the lab's does, so that it comes back by itself after kill -9.
type VaultKeys struct {
	Unseal    secret.Value
	RootToken secret.Value
}

// vaultKeysFile is how they are stored.
type vaultKeysFile struct {
	Unseal    string `json:"unseal"` // hex
	RootToken string `json:"rootToken"`
}

// ReadVaultKeys reads the keys of a Vault that was started in dir.
func ReadVaultKeys(dir string) (VaultKeys, error) {
	data, err := os.ReadFile(filepath.Join(dir, "keys.json")) //nolint:gosec // the lab's own folder
	if err != nil {
		return VaultKeys{}, fmt.Errorf("read the keys of Vault: %w", err)
	}
	var f vaultKeysFile
	if err := json.Unmarshal(data, &f); err != nil {
		return VaultKeys{}, fmt.Errorf("read the keys of Vault in %s: %w", dir, err)
	}
	return VaultKeys{Unseal: secret.New(f.Unseal), RootToken: secret.New(f.RootToken)}, nil
}

// ServeVault runs Vault's core in this process, on a folder: initialized at the first start, unsealed at each, until ctx
// ends. KV and AppRole are the only backends.
func ServeVault(ctx context.Context, cfg VaultConfig) error {
	core, err := vaultCore(cfg)
	if err != nil {
		return fmt.Errorf("start Vault: %w", err)
	}
	defer func() { _ = core.Shutdown() }()
	if err := openVault(ctx, core, cfg.Dir); err != nil {
		return fmt.Errorf("start Vault: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return fmt.Errorf("start Vault: %w", err)
	}
	server := &http.Server{
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() {
		if cfg.CertFile != "" {
			served <- server.ServeTLS(listener, cfg.CertFile, cfg.KeyFile)
			return
		}
		served <- server.Serve(listener)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve Vault: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = server.Shutdown(closing) // connections that are still busy are cut when the process ends
	return nil
}

func vaultCore(cfg VaultConfig) (*vault.Core, error) {
	data := filepath.Join(cfg.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Warn, Output: os.Stderr})
	storage, err := file.NewFileBackend(map[string]string{"path": data}, log)
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        "file",
		DisableMlock:       true,
		Logger:             log,
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory},
		BuiltinRegistry:    builtins{},
		DefaultLeaseTTL:    time.Hour,
		MaxLeaseTTL:        24 * time.Hour,
		ClusterName:        "lab",
	})
}

// openVault initializes a new Vault and unseals it. The keys are on disk before the first use, so that a crash in between
// leaves nothing that cannot be opened again: a folder with data but without keys was never used and starts over.
func openVault(ctx context.Context, core *vault.Core, dir string) error {
	initialized, err := core.Initialized(ctx)
	if err != nil {
		return err
	}
	keys, err := ReadVaultKeys(dir)
	switch {
	case initialized && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s has data but no keys.json: remove the folder to start over", dir)
	case initialized && err != nil:
		return err
	case !initialized:
		if keys, err = initializeVault(ctx, core, dir); err != nil {
			return err
		}
	}
	key, err := hex.DecodeString(keys.Unseal.Reveal())
	if err != nil {
		return fmt.Errorf("unseal key in %s is no hexadecimal number", dir)
	}
	unsealed, err := core.Unseal(key)
	if err != nil {
		return fmt.Errorf("unseal: %w", err)
	}
	if !unsealed {
		return fmt.Errorf("unseal: the key in %s does not open it", dir)
	}
	return nil
}

func initializeVault(ctx context.Context, core *vault.Core, dir string) (VaultKeys, error) {
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: nil})
	if err != nil {
		return VaultKeys{}, fmt.Errorf("initialize: %w", err)
	}
	keys := VaultKeys{Unseal: secret.New(hex.EncodeToString(made.SecretShares[0])), RootToken: secret.New(made.RootToken)}
	return keys, keys.Write(dir)
}

// Write stores the keys where ReadVaultKeys finds them.
func (k VaultKeys) Write(dir string) error {
	return WriteJSON(filepath.Join(dir, "keys.json"), vaultKeysFile{Unseal: k.Unseal.Reveal(), RootToken: k.RootToken.Reveal()})
}

// InitializeVault initializes a Vault that somebody else runs and that is new, and keeps its keys in dir. They are lost if
// this process dies between the two: then its data has to be removed.
func InitializeVault(ctx context.Context, address string, over *http.Client, dir string) (VaultKeys, error) {
	client, err := vaultAt(address, over)
	if err != nil {
		return VaultKeys{}, err
	}
	done, err := client.Sys().InitStatusWithContext(ctx)
	if err != nil {
		return VaultKeys{}, fmt.Errorf("ask Vault at %s whether it is new: %w", address, err)
	}
	if done {
		return VaultKeys{}, fmt.Errorf("the Vault at %s was initialized by somebody else: there is no keys.json in %s; remove its data to start over", address, dir)
	}
	made, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return VaultKeys{}, fmt.Errorf("initialize Vault at %s: %w", address, err)
	}
	keys := VaultKeys{Unseal: secret.New(made.Keys[0]), RootToken: secret.New(made.RootToken)}
	return keys, keys.Write(dir)
}

// UnsealVault unseals a Vault that somebody else runs, and does nothing when it is open.
func UnsealVault(ctx context.Context, address string, over *http.Client, keys VaultKeys) error {
	client, err := vaultAt(address, over)
	if err != nil {
		return err
	}
	status, err := client.Sys().SealStatusWithContext(ctx)
	if err == nil && status.Sealed {
		status, err = client.Sys().UnsealWithContext(ctx, keys.Unseal.Reveal())
	}
	if err != nil {
		return fmt.Errorf("unseal Vault at %s: %w", address, err)
	}
	if status.Sealed {
		return fmt.Errorf("unseal Vault at %s: the key does not open it", address)
	}
	return nil
}

func vaultAt(address string, over *http.Client) (*api.Client, error) {
	return api.NewClient(&api.Config{Address: address, HttpClient: over, Timeout: 10 * time.Second})
}

// builtins is Vault's list of what may be mounted: these two, and no plugin.
type builtins struct{}

func (builtins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory := map[string]logical.Factory{"secret/kv": kv.Factory, "auth/approle": approle.Factory}[kind.String()+"/"+name]
	return func() (any, error) { return factory, nil }, factory != nil
}

func (b builtins) Contains(name string, kind consts.PluginType) bool {
	_, ok := b.Get(name, kind)
	return ok
}

func (builtins) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeSecrets:
		return []string{"kv"}
	case consts.PluginTypeCredential:
		return []string{"approle"}
	}
	return nil
}

func (builtins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
