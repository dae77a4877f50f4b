package runbooks

import (
	"fmt"
	"slices"
	"strings"
)

// inlineSecrets are keys under which people put what must never stand in a runbook.
var inlineSecrets = []string{"password", "passwd", "secret", "token", "apikey", "api_key", "apisecret", "username", "jaas", "sasl.jaas.config"}

func unknownKey(name string, known []string) string {
	if slices.Contains(inlineSecrets, strings.ToLower(name)) {
		return "secrets never stand in a runbook: keep them in Vault and name the place, credentials: {vault: <mount>/<path>}"
	}
	if hint := didYouMean(name, known); hint != "" {
		return "is an unknown key" + hint
	}
	return "is an unknown key: known here are " + strings.Join(known, ", ")
}

// didYouMean is a hint at the nearest known word, or "".
func didYouMean(word string, known []string) string {
	if best := nearest(word, known); best != "" && len(known) > 1 {
		return fmt.Sprintf(" (did you mean %s?)", best)
	}
	return ""
}

// nearest is the known word that is near enough to be meant, but for a slip of the keyboard; "" if there is none.
func nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if n := distance(strings.ToLower(word), strings.ToLower(k)); n < least && n < len(k) {
			best, least = k, n
		}
	}
	return best
}

// distance is how many letters must be added, removed or changed (Levenshtein); words that differ in length by three or more
// are simply far.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
