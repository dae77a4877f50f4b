//go:build ignore

// Command summary reads what `go test -json` wrote: it prints the output of what failed, by name what was skipped and
// why, and one closing line. Several files make one summary; what failed in one and passed in a later one was repeated,
// and is named as unsteady. It exits with 1 if any test failed or if nothing ran. With -failed it prints the names of the
// tests that failed, and nothing if something failed that is no test.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
}

// result is the last that is known of a test, a package or a build.
type result struct {
	event
	output   *strings.Builder
	unsteady bool
}

func main() {
	files := os.Args[1:]
	names := len(files) > 0 && files[0] == "-failed"
	if names {
		files = files[1:]
	}
	results := map[string]*result{}
	var order []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "summary:", err)
			os.Exit(2)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				if !names {
					fmt.Println(lines.Text()) // what is no event is of the tool itself
				}
				continue
			}
			key := e.Package + " " + e.Test
			if e.ImportPath != "" {
				key = e.ImportPath
			}
			r := results[key]
			if r == nil {
				r = &result{output: &strings.Builder{}}
				results[key] = r
				order = append(order, key)
			}
			switch e.Action {
			case "output", "build-output":
				r.output.WriteString(e.Output)
			case "pass", "fail", "build-fail", "skip":
				r.unsteady = r.unsteady || r.Action == "fail" && e.Action == "pass"
				r.event = e
			}
		}
		_ = f.Close()
	}
	if names {
		printFailed(results, order)
		return
	}
	os.Exit(print(results, order))
}

// printFailed prints the tests to repeat. A package that failed beside its tests, or did not build, is not to be repeated.
func printFailed(results map[string]*result, order []string) {
	var tests []string
	in := map[string]bool{}
	for _, key := range order {
		if r := results[key]; r.Action == "fail" && r.Test != "" {
			in[r.Package] = true
			if !strings.Contains(r.Test, "/") {
				tests = append(tests, r.Test)
			}
		}
	}
	for _, key := range order {
		if r := results[key]; r.Action == "build-fail" || r.Action == "fail" && r.Test == "" && !in[r.Package] {
			return
		}
	}
	for _, t := range tests {
		fmt.Println(t)
	}
}

func print(results map[string]*result, order []string) int {
	var passed, failed, skipped int
	var notes []string
	well := true
	for _, key := range order {
		r := results[key]
		if top, _, sub := strings.Cut(r.Test, "/"); sub && r.Action == "fail" && results[r.Package+" "+top].Action == "pass" {
			continue // its test was repeated, and had no such part then
		}
		switch r.Action {
		case "fail", "build-fail":
			well = false
			fmt.Print(r.output)
			if r.Test != "" || r.Action == "build-fail" {
				failed++
			}
		case "pass":
			if r.Test != "" {
				passed++
				if r.unsteady {
					notes = append(notes, "unsteady: "+key+" failed once and passed when it was repeated")
				}
			}
		case "skip":
			if r.Test != "" { // a package without tests is no skipped test
				skipped++
				notes = append(notes, "skipped: "+key+": "+why(r.output.String()))
			}
		}
	}
	sort.Strings(notes)
	for _, n := range notes {
		fmt.Println(n)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if !well || passed == 0 {
		return 1
	}
	return 0
}

// why is the reason that a test gave for skipping itself.
func why(output string) string {
	var reason []string
	for _, line := range strings.Split(output, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- SKIP") {
			reason = append(reason, line)
		}
	}
	if len(reason) == 0 {
		return "it does not say why"
	}
	return strings.Join(reason, " ")
}
