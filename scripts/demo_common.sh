# What `make demo` and `make demo-train` share; to be sourced by a script that has set NAME and stands in scripts/.
# HRM_BIN names the program (default: target/release/hrm).
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HRM_BIN=${HRM_BIN:-$PWD/target/release/hrm}
# Threads that wait for each other by spinning are very slow where other programs want the cores too.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

if [[ ! -x $HRM_BIN ]]; then
  echo "$NAME: $HRM_BIN is not there: run 'make build' first, or 'make $NAME', which does both" >&2
  exit 1
fi
trap 'printf "\n%s: stopped; what was finished lies under demo/, and make %s starts again\n" "$NAME" "$NAME" >&2; exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 ]] || say() { printf '\n%s\n' "$*"; }
show() { printf '$ hrm %s\n' "$*"; }
hrm() {
  show "$@"
  "$HRM_BIN" "$@"
}
