#!/usr/bin/env python3
"""Puts libtorch 2.11.0 where the build looks for it (third_party/libtorch/torch), once.

Called by the Makefile; needs only Python's standard library and pip. In this order it takes
  1. a LIBTORCH that you exported: its version is checked, nothing is fetched;
  2. the torch 2.11 of a Python that you point at (make build TORCH_PYTHON=/path/python, or
     LIBTORCH_USE_PYTORCH=1 for the python3 in PATH): third_party/libtorch/torch becomes a link to it;
  3. what an earlier run installed;
  4. the wheel from the package index that pip is set up for: the lean one (0.5 GB to fetch, 1.2 GB on disk), or,
     where an NVIDIA GPU is seen or with CUDA=1, the full one with NVIDIA's libraries (CUDA=0 declines).
Every failure is one line that says what to do, and exit status 1.
"""

import argparse
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

VERSION = "2.11.0"
# libtorch_cpu.so names libcudart and libcupti of NVIDIA's, and no more. The crt headers let the CUDA graph plugin compile.
LEAN = ["torch==" + VERSION, "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85", "nvidia-cuda-crt==13.0.88"]
LEAN_SIZE = "0.5 GB to fetch, 1.2 GB on disk"
FULL_SIZE = "2.7 GB to fetch, 4.8 GB on disk"
LEAN_ROOM, FULL_ROOM = 3 << 30, 11 << 30  # wheels and their contents lie on the disk together for a while
MARKER = ".installed.json"
OLDEST_PIP = (20, 3)
OLDEST_RUST = (1, 88)


class Failure(Exception):
    """One line for the user."""


def main():
    args = parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    dest = os.path.abspath(args.dest or os.path.join(root, "third_party", "libtorch"))
    check_rust()
    check_compiler()

    exported = os.environ.get("LIBTORCH", "")
    if exported and os.path.abspath(exported) != os.path.join(dest, "torch"):
        check_libtorch(exported, "LIBTORCH={}".format(exported))
        say("libtorch {} of LIBTORCH={} is used".format(VERSION, exported))
        return
    python = args.torch_python or (python_in_path() if os.environ.get("LIBTORCH_USE_PYTORCH") else "")
    os.makedirs(os.path.dirname(dest), exist_ok=True)
    with Lock(dest + ".lock"):
        if python:
            link_to_python(python, dest)
        else:
            install(dest, args.cuda)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", choices=["auto", "0", "1"], default="auto", help="fetch NVIDIA's libraries too")
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON", ""), metavar="PYTHON",
                        help="use the torch {} that this Python has".format(VERSION))
    parser.add_argument("--dest", metavar="DIR", help="where to install (default: third_party/libtorch)")
    return parser.parse_args()


def say(text):
    print("setup: " + text, flush=True)


# --- what must be there already ---------------------------------------------------------------------------------------


def check_rust():
    cargo = os.environ.get("CARGO") or shutil.which("cargo")
    if not cargo:
        raise Failure("cargo (Rust) is not in PATH: install Rust {}.{} or newer, see rust-lang.org/tools/install"
                      .format(*OLDEST_RUST))
    rustc = os.path.join(os.path.dirname(cargo), "rustc")
    status, text = output_of([rustc if os.path.exists(rustc) else "rustc", "--version"])
    found = re.search(r"(\d+)\.(\d+)", text) if status == 0 else None
    if found and tuple(map(int, found.groups())) < OLDEST_RUST:
        raise Failure("Rust {} is too old, {}.{} or newer is required: rustup update stable"
                      .format(found.group(), *OLDEST_RUST))


def check_compiler():
    """The build compiles C++17; cargo's `cc` takes $CXX, else c++."""
    advice = "install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++), or set CXX"
    compiler = os.environ.get("CXX", "").split() or ["c++"]
    if not shutil.which(compiler[0]):
        raise Failure("no C++ compiler: {} is not in PATH: {}".format(compiler[0], advice))
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.cpp")
        with open(source, "w") as f:
            f.write("#include <optional>\nint main() { return std::optional<int>(0).value(); }\n")
        status, text = output_of(compiler + ["-std=c++17", "-c", source, "-o", os.path.join(folder, "probe.o")])
    if status != 0:
        raise Failure("{} does not compile C++17 ({}): {}".format(compiler[0], last_line(text), advice))


# --- a libtorch that the user points at -------------------------------------------------------------------------------


def check_libtorch(folder, named):
    """Raises unless `folder` is a whole libtorch of the right version."""
    wanted = "expected the torch folder of PyTorch {} (or libtorch {} unpacked)".format(VERSION, VERSION)
    if not os.path.isabs(folder):
        raise Failure("{}: the path is not absolute; {}".format(named, wanted))
    if not os.path.isdir(folder):
        raise Failure("{}: no such folder; unset it and run `make setup`, or correct it: {}".format(named, wanted))
    library = "libtorch_cpu." + ("dylib" if sys.platform == "darwin" else "so")
    for part in [os.path.join("include", "torch", "headeronly", "version.h"), os.path.join("lib", library)]:
        if not os.path.exists(os.path.join(folder, part)):
            raise Failure("{}: {} is missing; {}".format(named, part, wanted))
    found = version_of(folder)
    if found != VERSION:
        raise Failure("{}: this is libtorch {}, expected {}: unset it and run `make setup`, which fetches the right one"
                      .format(named, found or "of unknown version", VERSION))


