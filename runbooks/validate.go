package runbooks

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// dnsName is what Kubernetes, Consul keys and Temporal ids all take.
var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checker collects everything that is wrong, so that one reading of the errors is enough to mend a file.
type checker struct{ errs Errors }

func (c *checker) fail(key, format string, args ...any) {
	c.errs = append(c.errs, Error{Key: key, Message: fmt.Sprintf(format, args...)})
}

// Validate checks a runbook whose defaults are applied against the rules that types cannot say. The error is Errors,
// one for each thing that is wrong; from Load and Parse they carry file and line.
func (r Runbook) Validate() error {
	c := &checker{}
	c.word("apiVersion", r.APIVersion, APIVersion)
	c.word("kind", r.Kind, Kind)
	c.name("metadata.name", r.Metadata.Name)
	c.text("metadata.owner", r.Metadata.Owner)
	c.within("objectives.rto", r.Objectives.RTO, time.Second, 24*time.Hour)
	c.within("objectives.rpo.time", r.Objectives.RPO.Time, 0, 7*24*time.Hour)
	if r.Objectives.RPO.Records < 0 {
		c.fail("objectives.rpo.records", "is negative: say how many lost records the owner accepts, 0 or more")
	}
	c.clusters(r)
	c.links(r)
	c.patterns("topics.include", r.Topics.Include, topicPattern)
	c.patterns("topics.exclude", r.Topics.Exclude, topicPattern)
	if len(r.Topics.Include) == 0 {
		c.fail("topics.include", "is empty: name the topics to move, such as [orders, \"payments.*\"]")
	}
	c.patterns("groups.include", r.Groups.Include, groupPattern)
	c.patterns("groups.exclude", r.Groups.Exclude, groupPattern)
	c.word("groups.withoutCommit", r.Groups.WithoutCommit, "earliest", "latest")
	c.discovery(r.Discovery)
	c.credentials(r.Credentials)
	c.clients(r)
	c.gates(r.Gates)
	c.budgets(r.Budgets)
	c.rest(r)
	if len(c.errs) == 0 {
		return nil
	}
	return c.errs
}

func (c *checker) name(key, name string) {
	if !dnsName.MatchString(name) {
		c.fail(key, "%q is not a name: use 1 to 63 small letters, digits and -, starting and ending with a letter or digit", name)
	}
}

func (c *checker) text(key, s string) {
	if strings.TrimSpace(s) == "" {
		c.fail(key, "is empty: write one")
	}
}

func (c *checker) word(key, s string, known ...string) {
	if !slices.Contains(known, s) {
		c.fail(key, "%q is unknown: use %s%s", s, oneOf(known), didYouMean(s, known))
	}
}

func (c *checker) within(key string, d Duration, low, high time.Duration) {
	if d.D() < low || d.D() > high {
		c.fail(key, "%s is out of bounds: must be between %s and %s", d, Duration(low), Duration(high))
	}
}

func (c *checker) known(key, cluster string, r Runbook) {
	if _, ok := r.Clusters[cluster]; !ok {
		c.fail(key, "%q is no cluster of this runbook: use %s%s", cluster, oneOf(r.ClusterNames()), didYouMean(cluster, r.ClusterNames()))
	}
}

var clusterID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *checker) clusters(r Runbook) {
	if len(r.Clusters) < 2 {
		c.fail("clusters", "names %d: a failover needs two clusters or more", len(r.Clusters))
	}
	owner := map[string]string{}
	for _, name := range r.ClusterNames() {
		key, cl := join("clusters", name), r.Clusters[name]
		c.name(key, name)
		if len(cl.Bootstrap) == 0 {
			c.fail(key+".bootstrap", "is empty: name at least one broker, such as [kafka-east:9092]")
		}
		for i, b := range cl.Bootstrap {
			c.hostPort(index(key+".bootstrap", i), b)
			if other, ok := owner[b]; ok && other != name {
				c.fail(index(key+".bootstrap", i), "is a broker of %s too: two clusters cannot share one", other)
			}
			owner[b] = name
		}
		c.security(key, cl)
		if cl.ID != "" && !clusterID.MatchString(cl.ID) {
			c.fail(key+".id", "%q is not a Kafka cluster id: copy it from kafka-cluster.sh cluster-id", cl.ID)
		}
	}
	c.known("home", r.Home, r)
}

