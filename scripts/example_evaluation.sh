#!/usr/bin/env bash
# Upstream's example evaluation: the last ten checkpoints of a run, nine relabellings each, 10 batches of 100 puzzles.
#   bash scripts/example_evaluation.sh [RUN FOLDER] [more arguments for hrm infer]
# That is a snapshot. All test puzzles, with what is solved not done again and results kept as they come:
#   NUM_BATCH= bash scripts/example_evaluation.sh RUN --stop verified --output results.jsonl --resume
set -euo pipefail
cd "$(dirname "$0")/.."
HRM_BIN=${HRM_BIN:-$PWD/target/release/hrm}
RUN='checkpoint_example/Sudoku-extreme-1k-aug-1000-hint ACT-torch/HierarchicalReasoningModel_ACTV1 military-salamander'
if [[ $# -gt 0 && $1 != -* ]]; then
  RUN=$1
  shift
fi

# The ten largest steps, smallest first.
steps=$(find "$RUN" -maxdepth 1 -name 'step_*' | sed 's/.*step_//' | grep -E '^[0-9]+$' | sort -n | tail -n 10) || true
if [[ -z $steps ]]; then
  echo "example_evaluation: no step_N in '$RUN': name a run folder" >&2
  exit 1
fi
checkpoints=()
for step in $steps; do
  checkpoints+=(--checkpoints "$RUN/step_$step")
done
batches=()
if [[ -n ${NUM_BATCH-10} ]]; then
  batches=(--num-batch "${NUM_BATCH-10}" --batch-size 100)
fi
exec "$HRM_BIN" infer "${checkpoints[@]}" --permutes 9 "${batches[@]}" "$@"
