//go:build ignore

// Command summary reads what `go test -json` wrote: it prints the output of what failed, by name what was skipped and
// why, and one closing line. Without arguments it fails; several files make one summary. It exits with 1 if any test
// failed or if nothing ran.
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

func main() {
	output := map[string]*strings.Builder{}
	var passed, failed, skipped int
	var failures, skips []string
	for _, name := range os.Args[1:] {
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
				fmt.Println(lines.Text()) // what is no event is of the tool itself
				continue
			}
			key := e.Package + " " + e.Test
			if e.ImportPath != "" {
				key = e.ImportPath
			}
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			switch e.Action {
			case "output", "build-output":
				output[key].WriteString(e.Output)
			case "build-fail":
				failures = append(failures, key)
				failed++
			case "pass":
				if e.Test != "" {
					passed++
				}
			case "fail":
				failures = append(failures, key)
				if e.Test != "" {
					failed++
				}
			case "skip":
				if e.Test != "" { // a package without tests is no skipped test
					skipped++
					skips = append(skips, key+": "+why(output[key].String()))
				}
			}
		}
		_ = f.Close()
	}
	for _, key := range failures {
		fmt.Print(output[key])
	}
	sort.Strings(skips)
	for _, s := range skips {
		fmt.Println("skipped:", s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if len(failures) > 0 || passed == 0 {
		os.Exit(1)
	}
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
