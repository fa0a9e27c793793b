#!/usr/bin/env python3
"""Measures hrm infer on the bundled test rows: every stop rule, one pass and nine permutations.

    python3 scripts/measure_evaluation.py CHECKPOINT [--rows 10000] [--json FILE] [--hrm PATH] [-- more for hrm infer]

Each rule is a run of its own; answers are counted against one full run, whose batches run all segments together. The
table is followed by what the full evaluation of 422,786 puzzles x 90 passes would take at the measured rates:
never and halt by arithmetic; verified as an upper bound, in which nothing more is solved after the ninth pass and each
later pass of an unsolved puzzle takes all segments.
Needs Python 3.8 and nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

PUZZLES, PASSES = 422_786, 90
RULES = ("never", "halt", "verified")


def infer(args, more, out):
    command = [args.hrm, "infer", "--checkpoint", args.checkpoint, "--bundled", str(args.rows), "--json", out]
    command += more + args.more
    print("$", " ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"hrm infer ended with {done.returncode}")
    with open(out) as file:
        return json.load(file)


def measure(args, folder):
    rows = []
    for permutes in (1, 9):
        full = os.path.join(folder, f"full{permutes}.jsonl")
        base = ["--permutes", str(permutes)]
        infer(args, base + ["--compare-stops", "--output", full], os.path.join(folder, "full.json"))
        for rule in RULES:
            found = infer(args, base + ["--stop", rule, "--against", full], os.path.join(folder, "run.json"))
            stop = found["stops"][rule]
            rows.append({
                "permutes": permutes,
                "stop": rule,
                "puzzles": found["total"],
                "seconds": found["seconds"],
                "setup_seconds": found["setup_seconds"],
                "puzzles_per_second": found["puzzles_per_second"],
                "exact_accuracy": stop["exact_accuracy"],
                "verified": found["scores"]["verified"]["accuracy"],
                "vote": found["scores"]["vote"]["accuracy"],
                "best_halt": found["scores"]["best_halt"]["accuracy"],
                "upstream_rule": (found["upstream_rule"] or {}).get("accuracy"),
                "segments": stop["segments"],
                "segments_nominal": stop["segments_nominal"],
                "row_segments": found["row_segments"],
                "passes_run": stop["passes_run"],
                "answers_compared": found["against"]["passes"],
                "answers_differ": found["against"]["answers"],
                "stops_differ": found["against"]["stops"],
                "batch_size": found["batch_size"],
                "device": found["device"],
                "dtype": found["dtype"],
                "max_segments": found["checkpoints"][0]["segments"],
            })
    return rows


def extrapolate(rows):
    """Hours of the full evaluation at the rates of the nine-permutation runs."""
    nine = {row["stop"]: row for row in rows if row["permutes"] == 9}
    hours = {}
    for rule in RULES:
        row = nine[rule]
        per_segment = row["seconds"] / row["segments"]
        if rule == "verified":
            unsolved = 1 - row["verified"]
            later = (PASSES - 9) * row["max_segments"] * unsolved
            segments = PUZZLES * (row["segments"] / row["puzzles"] + later)
        else:
            segments = PUZZLES * PASSES * row["segments"] / row["passes_run"]
        hours[rule] = segments * per_segment / 3600
    return hours


def table(rows, hours):
    heads = ["passes", "stop", "puzzles/s", "seconds", "exact", "verified", "vote", "best halt", "upstream", "segments",
             "slots used", "answers that differ"]
    lines = [heads]
    for r in rows:
        percent = lambda x: "" if x is None else f"{100 * x:.2f} %"
        lines.append([
            str(r["permutes"]), r["stop"], f"{r['puzzles_per_second']:.0f}", f"{r['seconds']:.1f}",
            percent(r["exact_accuracy"]), percent(r["verified"]), percent(r["vote"]), percent(r["best_halt"]),
            percent(r["upstream_rule"]), percent(r["segments"] / r["segments_nominal"]),
            percent(r["segments"] / max(1, r["row_segments"])), f"{r['answers_differ']} of {r['answers_compared']}",
        ])
    lines.insert(1, ["---"] * len(heads))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    r = rows[0]
    print(f"\n{r['puzzles']} rows in batches of {r['batch_size']}, {r['dtype']} on {r['device']}; setup not included "
          f"({max(r['setup_seconds'] for r in rows):.1f} s at most)")
    print(f"{PUZZLES:,} puzzles x {PASSES} passes: " + ", ".join(
        f"{rule} {'at most ' if rule == 'verified' else ''}{hours[rule]:.2f} h" for rule in RULES))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--json", default="evaluation.json")
    parser.add_argument("--hrm", default=os.path.join(os.path.dirname(__file__), "..", "target", "release", "hrm"))
    argv, more = sys.argv[1:], []
    if "--" in argv:
        at = argv.index("--")
        argv, more = argv[:at], argv[at + 1:]
    args = parser.parse_args(argv)
    args.more = more
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, folder)
    hours = extrapolate(rows)
    with open(args.json, "w") as file:
        json.dump({"rows": rows, "full_evaluation_hours": hours, "puzzles": PUZZLES, "passes": PASSES}, file, indent=2)
        file.write("\n")
    table(rows, hours)


if __name__ == "__main__":
    main()
