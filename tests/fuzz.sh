#!/usr/bin/env bash
# fuzz.sh RUNS|SECONDSs [PARSER...]: feeds every parser of the node (node/src/parsers.rs), or those named, with so many
# inputs, or for so many seconds each (600s), that libFuzzer makes from those in tests/fuzz/corpus. `KEEP=1` adds what
# reached something new to that corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
amount=${1:?how many inputs, or for how many seconds (600s)}
shift

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# Our own crates tell libFuzzer which of their edges were taken; what they depend on is built as ever.
export RUSTC_WORKSPACE_WRAPPER="$PWD/tests/fuzz/rustc-with-coverage"
"$cargo" build --locked --package quorate-fuzz --bin fuzz
unset RUSTC_WORKSPACE_WRAPPER

case $amount in
  *s) limit=(-max_total_time="${amount%s}") ;;
  # The same inputs each time.
  *) limit=(-runs="$amount" -seed=1) ;;
esac
parsers=("$@")
if [ ${#parsers[@]} = 0 ]; then
  for folder in tests/fuzz/corpus/*/; do parsers+=("$(basename "$folder")"); done
fi

work=$target/fuzz
mkdir -p "$work"
failed=0
for parser in "${parsers[@]}"; do
  corpus=tests/fuzz/corpus/$parser
  rm -rf "${work:?}/$parser"
  mkdir -p "$work/$parser" "$corpus"
  log=$work/$parser.log
  echo "== fuzzing $parser, $amount"
  if PARSER=$parser "$target/debug/fuzz" "${limit[@]}" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="$work/$parser-" "$work/$parser" "$corpus" >"$log" 2>&1; then
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    echo "figure: $parser: $inputs inputs, $edges edges, nothing found"
    if [ -n "${KEEP:-}" ]; then
      PARSER=$parser "$target/debug/fuzz" -merge=1 -verbosity=0 "$corpus" "$work/$parser" 2>>"$log"
    fi
  else
    failed=1
    tail -n 40 "$log"
    echo "$parser: found something; the input is the artifact above. Again: PARSER=$parser $target/debug/fuzz ARTIFACT" >&2
  fi
done
exit "$failed"
