package replication

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAuthorization(t *testing.T) {
	acl := func(permission, operation, pattern, name, principal, host string) ACL {
		return ACL{ResourceTopic, pattern, name, principal, host, operation, permission}
	}
	checkout := func(op string) Request { return Request{"User:checkout", "10.0.0.1", ResourceTopic, "orders.eu", op} }
	for name, tc := range map[string]struct {
		acls            []ACL
		request         Request
		allowed, denied bool
	}{
		"nothing":                      {nil, checkout("READ"), false, false},
		"other topic":                  {[]ACL{acl(Allow, "READ", "LITERAL", "orders", Everybody, "*")}, checkout("READ"), false, false},
		"literal":                      {[]ACL{acl(Allow, "READ", "LITERAL", "orders.eu", "User:checkout", "*")}, checkout("READ"), true, false},
		"prefixed":                     {[]ACL{acl(Allow, "READ", "PREFIXED", "orders.", "User:checkout", "*")}, checkout("READ"), true, false},
		"prefix is no literal":         {[]ACL{acl(Allow, "READ", "LITERAL", "orders.", "User:checkout", "*")}, checkout("READ"), false, false},
		"wildcard topic":               {[]ACL{acl(Allow, "READ", "LITERAL", "*", "User:checkout", "*")}, checkout("READ"), true, false},
		"everybody":                    {[]ACL{acl(Allow, "READ", "LITERAL", "*", Everybody, "*")}, checkout("READ"), true, false},
		"somebody else closes":         {[]ACL{acl(Allow, "READ", "LITERAL", "orders.eu", "User:other", "*")}, checkout("READ"), false, false},
		"host":                         {[]ACL{acl(Allow, "READ", "LITERAL", "orders.eu", "User:checkout", "10.0.0.1")}, checkout("READ"), true, false},
		"other host":                   {[]ACL{acl(Allow, "READ", "LITERAL", "orders.eu", "User:checkout", "10.0.0.2")}, checkout("READ"), false, false},
		"all":                          {[]ACL{acl(Allow, "ALL", "LITERAL", "orders.eu", "User:checkout", "*")}, checkout("ALTER_CONFIGS"), true, false},
		"write implies describe":       {[]ACL{acl(Allow, "WRITE", "LITERAL", "orders.eu", "User:checkout", "*")}, checkout("DESCRIBE"), true, false},
		"alter configs implies":        {[]ACL{acl(Allow, "ALTER_CONFIGS", "LITERAL", "orders.eu", "User:checkout", "*")}, checkout("DESCRIBE_CONFIGS"), true, false},
		"write does not imply read":    {[]ACL{acl(Allow, "WRITE", "LITERAL", "orders.eu", "User:checkout", "*")}, checkout("READ"), false, false},
		"deny wins":                    {[]ACL{acl(Allow, "ALL", "LITERAL", "orders.eu", "User:checkout", "*"), acl(Deny, "WRITE", "PREFIXED", "o", Everybody, "*")}, checkout("WRITE"), false, true},
		"deny all":                     {[]ACL{acl(Allow, "ALL", "LITERAL", "orders.eu", "User:checkout", "*"), acl(Deny, "ALL", "LITERAL", "*", Everybody, "*")}, checkout("DESCRIBE"), false, true},
		"deny write leaves describe":   {[]ACL{acl(Allow, "ALL", "LITERAL", "orders.eu", "User:checkout", "*"), acl(Deny, "WRITE", "LITERAL", "orders.eu", Everybody, "*")}, checkout("DESCRIBE"), true, false},
		"deny elsewhere":               {[]ACL{acl(Allow, "ALL", "LITERAL", "orders.eu", "User:checkout", "*"), acl(Deny, "WRITE", "LITERAL", "orders.eu", Everybody, "10.9.9.9")}, checkout("WRITE"), true, false},
		"a group is not a topic":       {[]ACL{{ResourceGroup, "LITERAL", "orders.eu", Everybody, "*", "READ", Allow}}, checkout("READ"), false, false},
		"a pattern nobody knows":       {[]ACL{acl(Allow, "READ", "REGEX", "orders.*", Everybody, "*")}, checkout("READ"), false, false},
		"the fence denies every write": {append(TopicFence([]string{"orders.eu"}), acl(Allow, "ALL", "LITERAL", "*", Everybody, "*")), checkout("WRITE"), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.allowed, Allowed(tc.acls, tc.request))
			require.Equal(t, tc.denied, Denies(tc.acls, tc.request))
		})
	}
}

