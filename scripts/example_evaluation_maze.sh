#!/usr/bin/env bash
# Upstream's example evaluation of mazes: as they are, and with start and goal swapped.
#   bash scripts/example_evaluation_maze.sh [CHECKPOINT] [more arguments for hrm infer]
# Maze-Hard has 1,000 test puzzles. A maze has two permutations; --symmetries makes sixteen.
set -euo pipefail
cd "$(dirname "$0")/.."
HRM_BIN=${HRM_BIN:-$PWD/target/release/hrm}
CHECKPOINT=checkpoints/Maze/maze/checkpoint
if [[ $# -gt 0 && $1 != -* ]]; then
  CHECKPOINT=$1
  shift
fi
exec "$HRM_BIN" infer --checkpoints "$CHECKPOINT" --dataset maze --num-batch 10 --batch-size 100 --permutes 2 "$@"
