#!/usr/bin/env bash
# What only a GPU can check: the fused kernels and CUDA graphs against the plain form, the golden cases on the GPU, many
# processes on one kernel cache, exact resume. Prints a line for each check and ends with an error if one failed.
#
#   scripts/gpu_check.sh --pack DIR   builds the program and its tests here and copies them, stripped, into DIR
#   scripts/gpu_check.sh DIR          runs them on a machine with a GPU (no Rust needed; libtorch in LD_LIBRARY_PATH)
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS=(kernels graphs model gradients losses optim train_step)

if [ "${1:-}" = --pack ]; then
  out=$2
  mkdir -p "$out"
  cargo build --release --bin hrm
  cp target/release/hrm "$out/hrm"
  cargo test --release --no-run --message-format json "${TESTS[@]/#/--test=}" 2>/dev/null |
    python3 -c '
import json, shutil, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made.get("profile", {}).get("test"):
        shutil.copy(made["executable"], sys.argv[1] + "/t_" + made["target"]["name"])
' "$out"
  strip "$out"/hrm "$out"/t_*
  ls -l "$out"
  exit
fi

dir=$(cd "$1" && pwd)
hrm=$dir/hrm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HRM_TEST_DEVICE=cuda HRM_GOLDEN=$PWD/tests/golden
failed=0

check() { # NAME COMMAND...
  local name=$1 began=$SECONDS
  shift
  if "$@" >"$work/log" 2>&1; then
    printf 'ok      %-44s %3d s  %s\n' "$name" $((SECONDS - began)) "$(grep -h '^test result' "$work/log" | head -1 | cut -d. -f2 | cut -d';' -f1)"
  else
    printf 'FAILED  %s\n' "$name"
    tail -40 "$work/log"
    failed=1
  fi
}

for name in "${TESTS[@]}"; do
  case $name in
  kernels | graphs) check "$name" "$dir/t_$name" --ignored --test-threads 1 ;;
  *) check "$name" "$dir/t_$name" --test-threads 1 ;;
  esac
done

# Eight processes find an empty cache at once; each must compute, and leave nothing half written.
race() {
  export XDG_CACHE_HOME=$work/cache
  local pids=() pid
  for i in 1 2 3 4 5 6 7 8; do
    "$hrm" bench infer --batch-size 8 --steps 1 --warm 1 >"$work/race$i" 2>&1 &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
  ! grep -l warning "$work"/race? || return 1
  [ -z "$(find "$XDG_CACHE_HOME" -name '*.part')" ]
  # A truncated file is compiled again.
  local file
  file=$(find "$XDG_CACHE_HOME" -name 'norm-*.cubin' | head -1)
  head -c 1000 "$file" >"$file.cut" && mv "$file.cut" "$file"
  "$hrm" bench infer --batch-size 8 --steps 1 --warm 1
  [ "$(stat -c %s "$file")" -gt 1000 ]
}
check "eight processes on one kernel cache" race

# Stopped halfway and gone on with, against undisturbed: equal files with --deterministic.
resume() {
  cd "$work"
  "$hrm" build-dataset --output-dir data --subsample-size 256 --test-rows 64 --num-aug 3 --hint --force
  local keys="data_path=data global_batch_size=64 epochs=40 eval_interval=20 arch.hidden_size=128 arch.num_heads=4
    ema_decay=0.99 checkpoint_every_steps=100 $1"
  # shellcheck disable=SC2086
  "$hrm" train $keys checkpoint_path=whole --deterministic
  # shellcheck disable=SC2086
  "$hrm" train $keys checkpoint_path=half --deterministic
  rm -r half/step_160
  "$hrm" train --resume half --deterministic
  grep -q '"resumed_at_step":100' half/metrics.jsonl
  for file in model.safetensors ema.safetensors training.safetensors; do
    cmp "whole/step_160/$file" "half/step_160/$file"
  done
  python3 - <<'PY'
import json
def lines(run):
    rows = [json.loads(line) for line in open(run + "/metrics.jsonl")]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows if "step" in row]
assert lines("whole") == lines("half")
PY
  rm -r whole half
}
check "resume, bit for bit" resume ""
check "resume, parts of a batch, online shuffles" resume "grad_accum=2 augment=online"

exit $failed
