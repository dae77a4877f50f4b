#!/usr/bin/env bash
# Runs tests and says at the end how many passed, and by name what was skipped and why: tests.sh FOLDER GO-TEST-ARGUMENTS...
# What failed is shown in full, what passed is not. The summaries of all runs are kept in out/tests for `make test`.
#
# AGAIN=3 repeats up to so many failed tests once, for tests that play whole systems against the clock: one that passes
# then is named as unsteady, above the closing line, and does not fail the whole.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift
mkdir -p "$root/out/tests"
summary() { "${GO:-go}" run "$root/scripts/summary.go" "$@"; }
log=$root/out/tests/$(date +%s%N).json
logs=("$log")
code=0
(cd "$root/$folder" && "${GO:-go}" test -json "$@") >"$log" || code=$?
if [ "$code" != 0 ] && [ "${AGAIN:-0}" != 0 ]; then
	mapfile -t failed < <(summary -failed "$log")
	if [ "${#failed[@]}" -gt 0 ] && [ "${#failed[@]}" -le "$AGAIN" ]; then
		summary "$log" || true
		echo "Once more: ${failed[*]}"
		again=$root/out/tests/$(date +%s%N).json
		logs+=("$again")
		code=0
		(cd "$root/$folder" && "${GO:-go}" test -json "$@" -run "^($(IFS='|'; echo "${failed[*]}"))\$") >"$again" || code=$?
	fi
fi
summary "${logs[@]}" || code=$?
exit "$code"
