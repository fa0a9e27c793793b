#!/usr/bin/env python3
"""Sends a run of `hrm train` to Weights & Biases while it goes on (or afterwards), through the official client.

    pip install wandb
    python3 scripts/wandb_follow.py checkpoints/PROJECT/RUN          # until the run is finished; Ctrl-C stops
    python3 scripts/wandb_follow.py checkpoints/PROJECT/RUN --once   # what is there now

Project, name and configuration are those of the run's all_config.yaml. Training metrics are `train/...`, evaluations
`<set>/...`, both over `step`. What was sent is kept in RUN/wandb_follow.json: a follower that is started again, or a run
that is resumed, goes on with the same run on the server and sends no step twice. WANDB_MODE=offline writes to RUN/wandb
for `wandb sync`.
"""

import argparse
import json
import os
import secrets
import sys
import time
from pathlib import Path

METRICS, STATE = "metrics.jsonl", "wandb_follow.json"


class Tail:
    """The whole lines of a file that grows, and that a resumed run may cut short or replace."""

    def __init__(self, path):
        self.path = path
        self.restart()

    def restart(self):
        self.offset, self.last = 0, b""

    def lines(self):
        try:
            with open(self.path, "rb") as file:
                # The last line that was read must still stand before the offset; else the file is another one.
                file.seek(self.offset - len(self.last))
                if file.read(len(self.last)) != self.last:
                    self.restart()
                    file.seek(0)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines(keepends=True):
            self.last = line
            yield json.loads(line)


class Sent:
    """What the server has, kept beside the run."""

    def __init__(self, path):
        self.path = path
        self.values = {"id": None, "train": 0, "evaluation": 0}
        if path.exists():
            self.values.update(json.loads(path.read_text()))

    def save(self):
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.values) + "\n")
        os.replace(part, self.path)


def number(value):
    """NaN and infinities stand in the file by their names."""
    return float(value) if isinstance(value, str) else value


def finished(folder, step, passes):
    """Whether the checkpoint of the last step says that all passes are done."""
    try:
        return json.loads((folder / f"step_{step}" / "training.json").read_text())["passes"] >= passes
    except (OSError, ValueError, KeyError, TypeError):
        return False


def follow(folder, once, interval):
    import wandb
    import yaml

    config = yaml.safe_load((folder / "all_config.yaml").read_text())
    sent = Sent(folder / STATE)
    sent.values["id"] = sent.values["id"] or secrets.token_hex(4)
    run = wandb.init(
        project=config.get("project_name"), name=config.get("run_name"), id=sent.values["id"], config=config,
        resume="allow", dir=str(folder),
    )
    sent.save()
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    tail, passes, logged = Tail(folder / METRICS), None, 0
    try:
        over = False
        while True:
            for line in tail.lines():
                if "step" not in line:
                    passes = line.get("passes", passes)
                    if "num_params" in line:
                        run.summary["num_params"] = line["num_params"]
                    continue
                kind = "train" if any(key.startswith("train/") for key in line) else "evaluation"
                if line["step"] > sent.values[kind]:
                    sent.values[kind] = line["step"]
                    run.log({key: number(value) for key, value in line.items() if key != "time"})
                    logged += 1
            sent.save()
            # Asked before the last look at the file, so that nothing comes in between.
            if once or over:
                break
            over = finished(folder, sent.values["train"], passes)
            if over:
                continue
            time.sleep(interval)
    except KeyboardInterrupt:
        pass
    run.finish()
    sent.save()
    print(f"{folder}: {logged} lines sent, up to step {sent.values['train']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder of hrm train")
    parser.add_argument("--once", action="store_true", help="send what is there and end")
    parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between looks [default: 2]")
    args = parser.parse_args()
    for name in ["all_config.yaml", METRICS]:
        if not (args.run / name).is_file():
            sys.exit(f"error: {args.run}: no run of hrm train: there is no {name}")
    try:
        import wandb  # noqa: F401
    except ImportError:
        sys.exit("error: the Python client is missing: pip install wandb")
    follow(args.run, args.once, args.interval)


if __name__ == "__main__":
    main()
