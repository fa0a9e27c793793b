#!/usr/bin/env bash
# Makes sure of a headless Chromium and its driver for tests/interop/test_report.py. Debian and Ubuntu, as root; elsewhere
# it says what to install.
set -euo pipefail

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
  exit 0
fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "setup_browser: install chromium and chromedriver (Debian: apt-get install chromium chromium-driver)" >&2
  exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "setup_browser: installing chromium and chromium-driver"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "setup_browser: apt-get failed" >&2
  exit 1
fi
