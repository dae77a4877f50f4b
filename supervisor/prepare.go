package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/runbooks"
)

// prepareTime bounds what happens before one start.
const prepareTime = 20 * time.Second

// logins reads credentials; *vault.Vault is one.
type logins interface {
	Login(ctx context.Context, ref runbooks.SecretRef) (secret.Login, error)
}

// prepared is the result of preparing a start: an environment, or why there is no start. state is what the required
// entry said when it was read for it.
type prepared struct {
	state *consul.State
	view  consul.View
	env   []setting
	err   error
	// claimed is the record that was written, or perhaps written if err says so.
	claimed *consul.Instance
}

// errNotDesired ends a preparation that finds that nothing is to be started.
var errNotDesired = errors.New("not asked to run")

// prepare makes all ready for a start, and claims it: after the claim a run that asks for a stop sees this instance.
// What was known before does not count, the required entry is read again: a child that dies while it is asked to stop
// must not come back.
func (l *loop) prepare(ctx context.Context, known knowledge, last consul.View, claim consul.Instance) prepared {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	state, err := l.entries[0].Read(ctx)
	if err != nil {
		return prepared{err: err}
	}
	known.states = append([]*consul.State{&state}, known.states[1:]...)
	view, _ := known.view(l.s.client)
	p := prepared{state: &state, view: view}
	if p.err = startable(view, last); p.err != nil {
		return p
	}
	var props []setting
	if p.env, props, p.err = l.render(ctx, view); p.err != nil {
		return p
	}
	if p.err = writeProperties(l.s.propertiesFile, props); p.err != nil {
		return p
	}
	claim.Epoch, claim.Cluster, claim.Since = view.Epoch, view.Cluster, time.Now().UTC()
	p.claimed = &claim
	p.err = l.registration.Claim(ctx, claim, state)
	return p
}

// render turns a view into variables and properties. Credentials that were read before serve while Vault is away.
func (l *loop) render(ctx context.Context, view consul.View) (env, props []setting, err error) {
	var login secret.Login
	if needsLogin(view) {
		login, err = l.vault.Login(ctx, runbooks.SecretRef{Vault: view.Credentials})
		switch {
		case err == nil:
			l.login, l.loginPath = login, view.Credentials
		case l.loginPath == view.Credentials && errors.Is(err, fault.ErrUnreachable):
			l.log.Warn("Vault cannot be read; using the credentials that were read before", "error", err)
			login = l.login
		default:
			return nil, nil, err
		}
	}
	if props, err = properties(l.s, view, login); err != nil {
		return nil, nil, err
	}
	return environment(l.s, view, login), props, nil
}

// startable says why a view must not be started. last is that of the child before, its Epoch Unknown if there was none.
func startable(v, last consul.View) error {
	switch {
	case v.Desired != consul.Run && v.Desired != consul.Stop:
		return fmt.Errorf("desired is %q in Consul; run and stop are known: %w", v.Desired, fault.ErrInvalid)
	case v.Desired == consul.Stop:
		return errNotDesired
	case v.Epoch == consul.Unknown:
		return fmt.Errorf("the required discovery entry holds no epoch: %w", fault.ErrNotFound)
	case v.Cluster == "" || v.Bootstrap == "":
		return fmt.Errorf("the discovery entry lacks cluster or bootstrap.servers: %w", fault.ErrNotFound)
	case needsLogin(v) && v.Credentials == "":
		return fmt.Errorf("the discovery entry lacks credentials: %w", fault.ErrNotFound)
	case v.Epoch < last.Epoch:
		return fmt.Errorf("discovery holds epoch %d, the command ran at %d already; was Consul restored?: %w", v.Epoch, last.Epoch, fault.ErrStale)
	case v.Epoch == last.Epoch && v.Cluster != last.Cluster:
		return fmt.Errorf("discovery names %s at epoch %d, the command ran on %s at that epoch: two clusters at one epoch: %w", v.Cluster, v.Epoch, last.Cluster, fault.ErrConflict)
	}
	return nil
}
