"""Checkpoints against Python's own torch and safetensors. HRM_BIN names the binary."""

import json
import os
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
COMPILED = GOLDEN / "checkpoint" / "tiny ACT-torch" / "Model gold fish"
PLAIN = GOLDEN / "e2e" / "run_b"


def hrm(*args, check=True):
    done = subprocess.run(
        [os.environ["HRM_BIN"], "checkpoint", *map(str, args)], capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def same(a, b):
    assert list(a) == list(b)
    for name in a:
        same_tensor(name, a[name], b[name])


def same_tensor(name, a, b):
    assert a.dtype == b.dtype and a.shape == b.shape, name
    # Compared as bytes, so that NaN equals itself and -0 differs from 0.
    assert a.contiguous().flatten().view(torch.uint8).equal(b.contiguous().flatten().view(torch.uint8)), name


def cleaned(state):
    return OrderedDict((k.removeprefix("_orig_mod."), v) for k, v in state.items())


def state_dict(prefix=""):
    generator = torch.Generator().manual_seed(0)
    h = 16
    shapes = {
        "H_init": (h,),
        "L_init": (h,),
        "embed_tokens.embedding_weight": (11, h),
        "lm_head.weight": (11, h),
        "q_head.weight": (2, h),
        "q_head.bias": (2,),
        "puzzle_emb.weights": (1, h),
    }
    for level in "HL":
        layer = f"{level}_level.layers.0."
        shapes[layer + "self_attn.qkv_proj.weight"] = (3 * h, h)
        shapes[layer + "self_attn.o_proj.weight"] = (h, h)
        shapes[layer + "mlp.gate_up_proj.weight"] = (512, h)
        shapes[layer + "mlp.down_proj.weight"] = (h, 256)
    state = OrderedDict()
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=generator)
        if name.endswith("_init"):
            tensor = tensor.to(torch.bfloat16)
        state[f"{prefix}model.inner.{name}"] = tensor
    return state


def run_folder(path, state, step=7):
    path.mkdir()
    (path / "all_config.yaml").write_bytes((PLAIN / "all_config.yaml").read_bytes())
    torch.save(state, path / f"step_{step}")
    return path


@pytest.mark.parametrize("source", [COMPILED, PLAIN], ids=["compiled", "plain"])
def test_our_torch_files_load_in_python(tmp_path, source):
    hrm("convert", source, tmp_path / "ours", "--to", "safetensors")
    hrm("convert", tmp_path / "ours", tmp_path / "torch", "--to", "torch")
    (original,) = source.glob("step_*")
    (written,) = (tmp_path / "torch").glob("step_*")
    assert written.name == original.name
    expected = cleaned(torch.load(original, weights_only=True, map_location="cpu"))
    same(torch.load(written, weights_only=True), expected)
    same(torch.load(written, weights_only=True, mmap=True), expected)
    # As upstream's loader reads it.
    config = [yaml.safe_load((folder / "all_config.yaml").read_text()) for folder in (source, tmp_path / "torch")]
    assert config[0] == config[1]


@pytest.mark.parametrize("source", [COMPILED, PLAIN], ids=["compiled", "plain"])
def test_our_safetensors_load_in_python(tmp_path, source):
    hrm("convert", source, tmp_path / "ours", "--to", "safetensors")
    (original,) = source.glob("step_*")
    expected = cleaned(torch.load(original, weights_only=True, map_location="cpu"))
    loaded = load_file(tmp_path / "ours" / "model.safetensors")
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        same_tensor(name, loaded[name], tensor)
    meta = json.loads((tmp_path / "ours" / "meta.json").read_text())
    assert meta["step"] == int(original.name.removeprefix("step_"))


