#!/usr/bin/env python3
"""Makes .interop/, the Python environment of `make test-interop`: full torch 2.11 for the CPU, numpy, safetensors and more.

Made once; made again when the requirement files or the Python change. Every failure is one line, and exit status 1.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = [os.path.join(ROOT, "tests", "interop", name) for name in ("requirements.txt", "requirements-torch.txt")]
ENV = os.path.join(ROOT, ".interop")
STAMP = os.path.join(ENV, ".installed")


def fingerprint():
    digest = hashlib.sha256("{} {}".format(os.path.realpath(sys.executable), sys.version).encode())
    for path in FILES:
        with open(path, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def is_current():
    try:
        with open(STAMP) as f:
            return f.read() == fingerprint()
    except OSError:
        return False


def run(command, log, failed):
    with open(log, "ab") as errors:
        status = subprocess.call(command, stdin=subprocess.DEVNULL, stderr=errors,
                                 stdout=None if sys.stdout.isatty() else subprocess.DEVNULL)
    if status != 0:
        sys.exit("test-interop: {}; the messages are in {}".format(failed, log))


def main():
    if is_current():
        return
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        sys.exit("test-interop: torch 2.11 has no package for Python {}.{}: name one from 3.10 to 3.14, "
                 "make test-interop PYTHON=/path/python3".format(*sys.version_info[:2]))
    started = time.time()
    print("test-interop: installing torch 2.11 and more into .interop/ (2.3 GB to fetch, 3.5 GB on disk)", flush=True)
    shutil.rmtree(ENV, ignore_errors=True)
    log = ENV + ".log"
    if os.path.exists(log):
        os.remove(log)
    run([sys.executable, "-m", "venv", ENV], log,
        "{} cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)".format(sys.executable))
    pip = [os.path.join(ENV, "bin", "python"), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]
    failed = "pip failed: check the network, then run it again"
    run(pip + ["-r", FILES[0]], log, failed)
    run(pip + ["--no-deps", "-r", FILES[1]], log, failed)
    run([os.path.join(ENV, "bin", "python"), "-c", "import torch, torch.distributed.run"], log,
        "torch was installed but cannot be imported")
    with open(STAMP, "w") as f:
        f.write(fingerprint())
    os.remove(log)
    print("test-interop: .interop/ is ready after {:.0f} s".format(time.time() - started), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("test-interop: interrupted; run it again to begin again")
