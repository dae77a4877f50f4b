package runbooks

import "sort"

func (c *checker) clients(r Runbook) {
	if len(r.Clients) == 0 {
		c.fail("clients", "is empty: name every application that reads or writes the topics")
	}
	seen := map[string]int{}
	for i, cl := range r.Clients {
		key := index("clients", i)
		c.name(key+".name", cl.Name)
		if first, twice := seen[cl.Name]; twice {
			c.fail(key+".name", "%q is clients[%d] already: names are unique", cl.Name, first)
		} else {
			seen[cl.Name] = i
		}
		c.word(key+".role", cl.Role, RoleProducer, RoleConsumer, RoleBoth)
		c.word(key+".whenKilled", cl.WhenKilled, "go-on", "roll-back")
		c.principal(key+".principal", cl.Principal)
		c.stopping(key, cl)
		c.clientGroups(key, cl, r)
		c.placement(key, cl, r)
	}
}

func (c *checker) stopping(key string, cl Client) {
	ways := 0
	if cl.Supervised != nil {
		ways++
		if n := cl.Supervised.Instances; n < 1 || n > 1000 {
			c.fail(key+".supervised.instances", "%d is out of bounds: must be between 1 and 1000", n)
		}
	}
	if cl.Kubernetes != nil {
		ways++
		c.name(key+".kubernetes.namespace", cl.Kubernetes.Namespace)
		c.name(key+".kubernetes.deployment", cl.Kubernetes.Deployment)
	}
	if cl.Paged != nil {
		ways++
		c.text(key+".paged.team", cl.Paged.Team)
		c.text(key+".paged.via", cl.Paged.Via)
	}
	switch {
	case ways == 0:
		c.fail(key, "has no way to stop it: add supervised, kubernetes or paged")
	case ways > 1:
		c.fail(key, "has %d ways to stop it: keep one of supervised, kubernetes and paged", ways)
	}
}

func (c *checker) clientGroups(key string, cl Client, r Runbook) {
	if !cl.Consuming() {
		if len(cl.Groups) > 0 {
			c.fail(key+".groups", "belong to a consumer, and the role is %s: remove them, or make it both", cl.Role)
		}
		return
	}
	if len(cl.Groups) == 0 {
		c.fail(key+".groups", "is missing: a client that reads names its consumer groups, so that their offsets move with it")
	}
	for i, g := range cl.Groups {
		if !r.Groups.Match(g) {
			c.fail(index(key+".groups", i), "%q is not among the runbook's groups: add it to groups.include, or its offsets would stay behind", g)
		}
	}
}

func (c *checker) placement(key string, cl Client, r Runbook) {
	if len(cl.Placement) > 0 && cl.Kubernetes == nil {
		c.fail(key+".placement", "is for a kubernetes client only: remove it")
		return
	}
	for _, name := range sortedKeys(cl.Placement) {
		k := join(key+".placement", name)
		c.known(k, name, r)
		if n := cl.Placement[name].Replicas; n < 0 || n > 10000 {
			c.fail(k+".replicas", "%d is out of bounds: must be between 0 (as many as before) and 10000", n)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
