#!/usr/bin/env bash
# Runs tests and says at the end how many passed, and by name what was skipped and why: tests.sh FOLDER GO-TEST-ARGUMENTS...
# What failed is shown in full, what passed is not. The summaries of all runs are kept in out/tests for `make test`.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift
mkdir -p "$root/out/tests"
log=$(mktemp "$root/out/tests/XXXXXX.json")
code=0
(cd "$root/$folder" && "${GO:-go}" test -json "$@") >"$log" || code=$?
"${GO:-go}" run "$root/scripts/summary.go" "$log" || code=$?
exit "$code"
