package runbooks

import "strings"

// Match says whether the patterns select the topic. Exclude wins; internal topics (__*, switchback.*) never match.
func (p Patterns) Match(name string) bool {
	return !internal(name) && selects(p.Include, p.Exclude, name)
}

// Match says whether the patterns select the consumer group. Exclude wins.
func (g Groups) Match(name string) bool {
	return !internal(name) && selects(g.Include, g.Exclude, name)
}

// internal names belong to Kafka and to Switchback: moving them would overwrite offsets, transactions or marks.
func internal(name string) bool {
	return strings.HasPrefix(name, "__") || strings.HasPrefix(name, "switchback.")
}

func selects(include, exclude []string, name string) bool {
	return matchAny(include, name) && !matchAny(exclude, name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if glob(p, name) {
			return true
		}
	}
	return false
}

// glob matches the whole name: * is any run of characters, ? is one. It goes back to the last * only, so that its time
// is bounded by len(pattern) * len(name) whatever somebody writes.
func glob(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	i, j, star, from := 0, 0, -1, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[j]):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