def version_of(folder):
    """2.11.0 of `2.11.0+cu130`, from the file that the wheel or the zip file has."""
    for name in ["build-version", "version.py"]:
        try:
            with open(os.path.join(folder, name)) as f:
                found = re.search(r"^(?:__version__ *= *['\"])?(\d+\.\d+\.\d+)", f.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found.group(1)
    return None


def python_in_path():
    return "python" if os.environ.get("VIRTUAL_ENV") else "python3"


def link_to_python(python, dest):
    program = "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    if not shutil.which(python):
        raise Failure("TORCH_PYTHON={}: no such program".format(python))
    status, text = output_of([python, "-c", program])
    folder = last_line(text)
    if status != 0 or not folder:
        raise Failure("TORCH_PYTHON={0}: that Python has no torch: {0} -m pip install torch=={1}".format(python, VERSION))
    check_libtorch(folder, "the torch of {} in {}".format(python, folder))
    link = os.path.join(dest, "torch")
    if os.path.islink(link) and os.readlink(link) == folder:
        say("libtorch {} of {} is used".format(VERSION, python))
        return
    part = fresh_part(dest)
    os.symlink(folder, os.path.join(part, "torch"))
    put_in_place(part, dest, {"version": VERSION, "kind": "link", "python": python})
    say("libtorch {} of {} is used: {}".format(VERSION, python, folder))


# --- an own install ---------------------------------------------------------------------------------------------------


def install(dest, cuda):
    marker = read_marker(dest)
    gpu = sign_of_gpu() if cuda == "auto" else None
    if marker and not wants_more(marker, cuda, gpu):
        say("libtorch {} is in place ({})".format(VERSION, marker["kind"]))
        return
    full = cuda == "1" or gpu is not None
    target = Target()
    if full and not target.nvidia:
        raise Failure("CUDA=1: there is no torch with CUDA for {}: run `make build CUDA=0`".format(target.name))
    if gpu:
        say("an NVIDIA GPU is seen ({}): torch {} is fetched with NVIDIA's libraries: {}. "
            "`make build CUDA=0` declines.".format(gpu, VERSION, FULL_SIZE))
    else:
        say("fetching libtorch {}{}: {}".format(VERSION, " with NVIDIA's libraries" if full else "",
                                               FULL_SIZE if full else LEAN_SIZE))
    if target.untested:
        say("note: {} is untested; Linux on x86-64 is what this project is tested on".format(target.name))
    pip = pip_command()
    check_room(os.path.dirname(dest), FULL_ROOM if full else LEAN_ROOM)

    started = time.time()
    part = fresh_part(dest)
    packages = ["torch==" + VERSION] if full or not target.nvidia else LEAN
    arguments = ["install", "--no-compile", "--no-input", "--disable-pip-version-check", "--retries", "2",
                 "--target", part]
    if not full:
        arguments.append("--no-deps")
    run_pip(pip + arguments + target.pip_arguments + packages, part, dest + ".log")
    check_libtorch(os.path.join(part, "torch"), "the installed torch")
    put_in_place(part, dest, {"version": VERSION, "kind": "full" if full else "lean", "cuda": cuda})
    say("libtorch {} is in {}: {:.1f} GB in {:.0f} s".format(
        VERSION, os.path.relpath(os.path.join(dest, "torch")), size_of(dest) / 1e9, time.time() - started))


def read_marker(dest):
    """What is installed whole: the marker is the last file that an install writes."""
    try:
        with open(os.path.join(dest, MARKER)) as f:
            marker = json.load(f)
    except (OSError, ValueError):
        return None
    whole = marker.get("version") == VERSION and version_of(os.path.join(dest, "torch")) == VERSION
    return marker if whole else None


def wants_more(marker, cuda, gpu):
    if marker.get("kind") != "lean":
        return False
    # With CUDA=0 the user declined, and need not say so again.
    return cuda == "1" or (gpu is not None and marker.get("cuda") != "0")


def sign_of_gpu():
    for path in ["/dev/nvidia0", "/proc/driver/nvidia/version"]:
        if os.path.exists(path):
            return path
    if shutil.which("nvidia-smi"):
        status, text = output_of(["nvidia-smi", "-L"])
        if status == 0 and text.startswith("GPU "):
            return "nvidia-smi -L"
    return None


class Target:
    """The platform's wheel. Always the one for CPython 3.12: libtorch itself does not depend on the interpreter."""

    def __init__(self):
        machine = platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
        self.name = "{} on {}".format(platform.system(), machine)
        self.nvidia = platform.system() == "Linux"
        self.untested = self.name != "Linux on x86_64"
        if platform.system() == "Linux" and machine in ("x86_64", "aarch64"):
            libc, version = platform.libc_ver()
            if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28):
                raise Failure("PyTorch {} needs glibc 2.28 or newer, found {} {}: use a newer system or a container"
                              .format(VERSION, libc or "another libc", version).replace("  ", " "))
            tags = ["manylinux_2_{}_{}".format(n, machine) for n in range(28, 4, -1)]
            tags += ["{}_{}".format(old, machine) for old in ("manylinux2014", "manylinux2010", "manylinux1")]
        elif platform.system() == "Darwin" and machine == "aarch64":
            tags = ["macosx_{}_0_arm64".format(n) for n in (14, 13, 12, 11)]
        else:
            raise Failure("there is no PyTorch {} for {}: Linux on x86-64 is supported".format(VERSION, self.name))
        self.pip_arguments = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:"]
        for tag in tags:
            self.pip_arguments += ["--platform", tag]


