// Package vault reads secrets by reference from KV v2, with a token that it keeps alive by itself.
//
// Start reading at Open; Login, Token and Copy are all that is done with secrets. They are read when they are needed and
// kept nowhere. Errors are those of package fault and name paths, never values.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/runbooks"
)

// Config says where Vault is and who we are there: an AppRole (both files), or a token that somebody else keeps in a
// file, such as a Vault Agent. The files are read at each login, so that they may be changed.
type Config struct {
	Address      string
	Namespace    string
	RoleIDFile   string
	SecretIDFile string
	AppRoleMount string // approle by default
	TokenFile    string
	TLS          TLS
	Log          *slog.Logger // may be nil
}

// TLS holds names of PEM files. Empty means the system's roots and no client certificate.
type TLS struct {
	CAFile   string
	CertFile string
	KeyFile  string
}

// Vault is one server. It logs in when it is first used, renews its token, and logs in again when the token is lost.
type Vault struct {
	cfg    Config
	client *api.Client
	web    interface{ CloseIdleConnections() }

	turn chan struct{} // held by who logs in: one at a time, and the others wait no longer than they want to

	mu      sync.Mutex
	current *session
	closed  bool
}

// session is one token and the watcher that renews it; over is closed when the token is at its end.
type session struct {
	watcher *api.LifetimeWatcher
	over    chan struct{}
	ended   chan struct{} // the watcher's goroutines are gone
}

// Open prepares and sends nothing. fault.ErrInvalid when the configuration cannot work.
func Open(cfg Config) (*Vault, error) {
	if cfg.Address == "" {
		return nil, fmt.Errorf("open Vault: the address is needed: %w", fault.ErrInvalid)
	}
	role := cfg.RoleIDFile != "" && cfg.SecretIDFile != ""
	if role == (cfg.TokenFile != "") {
		return nil, fmt.Errorf("open Vault: give the files of a role id and a secret id, or that of a token: %w", fault.ErrInvalid)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := api.DefaultConfig()
	if c.Error != nil {
		return nil, fmt.Errorf("open Vault: %w: %w", fault.ErrInvalid, c.Error)
	}
	c.Address = cfg.Address
	c.MaxRetries = 0 // who asks decides whether to ask again
	c.Timeout = 15 * time.Second
	if cfg.TLS != (TLS{}) {
		t := &api.TLSConfig{CACert: cfg.TLS.CAFile, ClientCert: cfg.TLS.CertFile, ClientKey: cfg.TLS.KeyFile}
		if err := c.ConfigureTLS(t); err != nil {
			return nil, fmt.Errorf("open Vault at %s: %w: %w", cfg.Address, fault.ErrInvalid, err)
		}
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("open Vault at %s: %w: %w", cfg.Address, fault.ErrInvalid, err)
	}
	client.ClearToken() // none from the environment: who we are is in the configuration
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	return &Vault{cfg: cfg, client: client, web: c.HttpClient, turn: make(chan struct{}, 1)}, nil
}

// Close stops renewing. The token ends by itself.
func (v *Vault) Close() {
	v.mu.Lock()
	v.closed = true
	last := v.current
	v.drop()
	v.mu.Unlock()
	if last != nil {
		<-last.ended
	}
	v.web.CloseIdleConnections()
}

// Check logs in unless a token is there already. fault.ErrUnauthenticated when Vault refuses who we say we are.
func (v *Vault) Check(ctx context.Context) error {
	_, err := v.session(ctx)
	return err
}

// Login reads username and password. fault.ErrNotFound when there is no such secret, fault.ErrInvalid when it lacks one
// of the two.
func (v *Vault) Login(ctx context.Context, ref runbooks.SecretRef) (secret.Login, error) {
	data, _, err := v.read(ctx, ref.Vault)
	if err != nil {
		return secret.Login{}, err
	}
	username, uok := data["username"].(string)
	password, pok := data["password"].(string)
	if !uok || !pok || username == "" {
		return secret.Login{}, fault.Hint(fmt.Errorf("secret %s: it needs the keys username and password: %w", ref.Vault, fault.ErrInvalid),
			"write both keys there")
	}
	return secret.Login{Username: username, Password: secret.New(password)}, nil
}

// Token reads the key token. Errors as of Login.
func (v *Vault) Token(ctx context.Context, ref runbooks.SecretRef) (secret.Value, error) {
	data, _, err := v.read(ctx, ref.Vault)
	if err != nil {
		return secret.Value{}, err
	}
	token, ok := data["token"].(string)
	if !ok || token == "" {
		return secret.Value{}, fault.Hint(fmt.Errorf("secret %s: it needs the key token: %w", ref.Vault, fault.ErrInvalid), "write it there")
	}
	return secret.New(token), nil
}

// Copy writes the secret at from over the one at to, checked against its version; false when they are equal already.
// fault.ErrConflict when somebody wrote there meanwhile.
func (v *Vault) Copy(ctx context.Context, from, to string) (changed bool, err error) {
	return v.CopyTo(ctx, from, v, to)
}

// CopyTo is Copy into another Vault.
func (v *Vault) CopyTo(ctx context.Context, from string, there *Vault, to string) (changed bool, err error) {
	source, _, err := v.read(ctx, from)
	if err != nil {
		return false, err
	}
	target, version, err := there.read(ctx, to)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return false, err
	}
	if equal(source, target) {
		return false, nil
	}
	err = there.do(ctx, "write secret "+to, func() error {
		mount, path, err := split(to)
		if err != nil {
			return err
		}
		_, err = there.client.KVv2(mount).Put(ctx, path, source, api.WithCheckAndSet(version))
		return translate("write secret "+to+" in Vault at "+there.cfg.Address, writes, err)
	})
	if errors.Is(err, fault.ErrUnclear) { // the answer was lost: read again and decide
		if now, _, readErr := there.read(ctx, to); readErr == nil && equal(source, now) {
			return true, nil
		}
	}
	return err == nil, err
}

