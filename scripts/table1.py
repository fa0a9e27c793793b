#!/usr/bin/env python3
"""The paper's Table 1 from results of scripts/reproduce_table1.sh.

    python3 scripts/table1.py DIR [DIR...]

Reads NAME.json from the folders (the first that has it), writes table1.md and table1.json into the first folder and
prints the Markdown. Rows that are in none of the folders stay open. Needs Python 3.8 and nothing else.
"""

import json
import os
import sys

# Name, what it is, the paper's exact accuracy in percent.
ROWS = [
    ("vanilla", "vanilla, one checkpoint", 54.5),
    ("vanilla-relabelled", "+ nine relabellings", 73.2),
    ("vanilla-checkpoints", "+ last ten checkpoints", 64.7),
    ("hint", "hint, one checkpoint", 59.9),
    ("all", "hint, ten checkpoints, nine relabellings", 96.9),
]


def share(score):
    low, high = score["ci95"]
    return {"accuracy": score["accuracy"], "low": low, "high": high}


def row(found):
    """The three ways to take an answer, from one run in which no pass stopped early."""
    rule = found["upstream_rule"]
    interval = rule["interval"]
    stops = found["stops"]
    return {
        "puzzles": found["total"],
        "checkpoints": [c["step"] for c in found["checkpoints"]],
        "passes": len(found["passes"]),
        "upstream_rule": {"accuracy": rule["accuracy"], "low": interval["low"], "high": interval["high"]},
        "first_halt": share(stops["halt"]["scores"]["best_halt"]),
        "verified": share(stops["verified"]["scores"]["verified"]),
        "exact_mean": found["exact_accuracy"],
        "gpu_minutes": found["seconds"] / 60,
        "segments_of_all": stops["verified"]["segments"] / stops["verified"]["segments_nominal"],
        "pass_at_k": found["pass_at_k"],
    }


def percent(x):
    return f"{100 * x['accuracy']:.1f} % [{100 * x['low']:.1f}, {100 * x['high']:.1f}]"


def table(rows):
    lines = [
        "| | the paper | upstream's rule, segment 16 | first halt | verified, no labels | puzzles | passes | minutes "
        "of all segments | segments that verified needs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title, paper in ROWS:
        r = rows.get(name)
        if r is None:
            lines.append(f"| {title} | {paper} % | not run | | | | | | |")
            continue
        lines.append(
            f"| {title} | {paper} % | {percent(r['upstream_rule'])} | {percent(r['first_halt'])} | "
            f"{percent(r['verified'])} | {r['puzzles']:,} | {r['passes']} | {r['gpu_minutes']:.2f} | "
            f"{100 * r['segments_of_all']:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def main(folders):
    if not folders or folders[0] in ("-h", "--help"):
        sys.exit(__doc__)
    rows = {}
    for name, _, _ in ROWS:
        paths = [os.path.join(folder, name + ".json") for folder in folders]
        path = next((p for p in paths if os.path.exists(p)), None)
        if path is not None:
            try:
                with open(path) as file:
                    rows[name] = row(json.load(file))
            except (KeyError, TypeError, ValueError) as e:
                sys.exit(f"{path}: not the JSON of hrm infer --compare-stops ({type(e).__name__}: {e})")
    if not rows:
        sys.exit(f"{', '.join(folders)}: no {ROWS[0][0]}.json or another row's: run scripts/reproduce_table1.sh first")
    text = table(rows)
    with open(os.path.join(folders[0], "table1.md"), "w") as file:
        file.write(text)
    with open(os.path.join(folders[0], "table1.json"), "w") as file:
        json.dump({"paper": {name: paper for name, _, paper in ROWS}, "rows": rows}, file, indent=1)
        file.write("\n")
    print(text, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