def pip_command():
    pip = [sys.executable, "-m", "pip"]
    status, text = output_of(pip + ["--version"])
    if status != 0:
        raise Failure("{0} has no pip: install it (Debian, Ubuntu: apt-get install python3-pip; else {0} -m ensurepip)"
                      .format(sys.executable))
    found = re.match(r"pip (\d+)\.(\d+)", text)
    if found and tuple(map(int, found.groups())) < OLDEST_PIP:
        raise Failure("pip {}.{} is too old, {}.{} is required: {} -m pip install --upgrade pip"
                      .format(*found.groups(), *OLDEST_PIP, sys.executable))
    return pip


def check_room(folder, wanted):
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise Failure("{:.1f} GB are free in {}, {:.1f} GB are required: make room or clone onto another disk"
                      .format(free / 1e9, folder, wanted / 1e9))


def run_pip(command, part, log):
    # pip unpacks in its temporary folder: on the same disk as the target, and gone with it when interrupted.
    scratch = os.path.join(part, "tmp")
    os.makedirs(scratch)
    environment = dict(os.environ, TMPDIR=scratch, PYTHONWARNINGS="ignore")
    with open(log, "wb") as errors:
        pip = subprocess.Popen(command, stdout=None if sys.stdout.isatty() else subprocess.DEVNULL, stderr=errors,
                               stdin=subprocess.DEVNULL, env=environment)
        try:
            if not sys.stdout.isatty():
                report_growth(pip, part)
            status = pip.wait()
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if status != 0:
        with open(log, errors="replace") as f:
            raise Failure(explain(f.read(), log))
    os.remove(log)
    shutil.rmtree(scratch, ignore_errors=True)


def report_growth(pip, part):
    """A line every ten seconds where pip's own progress bar cannot be drawn."""
    started, done = time.time(), threading.Event()

    def watch():
        while not done.wait(10):
            say("{:.2f} GB so far, {:.0f} s".format(size_of(part) / 1e9, time.time() - started))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        pip.wait()
    finally:
        done.set()
        thread.join()


def explain(text, log):
    lowered = text.lower()
    if "no space left" in lowered:
        return "the disk is full: make room, then run `make setup` again"
    network = ["connection", "newconnectionerror", "name resolution", "timed out", "max retries", "proxyerror", "sslerror",
               "network is unreachable", "getaddrinfo"]
    if any(word in lowered for word in network):
        return ("no network: pip cannot reach the package index to fetch torch {}: check the connection (or pip's index "
                "and proxy settings), then run `make setup` again; or point TORCH_PYTHON at a Python with torch {}"
                .format(VERSION, VERSION))
    if "no matching distribution" in lowered:
        return ("pip's package index has no torch {} for this platform: check `pip config list`; the messages are in {}"
                .format(VERSION, log))
    return "pip failed ({}): the messages are in {}".format(last_line(text), log)


# --- small things -----------------------------------------------------------------------------------------------------


def fresh_part(dest):
    """An empty folder beside `dest`; what an interrupted run left there goes."""
    part = dest + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    return part


def put_in_place(part, dest, marker):
    with open(os.path.join(part, MARKER), "w") as f:
        json.dump(marker, f)
        f.flush()
        os.fsync(f.fileno())
    old = dest + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(dest):
        os.rename(dest, old)
    os.rename(part, dest)
    shutil.rmtree(old, ignore_errors=True)


class Lock:
    """Two runs at once: the second waits for the first."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = open(self.path, "w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another setup to end")
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def size_of(folder):
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(at, name)).st_size
            except OSError:
                pass
    return total


def output_of(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    except OSError as e:
        return 1, str(e)
    return done.returncode, done.stdout.decode(errors="replace")


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except Failure as failure:
        sys.exit("setup: " + str(failure))
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; run `make setup` to begin again")
    except OSError as failure:
        sys.exit("setup: {}".format(failure))
