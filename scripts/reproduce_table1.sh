#!/usr/bin/env bash
# The paper's Table 1: exact accuracy on Sudoku-Extreme of one vanilla checkpoint, of nine relabellings, of the last ten
# checkpoints, of training with hints, and of all together. Resumable: the same command goes on where it was stopped.
#
#   scripts/reproduce_table1.sh VANILLA... -- HINT...    checkpoints in the order of their steps; the last one of each
#                                                        stands for the rows of a single checkpoint
#   scripts/reproduce_table1.sh VANILLA... --            one half alone, say on the machine that trained it
#   scripts/reproduce_table1.sh -- HINT...
#   scripts/reproduce_table1.sh --table DIR...           the table from the results of halves that were run before
#
# Environment: OUT (table1) the folder for results; ROWS (10000) bundled test rows of the rows with one checkpoint,
# ROWS_TEN (2000) of those with ten; DATA, a dataset folder whose test split is taken instead, whole; PROCESSES, the
# processes of `hrm infer --nproc-per-node`; HRM_BIN.
# Writes OUT/NAME.jsonl (every pass), .json, .png (solved with the first k passes), table1.md and table1.json.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
HRM_BIN=${HRM_BIN:-$here/../target/release/hrm}
OUT=${OUT:-table1}

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  exit "$1"
}

case ${1:-} in
-h | --help) usage 0 ;;
"") usage 2 >&2 ;;
--table)
  shift
  exec python3 "$here/table1.py" "$@"
  ;;
esac

vanilla=() hint=() seen=
for argument; do
  if [[ $argument = -- ]]; then
    seen=1
  elif [[ $seen ]]; then
    hint+=("$argument")
  else
    vanilla+=("$argument")
  fi
done
[[ $seen ]] || { echo "reproduce_table1.sh: no -- between vanilla and hint checkpoints (--help has the details)" >&2; exit 2; }
if (( ${#vanilla[@]} + ${#hint[@]} == 0 )); then
  echo "reproduce_table1.sh: no checkpoints (--help has the details)" >&2
  exit 2
fi

mkdir -p "$OUT"
run() { # NAME ROWS PERMUTES CHECKPOINT...
  local name=$1 rows=$2 permutes=$3
  shift 3
  local puzzles=(--bundled "$rows")
  [[ -z ${DATA:-} ]] || puzzles=(--data-path "$DATA")
  echo "== $name: $# checkpoint(s), $permutes relabelling(s), ${puzzles[*]}"
  local IFS=,
  "$HRM_BIN" infer --checkpoints "$*" --permutes "$permutes" "${puzzles[@]}" --compare-stops \
    --output "$OUT/$name.jsonl" --resume --force --json "$OUT/$name.json" --plot "$OUT/$name.png" \
    ${PROCESSES:+--nproc-per-node "$PROCESSES"} >"$OUT/$name.txt"
  tail -1 "$OUT/$name.txt"
}

if (( ${#vanilla[@]} )); then
  run vanilla "${ROWS:-10000}" 1 "${vanilla[-1]}"
  run vanilla-relabelled "${ROWS:-10000}" 9 "${vanilla[-1]}"
  run vanilla-checkpoints "${ROWS_TEN:-2000}" 1 "${vanilla[@]}"
fi
if (( ${#hint[@]} )); then
  run hint "${ROWS:-10000}" 1 "${hint[-1]}"
  run all "${ROWS_TEN:-2000}" 9 "${hint[@]}"
fi
exec python3 "$here/table1.py" "$OUT"
