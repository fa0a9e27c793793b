#!/usr/bin/env bash
# Gathers what the campaigns need on a machine without Rust: the program, the fuzz targets, faults.so, the scripts and
# their small data. There python3 and a libtorch 2.11 are enough, found through LD_LIBRARY_PATH or Python's torch.
#
#   scripts/reliability/pack.sh DIR     builds, fills DIR and writes DIR.tar.xz; HRM=FILE takes that program instead, and
#                                       FUZZ=DIR the targets that fuzz.py --build DIR made before
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$1
mkdir -p "$out/target/release" "$out/fuzz/bin"
if [ -z "${HRM:-}" ]; then
  cargo build --release --bin hrm
  HRM=target/release/hrm
fi
if [ -n "${FUZZ:-}" ]; then
  cp "$FUZZ"/* "$out/fuzz/bin/"
else
  python3 scripts/reliability/fuzz.py --build "$out/fuzz/bin"
fi
strip -o "$out/target/release/hrm" "$HRM"
gcc -O2 -shared -fPIC -o "$out/faults.so" scripts/reliability/faults.c -ldl
tar -c scripts/reliability/*.py scripts/reliability/*.sh data/sudoku-extreme-{train-1k,test-10k}.csv.gz fuzz/seeds \
  tests/golden/e2e/run_b | tar -x -C "$out"
tar -C "$(dirname "$out")" -c "$(basename "$out")" | xz -T0 >"$out.tar.xz"
ls -l "$out.tar.xz"