// CopySecret is Copy with references.
func (v *Vault) CopySecret(ctx context.Context, from, to runbooks.SecretRef) (bool, error) {
	return v.Copy(ctx, from.Vault, to.Vault)
}

// read returns a secret and its version. With fault.ErrNotFound the version is what a write must be checked against: 0
// where there never was one.
func (v *Vault) read(ctx context.Context, ref string) (data map[string]any, version int, err error) {
	mount, path, err := split(ref)
	if err != nil {
		return nil, 0, err
	}
	doing := "read secret " + ref + " in Vault at " + v.cfg.Address
	err = v.do(ctx, "read secret "+ref, func() error {
		kv, err := v.client.KVv2(mount).Get(ctx, path)
		if err != nil {
			return translate(doing, reads, err)
		}
		if kv.VersionMetadata != nil {
			version = kv.VersionMetadata.Version
		}
		if data = kv.Data; data == nil {
			return fmt.Errorf("%s: its newest version is deleted: %w", doing, fault.ErrNotFound)
		}
		return nil
	})
	return data, version, err
}

// do runs one request with a token, and once more with a new one if the token turns out to be lost.
func (v *Vault) do(ctx context.Context, what string, request func() error) error {
	s, err := v.session(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = request()
	if !errors.Is(err, fault.ErrDenied) && !errors.Is(err, fault.ErrUnauthenticated) {
		return err
	}
	if _, lookup := v.client.Auth().Token().LookupSelfWithContext(ctx); lookup == nil {
		return err // the token lives: the policy says no
	}
	v.mu.Lock()
	if v.current == s {
		v.drop()
	}
	v.mu.Unlock()
	if _, err := v.session(ctx); err != nil {
		return err
	}
	return request()
}

// session returns the token that is in use, after a login where there is none.
func (v *Vault) session(ctx context.Context) (*session, error) {
	if s, err := v.have(); s != nil || err != nil {
		return s, err
	}
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("log in to Vault at %s: %w: %w", v.cfg.Address, fault.ErrUnreachable, ctx.Err())
	}
	if s, err := v.have(); s != nil || err != nil { // by who had the turn before
		return s, err
	}
	auth, err := v.login(ctx)
	if err != nil {
		return nil, translate("log in to Vault at "+v.cfg.Address, reads, err)
	}
	s, err := v.keep(auth)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.current = s
	if v.closed {
		v.drop()
		return nil, v.isClosed()
	}
	return s, nil
}

