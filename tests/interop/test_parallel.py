"""hrm under torchrun, and what it declares of NCCL beside NCCL's own header."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

TINY = """train data_path=data global_batch_size=16 epochs=4 eval_interval=2 lr=2e-3 arch.hidden_size=16 arch.num_heads=2
    arch.H_layers=1 arch.L_layers=1 arch.L_cycles=1 arch.halt_max_steps=3 --dtype f32 --device cpu""".split()
BINARY = os.environ.get("HRM_BIN", str(ROOT / "target" / "release" / "hrm"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--no-python"]


@pytest.fixture(scope="module")
def folder(hrm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    hrm("build-dataset", "--output-dir", "data", "--subsample-size", 64, "--test-rows", 22, "--threads", 1, cwd=folder)
    hrm(*TINY, "checkpoint_path=one", "--threads", 1, cwd=folder)
    return folder


def check(folder, run):
    """The run's figures and weights are those of the run of one process, within the golden tests' tolerance."""
    one, other = (load_file(folder / name / "step_16" / "model.safetensors") for name in ("one", run))
    differences = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    assert differences.max() <= 2 * 2e-3 * 16 and (differences > 1e-5).float().mean() <= 1e-3
    logged = [
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", run)
    ]
    for name in ("train/lm_loss", "all/lm_loss"):
        first, second = ([line[name] for line in lines if name in line] for lines in logged)
        assert first and first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("flags", [["--standalone"], ["--master-addr", "127.0.0.1", "--master-port", "0"]])
def test_torchrun_starts_hrm_as_it_is(folder, flags):
    run = f"torchrun{len(flags)}"
    if "0" in flags:
        # The static rendezvous wants a port of its own.
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            flags = [*flags[:-1], str(free.getsockname()[1])]
    command = [*TORCHRUN, *flags, "--nproc-per-node", "2", BINARY, *TINY, f"checkpoint_path={run}"]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: 16 steps") == 1, done.stdout
    assert "processes   2, each with 8 of a step's puzzles and 1 CPU thread (OMP_NUM_THREADS=1)" in done.stdout
    check(folder, run)


def test_torchrun_ends_when_a_rank_is_killed(folder):
    long = ["epochs=4000000", "eval_interval=4000000", "checkpoint_path=long"]
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", BINARY, *TINY, *long]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    log = folder / "long" / "metrics.jsonl"
    while not (log.exists() and "train/lm_loss" in log.read_text()):
        assert time.time() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    ranks = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0


NCCL_PROGRAM = """
#include <climits>
#include <cstddef>
#include <cstdio>
#include <nccl.h>
int main() {
  const ncclConfig_t c = NCCL_CONFIG_INITIALIZER;
  const long long values[] = {NCCL_VERSION_CODE, (long long)sizeof c, (long long)offsetof(ncclConfig_t, netName),
                        (long long)offsetof(ncclConfig_t, commName), (long long)offsetof(ncclConfig_t, nvlinkCentricSched),
                        (long long)(c.size), (long long)(c.magic), (long long)(c.version), c.blocking, c.nvlinkCentricSched, NCCL_SPLIT_NOCOLOR,
                        (long long)sizeof(ncclUniqueId), ncclInProgress, ncclRemoteError, ncclSum, ncclAvg, ncclInt8,
                        ncclUint8, ncclInt32, ncclInt64, ncclHalf, ncclFloat, ncclDouble, ncclBfloat16, ncclFloat8e5m2};
  for (long long value : values) std::printf("%lld ", value);
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NCCL is for Linux")
def test_our_declarations_of_nccl_are_those_of_its_header(tmp_path):
    site = Path(torch.__file__).resolve().parents[1]
    real = site / "nvidia" / "nccl" / "include"
    assert (real / "nccl.h").is_file()
    # The real header asks for CUDA's number formats, which host code has no use for, and for the type of a stream.
    for name in ("cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda_runtime.h"):
        (tmp_path / name).write_text("#pragma once\ntypedef struct CUstream_st* cudaStream_t;\n")
    (tmp_path / "program.cpp").write_text(NCCL_PROGRAM)

    def figures(*includes):
        program = tmp_path / "program"
        command = ["c++", "-o", program, tmp_path / "program.cpp", *(f"-I{path}" for path in includes)]
        subprocess.run(command, check=True)
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout

    ours = ROOT / "src" / "runtime" / "stubs"
    assert figures(ours) == figures(tmp_path, real)


PLUGIN_PROGRAM = """
import ctypes, os, sys
lib, plugin = sys.argv[1:]
for name in ("libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so"):
    ctypes.CDLL(os.path.join(lib, name), mode=os.RTLD_NOW | os.RTLD_GLOBAL)
ctypes.CDLL(plugin, mode=os.RTLD_NOW)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA is for Linux")
@pytest.mark.parametrize("name", ["graph_plugin.so", "nccl_plugin.so"])
def test_every_symbol_of_our_plugins_is_in_libtorchs_cuda_half(name):
    built = sorted(Path(BINARY).parent.glob(f"build/hrm-*/out/{name}"), key=lambda path: path.stat().st_mtime)
    if not built or built[-1].stat().st_size == 0:
        pytest.skip("built without NVIDIA's headers, or elsewhere")
    lib = Path(torch.__file__).parent / "lib"
    done = subprocess.run([sys.executable, "-c", PLUGIN_PROGRAM, lib, built[-1]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
