"""What a run tells TensorBoard and Weights & Biases, read back by their own Python libraries."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

TINY = """data_path=data global_batch_size=8 epochs=4 eval_interval=2 lr=2e-3 arch.hidden_size=16 arch.num_heads=2
    arch.H_layers=1 arch.L_layers=1 arch.L_cycles=1 arch.halt_max_steps=3 checkpoint_path=run run_name=mine
    project_name=ours --dtype f32 --threads 1 --device cpu""".split()
FOLLOW = [sys.executable, str(ROOT / "scripts" / "wandb_follow.py")]


@pytest.fixture(scope="module")
def run(hrm, tmp_path_factory):
    """A run of 16 steps that was cut back to step 8 and resumed."""
    folder = tmp_path_factory.mktemp("trackers")
    hrm("build-dataset", "--output-dir", "data", "--subsample-size", 32, "--test-rows", 8, "--threads", 1, cwd=folder)
    hrm("train", *TINY, "--tensorboard", cwd=folder)
    for file in (folder / "run" / "step_16").iterdir():
        file.unlink()
    (folder / "run" / "step_16").rmdir()
    hrm("train", "--resume", "run", "--tensorboard", "--threads", 1, "--device", "cpu", cwd=folder)
    return folder / "run"


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_reads_every_value_once(run):
    assert len(list(run.glob("events.out.tfevents.*"))) == 2, "one file a process"
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    wanted = {}
    for line in lines(run):
        for key, value in line.items():
            if "step" in line and key not in ("step", "time"):
                wanted.setdefault(key, []).append((line["step"], value))
    assert set(events.Tags()["scalars"]) == set(wanted)
    assert len(wanted["train/lm_loss"]) == 16 and len(wanted["all/exact_accuracy"]) == 2
    for tag, values in wanted.items():
        read = events.Scalars(tag)
        assert [event.step for event in read] == [step for step, _ in values], tag
        assert [event.value for event in read] == pytest.approx([value for _, value in values], rel=1e-6), tag
        assert all(abs(event.wall_time - time.time()) < 3600 for event in read)


def records(file):
    """The records of an offline run: LevelDB's log format after a header of seven bytes."""
    data, position, record = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def offline_runs(run):
    """What the client wrote, session by session: (the run's record, its history)."""
    for folder in sorted((run / "wandb").glob("offline-run-*")):
        found = list(records(next(folder.glob("*.wandb"))))
        history = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in found
            if record.HasField("history")
        ]
        yield next(record.run for record in found if record.HasField("run")), history


def test_wandb_gets_every_line_once_across_a_resume(hrm, run):
    env = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    whole = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    half = next(i for i, line in enumerate(whole) if json.loads(line).get("step") == 7)
    (run / "metrics.jsonl").write_text("".join(whole[:half]) + whole[half][:20])

    # Live: the follower waits at a torn line, the file grows to its end, and it ends by itself.
    follower = subprocess.Popen([*FOLLOW, run, "--interval", "0.1"], env=env, stdout=subprocess.PIPE, text=True)
    state = run / "wandb_follow.json"
    deadline = time.time() + 60
    while not (state.exists() and json.loads(state.read_text())["train"] == 6):
        assert time.time() < deadline and follower.poll() is None
        time.sleep(0.1)
    # A resumed run cuts the file and writes it anew from an earlier step.
    (run / "metrics.jsonl").write_text("".join(whole[: half - 2]))
    time.sleep(0.5)
    with open(run / "metrics.jsonl", "a") as file:
        file.write("".join(whole[half - 2 :]))
    said, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0 and "18 lines sent, up to step 16" in said

    time.sleep(1.1)  # wandb names its folders by the second
    again = subprocess.run([*FOLLOW, run, "--once"], env=env, capture_output=True, text=True)
    assert again.returncode == 0 and "0 lines sent" in again.stdout, again.stderr
    (first, history), (second, nothing) = offline_runs(run)
    assert (first.project, first.display_name) == ("ours", "mine")
    assert first.run_id == second.run_id and not nothing
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["lr"] == 0.002 and config["arch"]["hidden_size"] == 16
    logged = [line for line in lines(run) if "step" in line]
    assert len(history) == len(logged) == 18
    for sent, line in zip(history, logged):
        del line["time"]
        assert {key: sent[key] for key in line} == pytest.approx(line)


def test_the_follower_names_what_is_missing(tmp_path):
    done = subprocess.run([*FOLLOW, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and "no run of hrm train" in done.stderr, done.stderr
