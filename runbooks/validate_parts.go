package runbooks

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron"
)

var (
	topicPattern = regexp.MustCompile(`^[A-Za-z0-9._*?-]{1,249}$`)
	groupPattern = regexp.MustCompile(`^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]{0,253}[^\x00-\x20\x7f])?$`)
)

func (c *checker) patterns(key string, patterns []string, shape *regexp.Regexp) {
	for i, p := range patterns {
		switch k := index(key, i); {
		case internal(p):
			c.fail(k, "%q belongs to Kafka or to Switchback (__*, switchback.*) and never moves: remove it", p)
		case !shape.MatchString(p):
			c.fail(k, "%q is not a pattern: write the whole name, or a glob with * and ? (no regular expression)", p)
		case slices.Index(patterns, p) < i:
			c.fail(k, "%q stands twice: remove one", p)
		}
	}
}

var (
	vaultPath  = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.@-]+)+$`)
	vaultToken = regexp.MustCompile(`(^|/)(hv[sbr]\.|s\.[A-Za-z0-9]{20})`)
)

// secretRef never prints what it refuses: it may be the secret.
func (c *checker) secretRef(key, ref string) {
	switch {
	case ref == "":
		c.fail(key, "is missing: name a secret as <mount>/<path>, such as kafka/east/switchback")
	case vaultToken.MatchString(ref) || !strings.Contains(ref, "/") || strings.ContainsAny(ref, ":=+! "):
		c.fail(key, "looks like a secret itself: remove it here, change it, keep it in Vault and name the place as <mount>/<path>")
	case !vaultPath.MatchString(ref) || dotted(ref):
		c.fail(key, "is not a place in Vault: write <mount>/<path>, such as kafka/east/switchback")
	}
}

func dotted(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

func (c *checker) hostPort(key, s string) {
	host, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" || strings.ContainsAny(s, "/@ ") {
		c.fail(key, "is not a broker's address: write host:port, such as kafka-east:9092")
	}
}

// url checks without printing: an address with a password in it is a common way to leak one.
func (c *checker) url(key, s string) (u *url.URL, ok bool) {
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		c.fail(key, "carries a user or password: keep them in Vault and leave https://host:port")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		c.fail(key, "is not an address: write https://host:port, without a path")
	default:
		return u, true
	}
	return nil, false
}

// secureURL carries credentials, which leave the machine only encrypted.
func (c *checker) secureURL(key, s string) {
	u, ok := c.url(key, s)
	if !ok || u.Scheme == "https" || u.Hostname() == "localhost" {
		return
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		c.fail(key, "would send credentials in the clear: use https (http is for this machine alone)")
	}
}

var consulPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

func (c *checker) discovery(entries []Discovery) {
	required := 0
	seen := map[[3]string]int{}
	for i, d := range entries {
		key := index("discovery", i) + ".consul"
		if d.Consul.Token.Vault != "" {
			c.secureURL(key+".address", d.Consul.Address)
			c.secretRef(key+".token.vault", d.Consul.Token.Vault)
		} else {
			c.url(key+".address", d.Consul.Address)
		}
		if !consulPrefix.MatchString(d.Consul.Prefix) || dotted(d.Consul.Prefix) {
			c.fail(key+".prefix", "%q is not a prefix: write kafka/orders, without a slash at either end", d.Consul.Prefix)
		}
		place := [3]string{d.Consul.Address, d.Consul.Datacenter, d.Consul.Prefix}
		if first, twice := seen[place]; twice {
			c.fail(index("discovery", i), "is the same place as discovery[%d]: keep one", first)
		} else {
			seen[place] = i
		}
		if d.Required {
			required++
		}
	}
	switch {
	case len(entries) == 0:
		c.fail("discovery", "is empty: clients find their cluster through at least one Consul")
	case required != 1:
		c.fail("discovery", "has %d entries with required: true: exactly one counts, the others follow it", required)
	}
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (c *checker) credentials(cr Credentials) {
	if !regexp.MustCompile(`^[A-Za-z0-9_.-]+$`).MatchString(cr.Vault.Mount) {
		c.fail("credentials.vault.mount", "is not a mount: write its name alone, such as kafka")
	}
	c.template("credentials.vault.path", cr.Vault.Path, "{cluster}", "{client}")
	if cr.Copy == nil {
		return
	}
	c.template("credentials.copy.to", cr.Copy.To, "{client}")
	if !strings.Contains(cr.Copy.To, "/") {
		c.fail("credentials.copy.to", "must be <mount>/<path>, such as kafka/active/{client}")
	}
}

func (c *checker) template(key, path string, need ...string) {
	for _, p := range placeholder.FindAllString(path, -1) {
		if !slices.Contains(need, p) {
			c.fail(key, "holds %s, which nothing fills in: use %s", p, oneOf(need))
		}
	}
	for _, p := range need {
		if !strings.Contains(path, p) {
			c.fail(key, "must hold %s, so that each has a secret of its own", p)
		}
	}
	if plain := placeholder.ReplaceAllString(path, "x"); !vaultPath.MatchString("m/"+plain) || dotted(plain) {
		c.fail(key, "is not a path: write one such as %s, without a slash at either end", strings.Join(need, "/"))
	}
}

func (c *checker) gates(g Gates) {
	for i, a := range g.Approvers {
		// Alice and alice are one person, as they are when approvals are counted.
		same := func(b string) bool { return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b)) }
		if strings.TrimSpace(a) == "" || slices.IndexFunc(g.Approvers, same) < i {
			c.fail(index("gates.approvers", i), "%q is empty or stands twice: name each approver once", a)
		}
	}
	for _, one := range []struct {
		key  string
		gate Gate
		low  int
	}{{"gates.planned", g.Planned, 0}, {"gates.unplanned", g.Unplanned, 1}, {"gates.recovery", g.Recovery, 0}} {
		n := one.gate.Approvals
		switch {
		case n < one.low || n > 10:
			c.fail(one.key+".approvals", "%d is out of bounds: must be between %d and 10", n, one.low)
		case len(g.Approvers) > 0 && n > len(g.Approvers):
			c.fail(one.key+".approvals", "asks for %d different people, gates.approvers names %d: it could never pass", n, len(g.Approvers))
		}
		c.within(one.key+".expiry", one.gate.Expiry, time.Second, 24*time.Hour)
	}
	c.within("gates.antiFlap", g.AntiFlap, 0, 7*24*time.Hour)
}

func (c *checker) budgets(b Budgets) {
	c.within("budgets.drain", b.Drain, time.Second, 24*time.Hour)
	c.within("budgets.catchUp", b.CatchUp, 0, 24*time.Hour)
	c.within("budgets.stopClients", b.StopClients, time.Second, time.Hour)
	c.within("budgets.startClients", b.StartClients, time.Second, time.Hour)
	c.within("budgets.promote", b.Promote, time.Second, time.Hour)
	c.within("budgets.verify", b.Verify, time.Second, time.Hour)
}

// rest checks what runs do around a failover: recovery, hooks, drills.
func (c *checker) rest(r Runbook) {
	modes := []string{"append", "divert", "rewind", "report"}
	if r.Recovery != nil {
		c.word("recovery.default", r.Recovery.Default, modes...)
		c.within("recovery.readFor", r.Recovery.ReadFor, 0, 7*24*time.Hour)
		for _, p := range sortedKeys(r.Recovery.Topics) {
			c.patterns(join("recovery.topics", p), []string{p}, topicPattern)
			c.word(join("recovery.topics", p), r.Recovery.Topics[p], modes...)
		}
	}
	for i, h := range r.Hooks {
		key := index("hooks", i)
		c.word(key+".after", h.After, PlannedFailoverSteps...)
		c.text(key+".workflow", h.Workflow)
		c.text(key+".taskQueue", h.TaskQueue)
	}
	for i, d := range r.Drills {
		c.drill(index("drills", i), d)
	}
}

func (c *checker) drill(key string, d Drill) {
	c.word(key+".kind", d.Kind, "readiness", "canary", "roundtrip")
	switch {
	case (d.Every == 0) == (d.Cron == ""):
		c.fail(key, "needs either every or cron: say when it runs")
	case d.Every != 0:
		c.within(key+".every", d.Every, time.Minute, 90*24*time.Hour)
	default:
		// A time zone before the fields is refused: Temporal takes it elsewhere, and a malformed one ends the parser.
		if _, err := parseCron(d.Cron); err != nil {
			c.fail(key+".cron", "%q is not a schedule: write minute hour day month weekday, such as \"0 10 * * 2\"", d.Cron)
		}
	}
	if d.Soak != 0 {
		c.within(key+".soak", d.Soak, time.Second, 24*time.Hour)
		if d.Kind != "roundtrip" {
			c.fail(key+".soak", "means something for a roundtrip only: remove it")
		}
	}
}

func parseCron(s string) (cron.Schedule, error) {
	if len(strings.Fields(s)) != 5 || strings.Contains(s, "=") || strings.HasPrefix(s, "@") {
		return nil, strconv.ErrSyntax
	}
	return cron.ParseStandard(s)
}
