#!/bin/sh
# Builds the fuzz targets with the compiler that builds everything else, and runs them: `fuzz/run.sh [SECONDS [TARGET...]]`, by default all,
# 30 seconds each. Ends with 1 if one of them has found something; what it found is in fuzz/artifacts, and as an argument of the target's program
# does it again.
#
# `cargo fuzz` asks for a nightly compiler for its address sanitizer; coverage alone needs flags that every compiler has. Nothing is installed.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cd targets && ls | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
[ -e Cargo.lock ] || cp ../Cargo.lock Cargo.lock
# With the checks of a debug build, and optimised a little, as some targets do much for each input.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# With --target, what runs at build time is not instrumented.
cargo build --target "$host"
programs=${CARGO_TARGET_DIR:-target}/$host/debug

# Targets make stores and trees: on a disk they would wait for it all the time.
TMPDIR=$(mktemp -d -p /dev/shm)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
mkdir -p artifacts
failed=
for target; do
    mkdir -p "corpus/$target"
    echo "== $target"
    "$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target-" "corpus/$target" >"$TMPDIR/said" 2>&1 || failed="$failed $target"
    sed -n '/executed_units/p; /panicked/,$p; /ERROR/,$p' "$TMPDIR/said"
done
[ -z "$failed" ] || { echo "found something:$failed" >&2; exit 1; }
