#!/usr/bin/env bash
# All campaigns at once for MINUTES on JOBS cores: kills, failing disks, the hostile hub, and the fuzz targets for ten
# minutes of it at most. Results are small files in OUT, rewritten while it works: a cut leaves what was found.
#
#   scripts/reliability/run.sh DIR MINUTES JOBS [OUT]     DIR: as pack.sh made it; OUT: DIR/results
set -uo pipefail

dir=$(cd "$1" && pwd)
minutes=$2 jobs=$3 out=${4:-$dir/results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
hrm=$dir/target/release/hrm
scripts=$dir/scripts/reliability

if ! "$hrm" --version >/dev/null 2>&1; then
  libraries=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
"$hrm" --version || exit 1

# Trials are small and many: in memory where there is room for them.
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 8000000 ]; then
  export TMPDIR=/dev/shm
fi

# A core for each fuzz target, an eighth for the hub, and kills and disks share what is left.
targets=$(ls "$dir/fuzz/bin" | wc -l)
fuzz=$((targets * 2 < jobs ? targets : (jobs + 2) / 3))
hub=$(((jobs + 7) / 8))
rest=$(((jobs - fuzz - hub + 1) / 2))
rest=$((rest > 0 ? rest : 1))
limit=$((minutes * 60 - 20))
fuzz_minutes=$((minutes - 1 < 10 ? (minutes > 1 ? minutes - 1 : 1) : 10))

began=$SECONDS
pids=()
start() { # NAME COMMAND...
  local name=$1
  shift
  python3 "$@" >"$out/$name.log" 2>&1 &
  pids+=($!)
}
trap 'kill "${pids[@]}" 2>/dev/null' INT TERM
start fuzz "$scripts/fuzz.py" "$dir/fuzz/bin" --minutes "$fuzz_minutes" --jobs "$fuzz" --output "$out/fuzz"
start kills "$scripts/kills.py" --hrm "$hrm" --faults "$dir/faults.so" --jobs "$rest" --time-limit "$limit" --output "$out"
start disk "$scripts/disk.py" --hrm "$hrm" --faults "$dir/faults.so" --jobs "$rest" --time-limit "$limit" --output "$out"
start hub "$scripts/hub.py" --hrm "$hrm" --count 3000 --jobs "$hub" --time-limit "$limit" --output "$out"
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done

# Only what is small stays.
rm -rf "$out/fuzz/corpus"
tail -q -c 20000 "$out"/fuzz/*.log >"$out/fuzz/last-lines.txt" 2>/dev/null
rm -f "$out"/fuzz/*-[0-9]*.log
for name in kills disk hub fuzz/fuzz; do
  echo
  cat "$out/$name.txt"
done
echo "$((SECONDS - began)) s in all; failures and findings: $out/*.json, $out/fuzz/fuzz.json"
exit $failed
