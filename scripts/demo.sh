#!/usr/bin/env bash
# `make demo`: the example checkpoints solve real puzzles, and what happens in them is drawn; under a minute on two cores.
# HRM_BIN names the program (default: target/release/hrm). Running it again replaces what it made under demo/.
set -euo pipefail
NAME=demo
. "$(dirname "$0")/demo_common.sh"

vanilla=checkpoint_example/sudoku-mini
hint=checkpoint_example/sudoku-mini-hint
began=$SECONDS
mkdir -p demo
rm -rf demo/stability demo/trajectory.png demo/landscape

say "1/4  A puzzle of Sudoku-Extreme that takes a solver 51 guesses, segment by segment (test row 23)"
how=(--steps)
if [[ -t 1 ]]; then how=(--animate); fi
hrm solve --checkpoint $vanilla --dtype f32 --device cpu "${how[@]}" \
  ....24.6....9.....6...5.....8....9..9....3.7437.4..68.46....79..3.67..488....9...

say "2/4  Three more, each in up to three relabellings until an answer keeps every rule; the last is beyond this model"
printf '%s\n' \
  ....2.4....17...5........8.62....14...7..6...4.9.1...71..6.....29..476...7.2...9. \
  ...4.3..77...6..5...6...4.8...38.6...85..4.3.6...57...........33.1..5.....28..... \
  3.41..5....6....3..5......1.....6..2..2.7.8...3.5...4...3..89...4.3...6.7...9.... |
  hrm solve --checkpoint $vanilla --dtype f32 --device cpu --passes 3 -

say "3/4  The path of its hidden state while it solves the first, and the errors around the state that it ends in"
hrm viz trajectory --checkpoint $vanilla --dtype f32 --device cpu --points segment --output demo/trajectory.png \
  --puzzle ....24.6....9.....6...5.....8....9..9....3.7437.4..68.46....79..3.67..488....9...
hrm viz landscape --checkpoint $vanilla --dtype f32 --device cpu --step 4 --density 0.4 --output-dir demo/landscape --force \
  --puzzle ....24.6....9.....6...5.....8....9..9....3.7437.4..68.46....79..3.67..488....9...

say "4/4  One blank left: does a trained model solve that? Vanilla beside hint"
hrm analyze stability --checkpoints $vanilla,$hint --dtype f32 --device cpu --blanks 1 --per-k 8 --segments 16 \
  --output-dir demo/stability --force

say "Where everything lies (after $((SECONDS - began)) s)"
cat <<'TEXT'
  demo/trajectory.png   the hidden state's path, the answer, the cells right after each segment
  demo/landscape/       the error landscape as a map and as a surface, its numbers
  demo/stability/       the table above, a picture, the numbers

The models have 6.8M parameters and trained for ten minutes on one GPU: checkpoint_example/sudoku-mini/README.md.

What to try next, with hrm standing for target/release/hrm:
  hrm solve --checkpoint checkpoint_example/sudoku-mini --animate YOUR_PUZZLE
  hrm infer --checkpoint checkpoint_example/sudoku-mini --bundled 100 --stop verified --permutes 9
  hrm report --checkpoint checkpoint_example/sudoku-mini
  hrm viz trajectory --checkpoint checkpoint_example/sudoku-mini --index 8 -o eight.gif
  make demo-train      # a model of your own, in a few minutes

TEXT
echo "The picture: demo/trajectory.png"