// have returns the token that is in use, or nil where there is none.
func (v *Vault) have() (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return nil, v.isClosed()
	case v.current == nil:
		return nil, nil
	}
	select {
	case <-v.current.over:
		v.drop()
		return nil, nil
	default:
		return v.current, nil
	}
}

func (v *Vault) isClosed() error {
	return fmt.Errorf("Vault at %s is closed: %w", v.cfg.Address, fault.ErrInvalid)
}

func (v *Vault) login(ctx context.Context) (*api.Secret, error) {
	if v.cfg.TokenFile != "" {
		token, err := readFile(v.cfg.TokenFile)
		if err != nil {
			return nil, err
		}
		v.client.SetToken(token)
		return v.client.Auth().Token().LookupSelfWithContext(ctx)
	}
	role, err := readFile(v.cfg.RoleIDFile)
	if err != nil {
		return nil, err
	}
	mount := v.cfg.AppRoleMount
	if mount == "" {
		mount = "approle"
	}
	method, err := approle.NewAppRoleAuth(role, &approle.SecretID{FromFile: v.cfg.SecretIDFile}, approle.WithMountPath(mount))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrInvalid, err)
	}
	v.client.ClearToken() // a token that is lost would have the login refused
	return v.client.Auth().Login(ctx, method)
}

// keep starts the library's watcher, which renews the token until it cannot.
func (v *Vault) keep(auth *api.Secret) (*session, error) {
	s := &session{over: make(chan struct{}), ended: make(chan struct{})}
	ttl, err := auth.TokenTTL()
	if err != nil {
		return nil, fmt.Errorf("log in to Vault: the token's lifetime cannot be read: %w", fault.ErrInvalid)
	}
	if ttl == 0 { // it never ends
		close(s.ended)
		return s, nil
	}
	if auth.Auth == nil { // a token of somebody else's: renewed here as well, which does no harm
		renewable, _ := auth.TokenIsRenewable()
		auth = &api.Secret{Auth: &api.SecretAuth{ClientToken: v.client.Token(), LeaseDuration: int(ttl / time.Second), Renewable: renewable}}
	}
	s.watcher, err = v.client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: auth})
	if err != nil {
		return nil, fmt.Errorf("keep the token of Vault: %w", err)
	}
	go s.watcher.Start()
	go func() {
		defer close(s.ended)
		if err := <-s.watcher.DoneCh(); err != nil {
			v.cfg.Log.Warn("the token of Vault cannot be renewed; the next request logs in again", "error", err)
		}
		close(s.over)
	}()
	return s, nil
}

// drop forgets the token. Called with mu held.
func (v *Vault) drop() {
	if v.current == nil {
		return
	}
	if v.current.watcher != nil {
		v.current.watcher.Stop()
	}
	v.current = nil
}

// split cuts <mount>/<path>.
func split(ref string) (mount, path string, err error) {
	mount, path, ok := strings.Cut(ref, "/")
	if !ok || mount == "" || path == "" || strings.Contains("/"+ref+"/", "/../") || strings.ContainsAny(ref, "{}?#") {
		return "", "", fault.Hint(fmt.Errorf("secret reference %q: %w", ref, fault.ErrInvalid), "write it as <mount>/<path>, such as kafka/east/checkout")
	}
	return mount, path, nil
}

func equal(a, b map[string]any) bool {
	if len(a) != len(b) || b == nil {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || fmt.Sprint(other) != fmt.Sprint(value) {
			return false
		}
	}
	return true
}

func readFile(name string) (string, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("%w: %w", fault.ErrInvalid, err)
	}
	if text := strings.TrimSpace(string(b)); text != "" {
		return text, nil
	}
	return "", fmt.Errorf("%s is empty: %w", name, fault.ErrInvalid)
}
