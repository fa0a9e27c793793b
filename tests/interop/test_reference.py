"""One training step of hrm against PyTorch's autograd, as scripts/torch_reference.py computes it."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import save_file

SCRIPTS = ROOT / "scripts"
TINY = ["arch.hidden_size=64", "arch.num_heads=2", "arch.H_layers=1", "arch.L_layers=1"]


@pytest.fixture(scope="module", params=["f32", "bf16"])
def dump(request, hrm, tmp_path_factory):
    """The file of a recorded step."""
    path = tmp_path_factory.mktemp(request.param) / "step.safetensors"
    hrm("bench", "train", *TINY, "--device", "cpu", "--dtype", request.param, "--seed", 3, "--batch-size", 4,
        "--steps", 1, "--warm", 0, "--dump", path)
    return path


def test_loss_and_gradients_agree_with_autograd(dump):
    command = [sys.executable, SCRIPTS / "torch_reference.py", "check", dump, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("check passed\n"), done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-2])
    # Summed over 4 rows: some ln 11 a row from the tokens, and what a random q head adds.
    assert 4 < figures["loss_hrm"] < 40
    assert figures["loss_hrm"] == pytest.approx(figures["loss_torch"], rel=4e-3)


@pytest.mark.parametrize("name", ["loss", "grad.model.inner.L_level.layers.0.self_attn.qkv_proj.weight"])
def test_the_check_notices_a_wrong_number(dump, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(SCRIPTS)
    import torch_reference

    with safe_open(dump, "pt") as f:
        meta, tensors = f.metadata(), {key: f.get_tensor(key) for key in f.keys()}
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, tmp_path / "wrong", metadata=meta)
    with pytest.raises(SystemExit, match="check failed"):
        torch_reference.check(tmp_path / "wrong", "cpu")
