#!/usr/bin/env bash
# Upstream's Sudoku training with hints: as train_sudoku.sh, but each of the 1,001,000 boards stands once more in the
# data with some of its blanks filled.
# Arguments go to `hrm train`: bash scripts/train_sudoku_hint.sh run_name=mine global_batch_size=384
set -euo pipefail
cd "$(dirname "$0")/.."
HRM_BIN=${HRM_BIN:-$PWD/target/release/hrm}
DATA=${DATA:-data/sudoku-extreme-1k-aug-1000-hint}

if [[ -d $DATA ]]; then
  echo "dataset: $DATA, built before"
else
  "$HRM_BIN" build-dataset --output-dir "$DATA" --subsample-size 1000 --num-aug 1000 --hint
fi
exec "$HRM_BIN" train data_path="$DATA" arch.preset=sudoku recipe=sudoku "$@"
