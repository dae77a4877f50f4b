package runbooks

import "strings"

// PathFor is <mount>/<path> of the client's secret for a cluster. A client of "{client}" leaves the placeholder, which
// is what discovery tells clients.
func (c Credentials) PathFor(cluster, client string) string {
	return strings.Trim(c.Vault.Mount, "/") + "/" + strings.NewReplacer("{cluster}", cluster, "{client}", client).Replace(strings.Trim(c.Vault.Path, "/"))
}
