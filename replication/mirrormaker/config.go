package mirrormaker

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchback/replication"
)

// settings are those of a connector's configuration that are looked at here. The rest is dropped as it is read:
// passwords stand among it, and where somebody's name stands beside one, only the name is kept, as <prefix>username.
type settings map[string]string

var (
	looked = regexp.MustCompile(`^(connector\.class|enabled|topics(\.exclude)?|groups(\.exclude)?|(topic|group)\.filter\.class|(source|target)\.cluster\.alias` +
		`|(refresh|sync|emit)\.[a-z.-]+\.(enabled|interval\.seconds)|replication\.policy\.(class|separator)|offset-syncs\.topic\.location|errors\.tolerance` +
		`|(key|value|header)\.converter|transforms(\.[^.]+\.(type|predicate|negate))?|predicates(\.[^.]+\.(type|name))?|exactly\.once\.support` +
		`|(source\.|source\.cluster\.)?(consumer\.)?isolation\.level|producer\.override\.bootstrap\.servers)$`)
	logins   = regexp.MustCompile(`^(.*\.)?sasl\.jaas\.config$`)
	username = regexp.MustCompile(`\busername\s*=\s*"?([^"\s;$]+)"?`)
)

// UnmarshalJSON keeps what is looked at.
func (s *settings) UnmarshalJSON(b []byte) error {
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*s = settings{}
	for key, v := range all {
		value, isText := v.(string)
		if !isText {
			continue // Connect keeps texts alone
		}
		if login := logins.FindStringSubmatch(key); login != nil {
			if name := username.FindStringSubmatch(value); name != nil {
				(*s)[login[1]+"username"] = name[1]
			}
		} else if looked.MatchString(key) {
			(*s)[key] = strings.TrimSpace(value)
		}
	}
	return nil
}

// or is the setting, or what MirrorMaker 2 takes when it is not there.
func (s settings) or(key, usual string) string {
	if v, ok := s[key]; ok {
		return v
	}
	return usual
}

func (s settings) flag(key string, usual bool) bool {
	b, err := strconv.ParseBool(strings.ToLower(s.or(key, strconv.FormatBool(usual))))
	return err == nil && b
}

func (s settings) seconds(key string, usual int) time.Duration {
	n, err := strconv.Atoi(s.or(key, strconv.Itoa(usual)))
	if err != nil || n < 0 || n > 10*365*24*3600 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// first is the value of the first of keys that is set.
func (s settings) first(keys ...string) string {
	for _, k := range keys {
		if v := s[k]; v != "" {
			return v
		}
	}
	return ""
}

// committed says whether the connector mirrors committed records alone.
func (s settings) committed() bool {
	return s.first("source.consumer.isolation.level", "consumer.isolation.level", "source.cluster.isolation.level") == "read_committed"
}

// What MirrorMaker 2 takes when a filter is not set.
const (
	usualTopics        = ".*"
	usualTopicsExclude = `mm2.*\.internal, .*\.replica, __.*`
	usualGroups        = ".*"
	usualGroupsExclude = `console-consumer-.*, connect-.*, __.*`
)

func (s settings) topics() filter {
	return filter{s.or("topics", usualTopics), s.or("topics.exclude", usualTopicsExclude)}
}

func (s settings) groups() filter {
	return filter{s.or("groups", usualGroups), s.or("groups.exclude", usualGroupsExclude)}
}

// filter selects names by lists of Java regular expressions that match the whole name.
type filter struct {
	Include string `json:"include"`
	Exclude string `json:"exclude"`
}

// matcher is a filter made ready.
type matcher struct{ include, exclude patterns }

type patterns struct {
	good []*regexp.Regexp
	bad  []string // Java knows more than Go does: look-aheads, possessive quantifiers
}

func (f filter) matcher() matcher { return matcher{compile(f.Include), compile(f.Exclude)} }

func compile(list string) (p patterns) {
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		re, err := regexp.Compile(`\A(?:` + text + `)\z`)
		if err != nil {
			p.bad = append(p.bad, text)
			continue
		}
		p.good = append(p.good, re)
	}
	return p
}

func (p patterns) match(name string) (yes, unknown bool) {
	if slices.ContainsFunc(p.good, func(re *regexp.Regexp) bool { return re.MatchString(name) }) {
		return true, false
	}
	return false, len(p.bad) > 0
}

// match says whether the filter selects the name. The error, of kind fault.ErrInvalid, says which pattern would have to
// be understood to tell.
func (m matcher) match(name string) (bool, error) {
	unclear := func(bad []string) error {
		return invalid(fmt.Sprintf("the connector's pattern %q is not understood", bad[0]), "write it without what Java alone knows, such as look-aheads")
	}
	out, unknown := m.exclude.match(name)
	if out {
		return false, nil
	}
	in, alsoUnknown := m.include.match(name)
	switch {
	case !in && alsoUnknown:
		return false, unclear(m.include.bad)
	case in && unknown:
		return false, unclear(m.exclude.bad)
	}
	return in, nil
}

// coverage is what a checkpoint connector looks after: the text in the Filter of a link's offset sync.
type coverage struct {
	Groups      filter `json:"groups"`
	Topics      filter `json:"topics"`
	Checkpoints bool   `json:"checkpoints"` // false: none are written
}

func (c coverage) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	return string(b)
}

// syncs are what the connectors do by themselves besides mirroring records.
func syncs(source, checkpoint settings) replication.Syncs {
	one := func(s settings, enabled, interval string, usual bool, seconds int) replication.Sync {
		_, set := s[enabled]
		return replication.Sync{Enabled: s.flag(enabled, usual), Interval: s.seconds(interval, seconds), Default: !set}
	}
	out := replication.Syncs{
		ACLs:   one(source, "sync.topic.acls.enabled", "sync.topic.acls.interval.seconds", true, 600),
		Topics: one(source, "refresh.topics.enabled", "refresh.topics.interval.seconds", true, 600),
	}
	out.Topics.Filter = filterText(source.topics())
	if checkpoint != nil {
		out.Offsets = one(checkpoint, "sync.group.offsets.enabled", "sync.group.offsets.interval.seconds", false, 60)
		out.Offsets.Filter = coverage{checkpoint.groups(), checkpoint.topics(), checkpoint.flag("emit.checkpoints.enabled", true)}.String()
	}
	return out
}

func filterText(f filter) string {
	b, err := json.Marshal(f)
	if err != nil {
		return ""
	}
	return string(b)
}

// refreshWait is the longest cycle after which a new topic, group or ACL has been noticed.
func refreshWait(source, checkpoint settings) time.Duration {
	var wait time.Duration
	for _, r := range []struct {
		s       settings
		what    string
		seconds int
	}{{source, "refresh.topics", 600}, {source, "sync.topic.acls", 600}, {source, "sync.topic.configs", 600}, {checkpoint, "refresh.groups", 600}, {checkpoint, "emit.checkpoints", 60}} {
		if r.s != nil && r.s.flag(r.what+".enabled", true) {
			wait = max(wait, r.s.seconds(r.what+".interval.seconds", r.seconds))
		}
	}
	return wait
}