func (c *checker) security(key string, cl Cluster) {
	s := cl.Security
	c.word(key+".security.protocol", s.Protocol, "SASL_SSL", "SASL_PLAINTEXT", "SSL", "PLAINTEXT")
	sasl, tls := strings.HasPrefix(s.Protocol, "SASL"), strings.HasSuffix(s.Protocol, "SSL")
	if sasl {
		c.word(key+".security.mechanism", s.Mechanism, "SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
		c.secretRef(key+".credentials.vault", cl.Credentials.Vault)
		if !tls && s.Mechanism == "PLAIN" {
			c.fail(key+".security.mechanism", "PLAIN over SASL_PLAINTEXT sends the password in the clear: use SASL_SSL, or SCRAM-SHA-512")
		}
	} else {
		if s.Mechanism != "" {
			c.fail(key+".security.mechanism", "means nothing with protocol %s: remove it, or use SASL_%s", s.Protocol, s.Protocol)
		}
		if cl.Credentials.Vault != "" {
			c.fail(key+".credentials", "mean nothing with protocol %s: remove them, or use SASL_%s", s.Protocol, s.Protocol)
		}
	}
	if s.CA != "" && !tls {
		c.fail(key+".security.ca", "means nothing with protocol %s: remove it, or use SASL_SSL", s.Protocol)
	}
}

func (c *checker) links(r Runbook) {
	if len(r.Links) == 0 {
		c.fail("links", "is empty: name the replication from one cluster to the other")
	}
	seen := map[[2]string]int{}
	for i, l := range r.Links {
		key := index("links", i)
		c.known(key+".from", l.From, r)
		c.known(key+".to", l.To, r)
		if l.From == l.To {
			c.fail(key+".to", "is %s, where the link comes from: a link joins two clusters", l.To)
		}
		if first, twice := seen[[2]string{l.From, l.To}]; twice {
			c.fail(key, "goes from %s to %s like links[%d]: keep one", l.From, l.To, first)
		} else {
			seen[[2]string{l.From, l.To}] = i
		}
		switch {
		case l.ClusterLinking == nil && l.MirrorMaker == nil:
			c.fail(key, "has no backend: add clusterLinking or mirrormaker")
		case l.ClusterLinking != nil && l.MirrorMaker != nil:
			c.fail(key, "has two backends: keep either clusterLinking or mirrormaker")
		case l.ClusterLinking != nil:
			c.clusterLinking(key+".clusterLinking", *l.ClusterLinking, r)
		default:
			c.mirrorMaker(key+".mirrormaker", *l.MirrorMaker, r)
		}
	}
}

func (c *checker) clusterLinking(key string, l ClusterLinking, r Runbook) {
	c.secureURL(key+".rest", l.REST)
	c.word(key+".pathPrefix", l.PathPrefix, "/kafka/v3", "/v3")
	if !clusterID.MatchString(l.Cluster) {
		c.fail(key+".cluster", "%q is not a cluster id: use the one in the REST address, such as lkc-abc123", l.Cluster)
	}
	c.linkName(key+".link", l.Link)
	c.secretRef(key+".credentials.vault", l.Credentials.Vault)
	if l.Principal != "" {
		c.mirrorPrincipal(key+".principal", l.Principal, r)
	}
}

func (c *checker) mirrorMaker(key string, m MirrorMaker, r Runbook) {
	if len(m.Connect) == 0 {
		c.fail(key+".connect", "is empty: name at least one Connect worker, such as [http://connect:8083]")
	}
	c.connectWorkers(key, m)
	c.linkName(key+".source", m.Source)
	if m.Checkpoint != "" {
		c.linkName(key+".checkpoint", m.Checkpoint)
	}
	if m.Heartbeat != "" {
		c.linkName(key+".heartbeat", m.Heartbeat)
	}
	if len(m.Alias) != 2 || m.Alias["source"] == "" || m.Alias["target"] == "" || m.Alias["source"] == m.Alias["target"] {
		c.fail(key+".alias", "must give the two different aliases that MirrorMaker 2 uses: {source: east, target: west}")
	}
	c.word(key+".policy", m.Policy, "identity", "default")
	c.mirrorPrincipal(key+".principals.data", m.Principals.Data, r)
	c.mirrorPrincipal(key+".principals.admin", m.Principals.Admin, r)
	if logins := m.Principals.Credentials; logins != nil {
		c.secretRef(key+".principals.credentials.data.vault", logins.Data.Vault)
		c.secretRef(key+".principals.credentials.admin.vault", logins.Admin.Vault)
	}
}

// connectWorkers are reached the same way, with the same credentials and certificates.
func (c *checker) connectWorkers(key string, m MirrorMaker) {
	check, encrypted := c.url, false
	if m.Credentials.Vault != "" {
		c.secretRef(key+".credentials.vault", m.Credentials.Vault)
		check = func(key, s string) (*url.URL, bool) { c.secureURL(key, s); return nil, false }
	}
	for i, u := range m.Connect {
		check(index(key+".connect", i), u)
		encrypted = encrypted || strings.HasPrefix(u, "https:")
		if slices.Index(m.Connect, u) < i {
			c.fail(index(key+".connect", i), "stands twice: name each worker once")
		}
	}
	if (m.CA != "" || m.Cert != "" || m.Key != "") && len(m.Connect) > 0 && !encrypted {
		c.fail(key, "has ca, cert or key, which mean nothing without https: remove them, or use https under connect")
	}
	if (m.Cert == "") != (m.Key == "") {
		c.fail(key, "names half of a client certificate: give both cert and key")
	}
}

var linkName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)

func (c *checker) linkName(key, name string) {
	if !linkName.MatchString(name) {
		c.fail(key, "%q is not a name: use letters, digits, dot, _ and -", name)
	}
}

// mirrorPrincipal must be nobody else's: the seal denies it, and would deny that client too (P10).
func (c *checker) mirrorPrincipal(key, principal string, r Runbook) {
	c.principal(key, principal)
	for _, client := range r.Clients {
		if client.Principal == principal {
			c.fail(key, "%s is the principal of client %s too: give the mirror one of its own, because it is denied during a switch", principal, client.Name)
		}
	}
}

func (c *checker) principal(key, p string) {
	name, ok := strings.CutPrefix(p, "User:")
	switch {
	case !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.fail(key, "%q is not a principal: write User:<name>", p)
	case name == "*":
		c.fail(key, "User:* is everybody: name the one principal")
	}
}

func index(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
