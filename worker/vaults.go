package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/internal/vault"
	"switchback/runbooks"
)

// vaults are the worker's Vault, and those of single regions for what lies below their prefixes. The longest prefix wins.
type vaults struct {
	main   *vault.Vault
	others []regionalVault
}

type regionalVault struct {
	prefix string // of references, without slashes at its ends
	*vault.Vault
}

// openVaults prepares all of them and sends nothing.
func openVaults(s Settings, log *slog.Logger) (*vaults, error) {
	v := &vaults{}
	var err error
	if v.main, err = vault.Open(s.Vault.config(log)); err != nil {
		return nil, err
	}
	for _, r := range s.Vaults {
		one, err := vault.Open(r.config(log))
		if err != nil {
			v.close()
			return nil, fmt.Errorf("vaults, %s: %w", r.Prefix, err)
		}
		v.others = append(v.others, regionalVault{strings.Trim(r.Prefix, "/"), one})
	}
	return v, nil
}

func (v *vaults) close() {
	v.main.Close()
	for _, r := range v.others {
		r.Close()
	}
}

// of is the Vault that a reference is looked up in.
func (v *vaults) of(ref string) *vault.Vault {
	found, length := v.main, -1
	for _, r := range v.others {
		if strings.HasPrefix(ref+"/", r.prefix+"/") && len(r.prefix) > length {
			found, length = r.Vault, len(r.prefix)
		}
	}
	return found
}

func (v *vaults) Login(ctx context.Context, ref runbooks.SecretRef) (secret.Login, error) {
	return v.of(ref.Vault).Login(ctx, ref)
}

func (v *vaults) Token(ctx context.Context, ref runbooks.SecretRef) (secret.Value, error) {
	return v.of(ref.Vault).Token(ctx, ref)
}

// Copy is activities.Secrets, also from one Vault to another.
func (v *vaults) Copy(ctx context.Context, from, to string) (bool, error) {
	return v.of(from).CopyTo(ctx, from, v.of(to), to)
}

// mayLogIn finds out at the start whether each Vault knows this worker. Wrong credentials end it, because they would fail
// every run; a Vault that does not answer does not, because activities ask again and again, and regions boot in any order.
func (v *vaults) mayLogIn(ctx context.Context, log *slog.Logger) error {
	check := func(one *vault.Vault) error {
		ctx, cancel := context.WithTimeout(ctx, loginTime)
		defer cancel()
		err := one.Check(ctx)
		if errors.Is(err, fault.ErrUnreachable) {
			log.Warn("Vault does not answer yet; activities that need it will wait for it", "error", err)
			return nil
		}
		return err
	}
	for _, r := range v.others {
		if err := check(r.Vault); err != nil {
			return err
		}
	}
	return check(v.main)
}
