#!/usr/bin/env python3
"""Builds the fuzz targets with coverage and the address sanitizer, and runs them all at once from their seeds.

  python3 scripts/reliability/fuzz.py --build DIR          compiles them here (stable Rust and gcc) into DIR
  python3 scripts/reliability/fuzz.py DIR --minutes 10     runs them, on --jobs cores

An input that ends a target with a panic, a bad access, more than 2 GiB or 20 s is kept in the output folder.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = "x86_64-unknown-linux-gnu"
COVERAGE = [
    "--cfg=fuzzing", "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares", "-Zsanitizer=address", "-Cdebug-assertions", "-Coverflow-checks",
    "-Cforce-frame-pointers", "-Cstrip=debuginfo",
]
LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=1024", "-timeout=20", "-max_len=65536", "-print_final_stats=1"]


def names():
    return sorted(path.stem for path in (ROOT / "fuzz/fuzz_targets").glob("*.rs"))


def build(out):
    out.mkdir(parents=True, exist_ok=True)
    # What is behind -Z is asked of a stable compiler; build scripts are left as they are because of --target.
    env = {**os.environ, "RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join(COVERAGE)}
    made = ROOT / "target/fuzz-coverage"
    command = ["cargo", "build", "--release", "--bins", "--manifest-path", ROOT / "fuzz/Cargo.toml", "--target", TARGET]
    subprocess.run([*command, "--target-dir", made], env=env, check=True)
    for name in names():
        shutil.copy2(made / TARGET / "release" / name, out / name)
        subprocess.run(["strip", out / name], check=True)


class Run:
    """A process that fuzzes a target."""

    def __init__(self, binary, out, temporary, number, seconds, seed):
        self.name, self.seconds, self.began = binary.name, seconds, time.monotonic()
        corpus, found = out / "corpus" / self.name, out / "found"
        for folder in (corpus, found):
            folder.mkdir(parents=True, exist_ok=True)
        self.found = found
        self.log = out / f"{self.name}-{number}.log"
        more = [f"-max_total_time={int(seconds)}", f"-seed={seed + number + 1}", f"-artifact_prefix={found}/{self.name}-"]
        seeds = [path for path in [ROOT / "fuzz/seeds" / self.name] if path.is_dir()]
        self.child = subprocess.Popen(
            [binary, *LIMITS, *more, corpus, *seeds], stdout=subprocess.DEVNULL, stderr=self.log.open("wb"),
            env={**os.environ, "TMPDIR": temporary},
        )

    def figures(self):
        text = self.log.read_text(errors="replace")
        runs = re.findall(r"^#(\d+)\t", text, re.MULTILINE) + re.findall(r"number_of_executed_units: (\d+)", text)
        edges = re.findall(r"cov: (\d+)", text)
        return max(map(int, runs), default=0), max(map(int, edges), default=0)

    def wrong(self):
        """What ended it before its time, in one line."""
        if self.child.poll() in (None, 0):
            return None
        text = self.log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if re.search("panicked at|ERROR: |SUMMARY: |artifact_prefix", line)]
        return " | ".join(lines)[:600] or f"rc {self.child.returncode}: {text[-200:]}"


def fuzz(folder, options):
    out = Path(options.output)
    temporary = tempfile.mkdtemp(prefix="hrm-fuzz-")
    asked = set(filter(None, options.only.split(",")))
    binaries = [path for path in sorted(folder.iterdir()) if not asked or path.name in asked]
    missing = asked - {path.name for path in binaries}
    if missing or not binaries:
        sys.exit(f"{folder}: {', '.join(missing) or 'the targets'} are not there; build them with --build {folder}")
    seconds, began, queue = options.minutes * 60, time.monotonic(), list(enumerate(binaries * max(1, options.jobs // len(binaries))))
    running, runs, findings = [], [], []

    def start(number, binary, left):
        run = Run(binary, out, temporary, number, left, options.seed)
        running.append(run)
        runs.append(run)

    def write(complete):
        rows = {binary.name: {"executions": 0, "edges": 0, "seconds": 0.0, "findings": 0} for binary in binaries}
        for run in runs:
            executions, edges = run.figures()
            row = rows[run.name]
            row["executions"] += executions
            row["edges"] = max(row["edges"], edges)
            row["seconds"] = round(row["seconds"] + min(time.monotonic() - run.began, run.seconds), 1)
        for finding in findings:
            rows[finding["target"]]["findings"] += 1
        totals = {key: sum(row[key] for row in rows.values()) for key in ("executions", "seconds", "findings")}
        document = {
            "campaign": "fuzz", "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "cores": os.cpu_count(),
            "jobs": options.jobs, "seed": options.seed, "seconds": round(time.monotonic() - began, 1),
            "complete": complete, "totals": totals, "targets": rows, "findings": findings,
        }
        lines = [f"{'fuzz':16} {'executions':>12} {'edges':>8} {'core seconds':>14} {'findings':>9}"]
        for name, row in [*rows.items(), ("all", {**totals, "edges": 0})]:
            lines.append(f"{name:16} {row['executions']:12} {row['edges'] or '':>8} {row['seconds']:14} {row['findings']:9}")
        lines.append(f"{document['seconds']} s, {options.jobs} jobs, " + ("all done" if complete else "cut"))
        (out / "fuzz.json").write_text(json.dumps(document, indent=1) + "\n")
        (out / "fuzz.txt").write_text("\n".join(lines) + "\n")
        return "\n".join(lines)

    # With fewer cores than targets they take turns.
    while queue or running:
        while queue and len(running) < max(1, options.jobs):
            start(*queue.pop(0), seconds)
        time.sleep(1)
        for run in [run for run in running if run.child.poll() is not None]:
            running.remove(run)
            what = run.wrong()
            if what:
                findings.append({"target": run.name, "what": what})
                print(f"FOUND {run.name}: {what}", flush=True)
                left = seconds - (time.monotonic() - run.began)
                run.seconds = time.monotonic() - run.began
                if left > 5:  # One finding does not end a target's time.
                    start(len(runs) + 1000, folder / run.name, left)
        write(False)
    print(write(True))
    shutil.rmtree(temporary, ignore_errors=True)
    sys.exit(1 if findings else 0)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--build", action="store_true", help="compile the targets into the folder")
parser.add_argument("--minutes", type=float, default=10, help="for each target")
parser.add_argument("--jobs", type=int, default=os.cpu_count())
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--only", default="", help="targets, separated by commas")
parser.add_argument("--output", default="reliability/fuzz", help="folder for fuzz.json, fuzz.txt, logs and what was found")
chosen = parser.parse_args()
if chosen.build:
    build(chosen.folder)
else:
    fuzz(chosen.folder.resolve(), chosen)
