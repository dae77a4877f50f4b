package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/runbooks"
)

// whereami names the host for people, and the kernel and process namespace in which process numbers can be compared.
func whereami() (host, boot string) {
	host, _ = os.Hostname() // "" is shown as it is
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, spaceErr := os.Readlink("/proc/self/ns/pid")
	if err != nil || spaceErr != nil {
		return host, ""
	}
	return host, strings.TrimSpace(string(id)) + " " + space
}

// replaces says that the holder of our id is certainly dead: its process number, in our own namespace, is nobody's.
func (l *loop) replaces(holder consul.Instance) bool {
	return l.boot != "" && holder.Boot == l.boot && holder.PID > 0 && errors.Is(syscall.Kill(holder.PID, 0), syscall.ESRCH)
}

// noVault serves clusters that need no login.
type noVault struct{}

func (noVault) Login(context.Context, runbooks.SecretRef) (secret.Login, error) {
	return secret.Login{}, fmt.Errorf("the cluster wants a login: give --vault-address and an AppRole or a token: %w", fault.ErrInvalid)
}