func TestFences(t *testing.T) {
	require.Equal(t, []ACL{{"TOPIC", "LITERAL", "a", "User:*", "*", "WRITE", "DENY"}}, TopicFence([]string{"a"}))
	require.Equal(t, []ACL{{"GROUP", "LITERAL", "g", "User:*", "*", "READ", "DENY"}}, GroupFence([]string{"g"}))
	require.Empty(t, TopicFence(nil))
}

// P4: what stood before is never ours; what an attempt before a crash made stays ours.
func TestP04_Ownership(t *testing.T) {
	fence := TopicFence([]string{"a", "b", "c"})
	for name, tc := range map[string]struct {
		standing, owned   []ACL
		wantMake, wantOwn []ACL
	}{
		"fresh":                      {nil, nil, fence, fence},
		"one stood before":           {fence[1:2], nil, []ACL{fence[0], fence[2]}, []ACL{fence[0], fence[2]}},
		"all stood before":           {fence, nil, nil, nil},
		"made, then crashed":         {fence, fence, nil, fence},
		"made in part, then crashed": {fence[:2], fence, fence[2:], fence},
		"remembered, nothing made":   {nil, fence, fence, fence},
		"crashed, one stood before":  {fence, fence[1:], nil, fence[1:]},
		"others are left alone":      {[]ACL{{"TOPIC", "LITERAL", "z", Everybody, "*", "WRITE", "DENY"}}, nil, fence, fence},
	} {
		t.Run(name, func(t *testing.T) {
			create, own := Plan(fence, tc.standing, tc.owned)
			require.Equal(t, tc.wantMake, create)
			require.Equal(t, tc.wantOwn, own)
		})
	}
}

func TestWriteGrants(t *testing.T) {
	grant := func(op, pattern, name, principal string) ACL {
		return ACL{ResourceTopic, pattern, name, principal, "*", op, Allow}
	}
	acls := []ACL{
		grant("WRITE", "LITERAL", "orders", "User:checkout"),
		grant("READ", "LITERAL", "orders", "User:billing"),
		grant("ALL", "PREFIXED", "ord", "User:ops"),
		grant("WRITE", "LITERAL", "*", Everybody),
		grant("WRITE", "LITERAL", "other", "User:other"),
		TopicFence([]string{"orders"})[0],
	}
	got := WriteGrants(acls, []string{"orders", "payments"})
	require.Equal(t, []ACL{acls[0], acls[2], acls[3]}, got)
	require.False(t, got[0].Wildcard())
	require.True(t, got[2].Wildcard())
}

func TestUnprefixedIsWhatACLsMeanForRenamedMirrors(t *testing.T) {
	on := func(pattern, name string) ACL {
		return ACL{ResourceTopic, pattern, name, "User:a", Anywhere, OpWrite, Allow}
	}
	for name, tc := range map[string]struct{ given, want []ACL }{
		"the mirror":            {[]ACL{on(PatternLiteral, "east.orders")}, []ACL{on(PatternLiteral, "orders")}},
		"mirrors by prefix":     {[]ACL{on(PatternPrefixed, "east.ord")}, []ACL{on(PatternPrefixed, "ord")}},
		"all mirrors":           {[]ACL{on(PatternPrefixed, "east.")}, []ACL{on(PatternLiteral, "*")}},
		"more than all mirrors": {[]ACL{on(PatternPrefixed, "ea")}, []ACL{on(PatternLiteral, "*")}},
		"everything":            {[]ACL{on(PatternLiteral, "*")}, []ACL{on(PatternLiteral, "*")}},
		"another topic":         {[]ACL{on(PatternLiteral, "orders"), on(PatternPrefixed, "ord")}, nil},
		"our own":               {[]ACL{on(PatternLiteral, "switchback.marks")}, []ACL{on(PatternLiteral, "switchback.marks")}},
		"a group":               {[]ACL{{ResourceGroup, PatternLiteral, "billing", "User:a", Anywhere, OpRead, Allow}}, []ACL{{ResourceGroup, PatternLiteral, "billing", "User:a", Anywhere, OpRead, Allow}}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, Unprefixed("east.", tc.given)) })
	}
}
