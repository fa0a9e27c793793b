#!/usr/bin/env bash
# `make demo-train`: puzzles -> dataset -> a small model -> its answers -> a picture, all of it under demo/.
# HRM_BIN names the program (default: target/release/hrm). Running it again replaces what it made.
set -euo pipefail
NAME=demo-train
. "$(dirname "$0")/demo_common.sh"

# A slow or busy machine still comes to an end: training is then stopped early, with a checkpoint.
LONGEST=${DEMO_SECONDS:-240}

mkdir -p demo
rm -rf demo/data demo/run demo/answers.json demo/young.png

say "1/4  A dataset: 1,000 real Sudoku-Extreme puzzles, 20 shuffles of each, every board once more with hints"
hrm build-dataset --output-dir demo/data --num-aug 20 --hint --test-rows 200

say "2/4  Training a very small HRM on the CPU: about two minutes on two cores"
train=(train data_path=demo/data checkpoint_path=demo/run
  epochs=32 eval_interval=32 global_batch_size=32
  lr=1e-3 lr_warmup_steps=50 lr_min_ratio=0.1 weight_decay=1.0 puzzle_emb_lr=1e-3
  arch.hidden_size=64 arch.num_heads=4 arch.H_layers=1 arch.L_layers=1 arch.halt_max_steps=8
  --dtype f32 --device cpu)
show "${train[@]}"
limit=()
if command -v timeout >/dev/null; then
  limit=(timeout --foreground --signal=INT "$LONGEST")
fi
code=0
"${limit[@]}" "$HRM_BIN" "${train[@]}" || code=$?
if [[ $code == 124 ]]; then
  echo "This machine is slow or busy: training was stopped after $LONGEST s, and goes on with what it has learned."
elif [[ $code != 0 ]]; then
  exit "$code"
fi

say "3/4  Its answers to 200 test puzzles that it has never seen, each in 3 relabellings"
hrm infer --checkpoint demo/run --permutes 3 --device cpu --json demo/answers.json

say "4/4  A picture of its hidden state while it works on the first of them"
hrm viz trajectory --checkpoint demo/run --device cpu --output demo/young.png --force

say "Where everything lies"
cat <<'TEXT'
  demo/data/            the dataset, in upstream's format
  demo/run/             all_config.yaml, metrics.jsonl (a line a step), step_N/ with the weights
  demo/answers.json     the accuracies above, and for each puzzle whether it was solved
  demo/young.png        the picture

This model is young: 0.13M parameters and two minutes. It has learned to copy the givens and some of what rows, columns
and boxes forbid; it solves no hard puzzle, and a few minutes on a CPU make none that does. The 27M model of the paper
wants a GPU: bash scripts/train_sudoku.sh. `make demo` shows what trained checkpoints do.

What to try next, with hrm standing for target/release/hrm:
  hrm viz trajectory --checkpoint demo/run --index 7 --output demo/seven.svg
  hrm viz trajectory --checkpoint demo/run --output demo/mine.png \
      --puzzle 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
  hrm checkpoint inspect demo/run
  hrm checkpoint convert demo/run demo/upstream --to torch
  hrm train --help

TEXT
echo "The picture: demo/young.png"
