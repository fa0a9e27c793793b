"""docs/read_trace.py on a real trace, beside safetensors' own reader."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT / "docs"))
import read_trace  # noqa: E402


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_example_script_reads_what_hrm_wrote(hrm, tmp_path, dtype):
    common = ["--checkpoint", GOLDEN / "checkpoint" / "tiny ACT-torch" / "Model gold fish" / "step_12", "--data-path",
              GOLDEN / "e2e" / "data", "--device", "cpu", "--threads", "1", "--index", "3,0", "--dtype", dtype]
    hrm("trace", *common, "--output-dir", "own", cwd=tmp_path)
    hrm("trace", *common, "--output-dir", "wide", "--f32", cwd=tmp_path)
    index, arrays = read_trace.read(tmp_path / "own")
    wide = load_file(tmp_path / "wide" / "trace.safetensors")
    assert index["rows"] == [3, 0]
    for name in ("z_H", "logits"):
        assert np.array_equal(read_trace.as_float(arrays[name][:], index, name), wide[name]), name
    for name in ("q_halt", "q_continue", "inputs", "labels"):
        assert np.array_equal(np.asarray(arrays[name]), wide[name]), name
    script = [sys.executable, str(ROOT / "docs" / "read_trace.py"), str(tmp_path / "own")]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "puzzle 3: " in printed and len(printed.splitlines()) == 3
