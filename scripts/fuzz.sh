#!/usr/bin/env bash
# Runs every fuzz target of the product for a short time each: fuzz.sh TIME
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rEn --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+\(' . | grep -v '^./lab/' | while IFS=: read -r file _ line; do
  target=${line#func }
  target=${target%%(*}
  echo "fuzz $target in $(dirname "$file") for $1"
  "${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$(dirname "$file")" </dev/null
done