@pytest.mark.parametrize("prefix", ["", "_orig_mod."], ids=["plain", "compiled"])
def test_fresh_torch_saves_convert_bit_equal(tmp_path, prefix):
    state = state_dict(prefix)
    source = run_folder(tmp_path / "run", state)
    hrm("convert", source, tmp_path / "ours", "--to", "safetensors")
    loaded = load_file(tmp_path / "ours" / "model.safetensors")
    for name, tensor in cleaned(state).items():
        same_tensor(name, loaded[name], tensor)
    hrm("convert", source, tmp_path / "torch", "--to", "torch")
    same(torch.load(tmp_path / "torch" / "step_7", weights_only=True), cleaned(state))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_parameters_and_dtypes_as_torch_saves_them(tmp_path, protocol):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = state_dict()
    state["shared.whole"] = base
    state["shared.transposed"] = base.t()
    state["shared.column"] = base[:, 2]
    state["shared.strided"] = base[::2, 1::2]
    state["shared.expanded"] = base[0, :1].expand(3, 2)
    state["parameter"] = torch.nn.Parameter(torch.ones(3))
    state["scalar"] = torch.tensor(5.0)
    state["empty"] = torch.empty(0, 3)
    state["odd"] = torch.tensor([-0.0, 1e-40, 3e38])
    for dtype in ["float64", "float16", "bfloat16"]:
        state["dtype." + dtype] = torch.tensor([[0, 1, 1]]).to(getattr(torch, dtype))
    source = tmp_path / "run"
    run_folder(source, state)
    torch.save(state, source / "step_7", pickle_protocol=protocol)
    hrm("convert", source, tmp_path / "torch", "--to", "torch")
    read = torch.load(tmp_path / "torch" / "step_7", weights_only=True)
    same(read, OrderedDict((k, v.detach()) for k, v in state.items()))


def test_dtype_conversion_rounds_as_torch_does(tmp_path):
    source = run_folder(tmp_path / "run", state_dict())
    hrm("convert", source, tmp_path / "bf16", "--to", "torch", "--dtype", "bf16")
    read = torch.load(tmp_path / "bf16" / "step_7", weights_only=True)
    same(read, OrderedDict((k, v.to(torch.bfloat16)) for k, v in state_dict().items()))
    hrm("convert", source, tmp_path / "f32", "--to", "safetensors", "--dtype", "f32")
    read = load_file(tmp_path / "f32" / "model.safetensors")
    for name, tensor in state_dict().items():
        same_tensor(name, read[name], tensor.float())


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path):
    state = state_dict()
    state["evil"] = Touch(tmp_path / "owned")
    source = run_folder(tmp_path / "run", state)
    done = hrm("inspect", source, check=False)
    assert done.returncode == 1 and f"{os.system.__module__}.system" in done.stderr, done.stderr
    assert not (tmp_path / "owned").exists()


def test_old_and_foreign_files_are_refused(tmp_path):
    source = run_folder(tmp_path / "run", state_dict())
    torch.save(state_dict(), source / "step_7", _use_new_zipfile_serialization=False)
    assert "old format" in hrm("inspect", source, check=False).stderr
    torch.save([1, 2], source / "step_7")
    assert "expected a dictionary" in hrm("inspect", source, check=False).stderr
    torch.save({"model": state_dict()}, source / "step_7")
    assert "expected a tensor" in hrm("inspect", source, check=False).stderr


def test_configurations_are_written_as_pyyaml_writes_them(tmp_path):
    config = yaml.safe_load((PLAIN / "all_config.yaml").read_text())
    names = ["2024", "no", "y", "null", "caf\u00e9", "it's", "a: b", "a #b", "tab\there", "", "2024-01-31", "1:30", "0x1f"]
    names += [" lead", "- x", "-x", "@x", "x[1]", "'q'", "long " * 40 + "end", "it's " * 40 + "end", "caf\u00e9 " * 40]
    for i, name in enumerate(names):
        config |= {"project_name": name, "lr": 10.0 ** -(i + 1), "eval_save_outputs": [name, "logits"]}
        config["run_name"] = None
        source = run_folder(tmp_path / f"run{i}", state_dict())
        (source / "all_config.yaml").write_text(yaml.dump(config))
        hrm("convert", source, tmp_path / f"out{i}", "--to", "torch")
        assert (tmp_path / f"out{i}" / "all_config.yaml").read_text() == yaml.dump(config), name
