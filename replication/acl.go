package replication

import "strings"

// ACL is one access control entry in Kafka's own words. It is comparable: two that are equal are the same entry.
type ACL struct {
	ResourceType string `json:"resourceType"` // TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID
	Pattern      string `json:"pattern"`      // LITERAL, PREFIXED
	Name         string `json:"name"`         // * with LITERAL is every name; the cluster is kafka-cluster
	Principal    string `json:"principal"`    // User:name; User:* is everybody
	Host         string `json:"host"`         // an address, or *
	Operation    string `json:"operation"`    // READ, WRITE, ALL, ...
	Permission   string `json:"permission"`   // ALLOW, DENY
}

// The words that ACLs are made of, as far as this package uses them.
const (
	ResourceTopic   = "TOPIC"
	ResourceGroup   = "GROUP"
	ResourceCluster = "CLUSTER"
	ResourceTxnID   = "TRANSACTIONAL_ID"
	ClusterName     = "kafka-cluster"
	PatternLiteral  = "LITERAL"
	PatternPrefixed = "PREFIXED"
	Everybody       = "User:*"
	Anywhere        = "*"
	Allow           = "ALLOW"
	Deny            = "DENY"
	OpAll           = "ALL"
	OpRead          = "READ"
	OpWrite         = "WRITE"
	OpDescribe      = "DESCRIBE"
)

// String is the entry as a sentence for findings and errors.
func (a ACL) String() string {
	return a.Permission + " " + a.Operation + " on " + a.ResourceType + " " + a.Pattern + " " + a.Name +
		" for " + a.Principal + " from " + a.Host
}

// TopicFence denies WRITE on the topics to everybody.
func TopicFence(topics []string) []ACL { return denyAll(ResourceTopic, OpWrite, topics) }

// GroupFence denies READ on the groups to everybody: nobody can join, or commit, any more (P8).
func GroupFence(groups []string) []ACL { return denyAll(ResourceGroup, OpRead, groups) }

func denyAll(resource, operation string, names []string) []ACL {
	acls := make([]ACL, 0, len(names))
	for _, n := range names {
		acls = append(acls, ACL{resource, PatternLiteral, n, Everybody, Anywhere, operation, Deny})
	}
	return acls
}

// Request is what a principal wants to do. Host "" stands for a host that no entry names.
type Request struct {
	Principal    string
	Host         string
	ResourceType string
	Name         string
	Operation    string
}

// Denies says whether one of the entries refuses the request. A DENY wins over every ALLOW, and implies nothing: DENY
// READ leaves DESCRIBE alone.
func Denies(acls []ACL, r Request) bool {
	for _, a := range acls {
		if a.Permission == Deny && a.covers(r) && (a.Operation == OpAll || a.Operation == r.Operation) {
			return true
		}
	}
	return false
}

// Allowed decides as Kafka's authorizer does for a principal that is no super user, where topics without an ACL are
// closed (allow.everyone.if.no.acl.found=false, the default).
func Allowed(acls []ACL, r Request) bool {
	if Denies(acls, r) {
		return false
	}
	for _, a := range acls {
		if a.Permission == Allow && a.covers(r) && a.grants(r.Operation) {
			return true
		}
	}
	return false
}

// Named says whether any entry matches the resource, whoever it is for.
func Named(acls []ACL, resourceType, name string) bool {
	for _, a := range acls {
		if a.matches(resourceType, name) {
			return true
		}
	}
	return false
}

// WriteGrants are the entries that let somebody write to one of the topics, in the order in which they stand. A
// wildcard, in the topic or in the principal, is among them: look at Wildcard.
func WriteGrants(acls []ACL, topics []string) []ACL {
	var grants []ACL
	for _, a := range acls {
		if a.Permission != Allow || !a.grants(OpWrite) {
			continue
		}
		for _, t := range topics {
			if a.matches(ResourceTopic, t) {
				grants = append(grants, a)
				break
			}
		}
	}
	return grants
}

// Wildcard says whether the entry is for everybody: no principal can be named in its place (P14).
func (a ACL) Wildcard() bool { return a.Principal == Everybody }

// Missing are the entries of want that have does not hold; both may be in any order.
func Missing(want, have []ACL) []ACL {
	there := make(map[ACL]bool, len(have))
	for _, a := range have {
		there[a] = true
	}
	var missing []ACL
	for _, a := range want {
		if !there[a] {
			missing = append(missing, a)
		}
	}
	return missing
}

// Plan says what to make for a fence and what to own (P4): only entries that did not stand before are ours to make, and
// later to remove. owned are those that were recorded as made for the same owner, so that a second attempt after a
// crash does not disown what the first one made.
func Plan(want, standing, owned []ACL) (create, own []ACL) {
	create = Missing(want, standing)
	ours := map[ACL]bool{}
	for _, a := range create {
		ours[a] = true
	}
	for _, a := range owned {
		ours[a] = true
	}
	for _, a := range want {
		if ours[a] {
			own = append(own, a)
		}
	}
	return create, own
}

func (a ACL) matches(resourceType, name string) bool {
	if a.ResourceType != resourceType {
		return false
	}
	switch a.Pattern {
	case PatternLiteral:
		return a.Name == name || a.Name == "*"
	case PatternPrefixed:
		return strings.HasPrefix(name, a.Name)
	}
	return false
}

func (a ACL) covers(r Request) bool {
	return a.matches(r.ResourceType, r.Name) &&
		(a.Principal == r.Principal || a.Principal == Everybody) &&
		(a.Host == Anywhere || a.Host == r.Host)
}

// grants knows what an ALLOW implies.
func (a ACL) grants(operation string) bool {
	if a.Operation == OpAll || a.Operation == operation {
		return true
	}
	switch operation {
	case OpDescribe:
		return a.Operation == OpRead || a.Operation == OpWrite || a.Operation == "DELETE" || a.Operation == "ALTER"
	case "DESCRIBE_CONFIGS":
		return a.Operation == "ALTER_CONFIGS"
	}
	return false
}

// OwnTopics is how the names of Switchback's own topics begin, on every cluster.
const OwnTopics = "switchback."

// Unprefixed says what ACLs mean for mirrors whose names have a prefix, by their names on the source. Entries that cover no
// such mirror are left out; those of other resources, and of Switchback's own topics, stay as they are.
func Unprefixed(prefix string, acls []ACL) []ACL {
	if prefix == "" {
		return acls
	}
	var out []ACL
	for _, a := range acls {
		name, renamed := strings.CutPrefix(a.Name, prefix)
		switch {
		case a.ResourceType != ResourceTopic || a.Name == "*" || strings.HasPrefix(a.Name, OwnTopics):
		case renamed:
			a.Name = name
			if name == "" {
				a.Pattern, a.Name = PatternLiteral, "*"
			}
		case a.Pattern == PatternPrefixed && strings.HasPrefix(prefix, a.Name):
			a.Pattern, a.Name = PatternLiteral, "*"
		default:
			continue
		}
		out = append(out, a)
	}
	return out
}

// Prefixed are the same entries as ACL sync makes them for renamed mirrors: those of topics, under the mirrors' names.
func Prefixed(prefix string, acls []ACL) []ACL {
	out := make([]ACL, len(acls))
	for i, a := range acls {
		if a.ResourceType == ResourceTopic && a.Name != "*" {
			a.Name = prefix + a.Name
		}
		out[i] = a
	}
	return out
}
