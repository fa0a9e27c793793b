#!/usr/bin/env bash
# One GPU beside two (or more): is it the same run, how fast is it, does a checkpoint of two go on with one, and does all
# end when a rank is killed? Prints a table; wants a built hrm (HRM names it) and no network.
#
#   bash scripts/parallel_check.sh            # 2 GPUs
#   GPUS=4 STEPS=200 bash scripts/parallel_check.sh
set -euo pipefail
hrm=${HRM:-$(cd "$(dirname "$0")/.." && pwd)/target/release/hrm}
gpus=${GPUS:-2} steps=${STEPS:-120} device=${DEVICE:-cuda} keys=${KEYS:-arch.preset=sudoku}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$hrm" build-dataset --output-dir data --test-rows 400 >/dev/null

# Steps of `batch` puzzles: 1,000 puzzles an epoch. The last evaluation counts.
# shellcheck disable=SC2086
train() {
  local name=$1 batch=$2
  shift 2
  local epochs=$((steps * batch / 1000))
  "$hrm" train data_path=data checkpoint_path="$name" global_batch_size="$batch" epochs=$epochs eval_interval=$epochs \
    lr=1e-4 lr_warmup_steps=100 $keys --device "$device" "$@" >"$name.log" 2>&1 ||
    { echo "$name failed:"; cat "$name.log"; exit 1; }
}
train one 384
train again 384
train half $((384 / gpus))
train shared 384 --nproc-per-node "$gpus"
train grown $((384 * gpus)) --nproc-per-node "$gpus"
HRM_GRAPHS=0 train eager 384 --nproc-per-node "$gpus"

python3 - "$gpus" <<'PY'
import json, statistics, sys

def read(name):
    lines = [json.loads(line) for line in open(f"{name}/metrics.jsonl")]
    steps = [line for line in lines if "train/lm_loss" in line]
    # Lines of a group of steps have one time: the rate is that of all steps after the first 40.
    late = [line for line in steps if line["step"] > 40]
    ms = 1000 * (late[-1]["time"] - late[0]["time"]) / (len(late) - 20)
    evaluation = next(line for line in reversed(lines) if "all/lm_loss" in line)
    return [line["train/lm_loss"] for line in steps], ms, evaluation

gpus = int(sys.argv[1])
runs = {name: read(name) for name in ("one", "again", "shared", "eager", "grown", "half")}
base = runs["one"][0]
titles = {"one": "1 GPU, batch 384", "again": "1 GPU, once more", "shared": f"{gpus} GPUs, batch 384",
          "half": f"1 GPU, batch {384 // gpus}", "eager": f"{gpus} GPUs, batch 384, no graphs", "grown": f"{gpus} GPUs, batch {384 * gpus}"}
print(f"{'run':32} {'ms a step':>10} {'puzzles/s':>10} {'loss off, steps 1-10':>21} {'last 20':>8} {'test loss':>10}")
for name, (losses, ms, evaluation) in runs.items():
    batch = {"grown": 384 * gpus, "half": 384 // gpus}.get(name, 384)
    off = max(abs(a - b) for a, b in zip(losses[:10], base[:10])) if batch == 384 else float("nan")
    print(f"{titles[name]:32} {ms:10.2f} {1000 * batch / ms:10.0f} {off:21.2e} "
          f"{statistics.mean(losses[-20:]):8.4f} {evaluation['all/lm_loss']:10.4f}")
cost = runs["shared"][1] - runs["half"][1]
print(f"what a rank's step takes beside its own work: {cost:.2f} ms, {100 * cost / runs['shared'][1]:.1f} %")
PY

# A checkpoint of all GPUs goes on with one.
epochs=$((steps * 384 / 1000))
"$hrm" train --resume shared --force epochs=$((2 * epochs)) --device "$device" >resumed.log 2>&1 || { cat resumed.log; exit 1; }
echo "resumed on one GPU: $(grep '^done' resumed.log)"

# All end when one rank is killed, while NCCL is at work.
# shellcheck disable=SC2086
"$hrm" train data_path=data checkpoint_path=killed global_batch_size=384 epochs=10000000 eval_interval=10000000 $keys \
  --device "$device" --nproc-per-node "$gpus" >killed.log 2>&1 &
launcher=$!
until grep -qs 'train/lm_loss' killed/metrics.jsonl; do
  kill -0 "$launcher" || { cat killed.log; exit 1; }
  sleep 1
done
sleep 2
kill -KILL "$(pgrep -P "$launcher" | tail -n 1)"
began=$SECONDS
code=0
wait "$launcher" || code=$?
echo "one rank killed: exit code $code after $((SECONDS - began)) s: $(tail -n 1 killed.log)"
[ "$code" -ne 0 ]
