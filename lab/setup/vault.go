package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"switchback/internal/secret"
	"switchback/lab/servers"
)

// mount is Vault's KV v2 mount for everything of the lab.
const mount = "kafka"

// Vault is Vault's API with the root token, which the lab alone has.
func (l *Lab) Vault() (*api.Client, error) { return l.vaultAt(everywhereVault) }

// everyVault are the names of the lab's Vaults, the one that clients use first.
func (l *Lab) everyVault() []string { return l.with(everywhereVault, regionalVault) }

func (l *Lab) vaultAt(name string) (*api.Client, error) {
	keys, err := servers.ReadVaultKeys(l.path(name))
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(&api.Config{Address: l.url(name), HttpClient: l.certs.http(), Timeout: 10 * time.Second, MaxRetries: 5})
	if err != nil {
		return nil, err
	}
	client.SetToken(keys.RootToken.Reveal())
	return client, nil
}

// provisionVault fills the Vault that clients use.
func (l *Lab) provisionVault(ctx context.Context) error { return l.fillVault(ctx, everywhereVault) }

// fillVault makes mount, secrets, and for each part a policy and an AppRole with its files.
func (l *Lab) fillVault(ctx context.Context, name string) error {
	vault, err := l.vaultAt(name)
	if err != nil {
		return fmt.Errorf("provision Vault: %w", err)
	}
	mounted := vault.Sys().MountWithContext(ctx, mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}})
	enabled := vault.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"})
	for _, err := range []error{mounted, enabled} {
		if err != nil && !inUse(err) {
			return fmt.Errorf("provision Vault: %w", err)
		}
	}
	for path, data := range l.vaultSecrets() {
		if !l.standsIn(name, path) {
			continue
		}
		if err := putSecret(ctx, vault, path, data); err != nil {
			return fmt.Errorf("provision Vault: %w", err)
		}
	}
	for part, paths := range l.readable() {
		if err := l.provisionRole(ctx, vault, part, paths); err != nil {
			return fmt.Errorf("provision Vault: role of %s: %w", part, err)
		}
	}
	return nil
}

func inUse(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest && strings.Contains(err.Error(), "path is already in use")
}

// vaultSecrets is what stands in Vault, by path below the mount.
func (l *Lab) vaultSecrets() map[string]map[string]secret.Value {
	all := map[string]map[string]secret.Value{}
	login := func(path string, s secret.Login) {
		all[path] = map[string]secret.Value{"username": secret.New(s.Username), "password": s.Password}
	}
	for _, cluster := range Clusters {
		login(cluster+"/switchback", l.login(cluster, switchback))
		login(cluster+"/link-rest", l.linkLogin())
		login(cluster+"/"+connectSecret, l.ConnectLogin())
		for _, user := range l.mirrorUsers() {
			login(cluster+"/"+user, l.login(cluster, user))
		}
		for _, c := range l.options.clients() {
			login(cluster+"/"+c.Name, l.login(cluster, c.Name))
		}
	}
	if l.regional() {
		all[regionalToken] = map[string]secret.Value{"token": l.consulToken(workerPart)}
	}
	for _, part := range l.parts() {
		all["consul/"+part] = map[string]secret.Value{"token": l.consulToken(part)}
	}
	return all
}

// readable says which secrets each part may read, and nothing else.
func (l *Lab) readable() map[string][]string {
	all := map[string][]string{}
	worker := []string{"consul/" + workerPart}
	if l.regional() {
		worker = append(worker, regionalToken)
	}
	for _, cluster := range Clusters {
		worker = append(worker, cluster+"/switchback", cluster+"/link-rest", cluster+"/"+connectSecret)
		for _, user := range l.mirrorUsers() {
			worker = append(worker, cluster+"/"+user) // to prove that ACLs hold the mirror
		}
		for _, c := range l.options.clients() {
			worker = append(worker, cluster+"/"+c.Name) // to try the logins of clients before they are stopped
			all[c.Name] = append(all[c.Name], cluster+"/"+c.Name)
		}
	}
	for _, c := range l.options.clients() {
		all[c.Name] = append(all[c.Name], "consul/"+c.Name)
	}
	all[workerPart] = worker
	return all
}

// putSecret waits for a mount that was made a moment ago, and leaves alone a secret that is there: a test may have
// changed it.
func putSecret(ctx context.Context, vault *api.Client, path string, data map[string]secret.Value) error {
	plain := map[string]any{}
	for key, value := range data {
		plain[key] = value.Reveal()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := vault.KVv2(mount).Put(ctx, path, plain, api.WithCheckAndSet(0))
		if err == nil || strings.Contains(err.Error(), "check-and-set parameter did not match") {
			return nil
		}
		if !strings.Contains(err.Error(), "Upgrading") {
			return fmt.Errorf("write secret %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("write secret %s: %w", path, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *Lab) provisionRole(ctx context.Context, vault *api.Client, part string, paths []string) error {
	var policy strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&policy, "path %q { capabilities = [\"read\"] }\n", mount+"/data/"+path)
	}
	if err := vault.Sys().PutPolicyWithContext(ctx, part, policy.String()); err != nil {
		return err
	}
	role := "auth/approle/role/" + part
	settings := map[string]any{"token_policies": part, "token_ttl": "1h", "token_max_ttl": "24h"}
	if _, err := vault.Logical().WriteWithContext(ctx, role, settings); err != nil {
		return err
	}
	roleID, secretID, err := l.roleOf(part)
	if err != nil {
		return err
	}
	if _, err := vault.Logical().WriteWithContext(ctx, role+"/role-id", map[string]any{"role_id": roleID}); err != nil {
		return err
	}
	known, err := vault.Logical().WriteWithContext(ctx, role+"/secret-id/lookup", map[string]any{"secret_id": secretID.Reveal()})
	if err != nil || known != nil {
		return err
	}
	_, err = vault.Logical().WriteWithContext(ctx, role+"/custom-secret-id", map[string]any{"secret_id": secretID.Reveal()})
	return err
}

// roleOf reads the AppRole that a part finds in its files.
func (l *Lab) roleOf(part string) (roleID string, secretID secret.Value, err error) {
	files := l.Part(part)
	role, err := os.ReadFile(files.RoleIDFile)
	if err != nil {
		return "", secretID, err
	}
	id, err := os.ReadFile(files.SecretIDFile)
	return string(role), secret.New(string(id)), err
}

// writeParts gives each part the files that it logs in with. They are made up here and not by Vault and Consul, so that the
// files are there before the servers are; those that are there already stay.
func (l *Lab) writeParts() error {
	for _, part := range l.parts() {
		files := l.Part(part)
		for file, value := range map[string]secret.Value{
			files.RoleIDFile: secret.New(part), files.SecretIDFile: l.secretID(part), files.ConsulTokenFile: l.consulToken(part),
		} {
			if _, err := os.Stat(file); err == nil {
				continue
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := servers.WriteFile(file, []byte(value.Reveal())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) secretID(part string) secret.Value { return l.secrets.token("vault/" + part) }
