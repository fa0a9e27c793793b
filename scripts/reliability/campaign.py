"""What the campaigns share: tiny data, the commands that write, runs with a fault, folders compared.

A case is a command in a folder of its own, and how a user goes on after it was stopped. Its reference is the folder
that an undisturbed run leaves. A trial disturbs the command at its n-th call that writes (faults.c), goes on, compares.
"""

import argparse
import concurrent.futures
import gzip
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# A command of a trial that takes longer hangs.
LIMIT_S = 120

TINY = (
    "global_batch_size=8 epochs=4 eval_interval=2 lr=2e-3 lr_warmup_steps=2 arch.hidden_size=16 arch.num_heads=2 "
    "arch.H_layers=1 arch.L_layers=1 arch.H_cycles=1 arch.L_cycles=1 arch.halt_max_steps=2 arch.forward_dtype=float32 "
    "run_name=tiny checkpoint_path=run"
)
FIX = "../../fix"
TRAIN = f"train data_path={FIX}/d {TINY}"
KEEPING = "checkpoint_every_steps=1 keep_last=2 ema_decay=0.9 --tensorboard --json j.json"
LISTS = f"--source {FIX}/tr.csv --test-source {FIX}/te.csv"
BUILD = f"build-dataset {LISTS} --num-aug 1 --hint --output-dir d --json j.json"
MODEL = f"--checkpoint {FIX}/run"
STUDY = f"{MODEL} --output-dir o --json j.json --format both --batch-size 1"
GRID = f"{MODEL} --output-dir o --json j.json --format both --batch-size 2 --grid -1..1"


@dataclass
class Case:
    name: str
    command: str
    # Appended to go on after a stop; where that is refused for want of --force, the next.
    again: list = field(default_factory=lambda: [""])
    # Commands that are run before, undisturbed.
    before: list = field(default_factory=list)
    # What was there before is replaced as a whole: at every moment each file or folder is the old one or the new one.
    replaces: bool = False
    # Numbers are measured; of JSON documents only the keys are compared.
    measured: bool = False
    # The command starts processes, which count together.
    processes: bool = False
    # The name of the case whose command was stopped halfway: what is disturbed is going on.
    halfway: str = ""


def cases():
    forced, resumed, plotted = ["", "--force"], ["--resume"], ["--resume", "--resume --force"]
    plain = [
        Case("build", BUILD, forced),
        Case(
            "build-force", f"{BUILD} --force", replaces=True,
            before=[f"build-dataset {LISTS} --num-aug 2 --output-dir d --json j.json"],
        ),
        Case(
            "build-maze", "build-dataset --dataset maze --source bundled-small --subsample-size 4 --test-rows 2 --aug "
            "--output-dir m", forced,
        ),
        Case("check", f"dataset check {FIX}/d --json j.json"),
        Case(
            "check-over", f"dataset check {FIX}/d --json j.json", replaces=True,
            before=[f"dataset inspect {FIX}/d --json j.json"],
        ),
        Case("inspect-dataset", f"dataset inspect {FIX}/d --json j.json"),
        Case("train-dry", f"{TRAIN} --dry-run --json j.json"),
        Case("train-2", f"{TRAIN} --nproc-per-node 2 --peer-timeout 30 --resume auto", processes=True),
        Case("eval", f"eval {MODEL} --save-outputs o.safetensors --json j.json", forced),
        Case("eval-npy", f"eval {MODEL} --save-outputs o --json j.json", forced),
        Case("solve", f"solve -f {FIX}/puzzle.txt {MODEL} --passes 2 --json j.json"),
        Case("infer-merge", f"infer --merge {FIX}/s1.jsonl {FIX}/s2.jsonl --json j.json --plot p.png", forced),
        Case("trajectory", f"viz trajectory {MODEL} -o t.png --json j.json", forced),
        Case("trajectory-gif", f"viz trajectory {MODEL} -o t.gif", forced),
        Case(
            "trajectory-over", f"viz trajectory {MODEL} -o t.svg --json j.json --force", replaces=True,
            before=[f"viz trajectory {MODEL} --index 1 -o t.svg --json j.json"],
        ),
        Case("curves", f"viz curves {FIX}/run -o c.svg --json j.json", forced),
        Case("runs", f"runs {FIX} --json j.json"),
        Case("convert", f"checkpoint convert {FIX}/run m --to safetensors", forced),
        Case("convert-torch", f"checkpoint convert {FIX}/run m --to torch --dtype bf16", forced),
        Case(
            "convert-force", f"checkpoint convert {FIX}/run/step_8 m --to safetensors --force", replaces=True,
            before=[f"checkpoint convert {FIX}/run/step_7 m --to safetensors"],
        ),
        Case("inspect", f"checkpoint inspect {FIX}/run --json j.json"),
        Case("man", "man --output-dir m", forced),
        Case("doctor", "doctor --json j.json", measured=True),
        Case(
            "bench", "bench train --batch-size 1 --steps 1 --warm 0 arch.hidden_size=16 arch.num_heads=2 --json j.json "
            "--dump dump.safetensors", forced, measured=True,
        ),
    ]
    long = [
        Case("generate", f"dataset generate --fast --seeds {FIX}/tr.csv --count 4 --output g.csv.gz --json j.json", resumed),
        Case("generate-maze", "dataset generate --dataset maze --side 6 --count 40 --output g.csv --json j.json", resumed),
        # The command is part of a checkpoint, so it is the same from the beginning.
        Case("train", f"{TRAIN} {KEEPING} --resume auto"),
        Case("infer", f"infer {MODEL} --permutes 2 --batch-size 2 --output r.jsonl --json j.json --plot p.svg", plotted),
        Case(
            "infer-2", f"infer {MODEL} --batch-size 2 --output r.jsonl --nproc-per-node 2 --peer-timeout 30", resumed,
            processes=True,
        ),
        Case("segments", f"analyze segments --count 4 {STUDY}", resumed),
        Case("modes", f"analyze modes --count 4 --window 2 {STUDY}", resumed),
        Case("stability", f"analyze stability --blanks 1,row --per-k 2 {STUDY}", resumed),
        Case("cells", f"analyze cells --count 4 {STUDY}", resumed),
        Case("attention", f"analyze attention {MODEL} --output-dir o --json j.json --layers H0", resumed),
        Case("landscape", f"viz landscape {GRID}", resumed),
        Case("flow", f"viz flow {GRID} --segments 4 --settle 2", resumed),
        Case("report", f"report --count 4 --explore 2 {STUDY}", resumed),
        Case("trace", f"trace --count 4 --z-l {STUDY}", resumed),
    ]
    halfway = [replace(case, name=f"{case.name}-again", halfway=case.name) for case in long]
    return plain + long + halfway


# What may differ between a run and its repetition: times, speeds, how the command was typed.
VOLATILE = {
    "time", "seconds", "setup_seconds", "open_seconds", "age", "puzzles_per_second", "command_line", "resumed_at",
    "row_segments", "passes_run",
}
# Lines of a log that tell how the work went, not what was found.
PROGRESS = ({"complete"}, set())


def without_volatile(value):
    if isinstance(value, dict):
        return {key: without_volatile(inner) for key, inner in value.items() if key not in VOLATILE}
    return [without_volatile(inner) for inner in value] if isinstance(value, list) else value


def keys_of(value):
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value else None


def comparable(name, data, measured):
    """The part of a file that must be the same."""
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    try:
        if measured:
            return json.dumps(keys_of(json.loads(data))).encode() if name.endswith(".json") else b""
        if name.endswith(".json"):
            return json.dumps(without_volatile(json.loads(data))).encode()
        if name.endswith(".jsonl"):
            lines = [without_volatile(json.loads(line)) for line in data.splitlines()]
            lines = [line for line in lines if "resumed_at_step" not in line and set(line) not in PROGRESS]
            return "\n".join(map(json.dumps, lines)).encode()
    except (ValueError, TypeError):
        pass
    return data


# The step, then field 7.
SESSION = re.compile(rb"\x10[\x80-\xff]*[\x00-\x7f]:", re.DOTALL)


def events_of(data):
    """Step and content of each record of a TensorBoard file, without its time."""
    found, at = set(), 0
    while at + 16 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        record, at = data[at + 12 : at + 12 + size], at + 16 + size
        if at > len(data):
            break  # Torn by a kill.
        # Field 1, eight bytes, is the time; field 7 tells readers to forget what later steps said before.
        record = record[9:] if record[:1] == b"\x09" else record
        if not SESSION.match(record):
            found.add(record)
    return found


def snapshot(folder, measured=False):
    """What a folder holds: the comparable part of each file by its name; TensorBoard's files together."""
    found, events = {}, set()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"link to " + os.readlink(path).encode()
        elif path.is_dir():
            found[name + "/"] = b""
        elif "tfevents" in name:
            events |= events_of(path.read_bytes())
        else:
            data = path.read_bytes().replace(folder.name.encode(), b"TRIAL")
            found[name] = comparable(name, data, measured)
    if events:
        found["TensorBoard's events"] = b"\n".join(sorted(events))
    return found


def difference(is_now, wanted):
    """What differs between two snapshots, in a few words; empty where nothing does."""
    said = [f"{name} is too much" for name in is_now if name not in wanted]
    said += [f"{name} is missing" for name in wanted if name not in is_now]
    for name in wanted:
        now, then = is_now.get(name, wanted[name]), wanted[name]
        if now != then:
            at = next((i for i, (a, b) in enumerate(zip(now, then)) if a != b), min(len(now), len(then)))
            said.append(f"{name} differs at byte {at}: {now[at - 30 : at + 30]!r}, wanted {then[at - 30 : at + 30]!r}")
    return "; ".join(said[:4]) + (f"; and {len(said) - 4} more" if len(said) > 4 else "")


def neither(case, template, now, wanted):
    """Which file or folder that was there is neither the old one nor the new one, where a command replaces as a whole."""
    if not case.replaces:
        return ""

    def part(snapshot, top):
        return {name: data for name, data in snapshot.items() if name.split("/")[0] == top}

    tops = {name.split("/")[0] for name in template}
    broken = [top for top in sorted(tops) if part(now, top) not in (part(template, top), part(wanted, top))]
    return f"after the fault neither the old nor the new is there of {', '.join(broken)}" if broken else ""


@dataclass
class Ended:
    rc: int
    said: str
    points: list


@dataclass
class Ready:
    case: Case
    template: Path
    before: dict
    points: list
    wanted: dict


class Bench:
    """The program, its tiny data, and a folder for each trial."""

    def __init__(self, hrm, work, faults=None):
        self.hrm, self.work = Path(hrm).resolve(), Path(work).resolve()
        self.number = itertools.count(1)
        for name in ("t", "logs", "home"):
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir(parents=True)
        self.faults = Path(faults).resolve() if faults else self.work / "faults.so"
        if not faults:
            source = HERE / "faults.c"
            subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", self.faults, source, "-ldl"], check=True)

    def folder(self, template=None):
        # All names have one length, as some files hold paths.
        folder = self.work / "t" / f"trial{next(self.number):07}"
        shutil.copytree(template, folder, symlinks=True) if template else folder.mkdir()
        return folder

    def run(self, folder, command, fault=None, counted=False, processes=False):
        """Runs `hrm command` in a folder; a fault is (n, how), `counted` lists the calls that write."""
        env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        env |= {"HOME": str(self.work / "home"), "OMP_NUM_THREADS": "1", "LC_ALL": "C", "HF_HUB_OFFLINE": "1"}
        log = self.work / "logs" / folder.name
        if fault or counted:
            env |= {"LD_PRELOAD": str(self.faults), "FAULT_ROOT": str(folder)}
        if counted:
            env["FAULT_LOG"] = str(log)
        if fault:
            n, how = fault
            env |= {"FAULT_AT": str(n), "FAULT_HOW": how.removesuffix("-stays")}
            env |= {"FAULT_STAYS": "1"} if how.endswith("-stays") else {}
        if processes and (fault or counted):
            env["FAULT_COUNTER"] = f"{log}.counter"
            Path(f"{log}.counter").write_bytes(bytes(8))
        words = [str(self.hrm), *shlex.split(command), "--threads", "1", "--device", "cpu"]
        child = subprocess.Popen(
            words, cwd=folder, env=env, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        try:
            said, rc = child.communicate(timeout=LIMIT_S)[1], child.returncode
        except subprocess.TimeoutExpired:
            said, rc = f"still running after {LIMIT_S} s", -1000
        try:
            # A process that was left behind; or all of it.
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        child.stderr.close()
        points = [line.split(" ", 3) for line in log.read_text().splitlines()] if counted and log.exists() else []
        for file in (log, Path(f"{log}.counter")):
            file.unlink(missing_ok=True)
        return Ended(rc, said, points)

    def must(self, folder, command):
        ended = self.run(folder, command)
        if ended.rc != 0:
            raise RuntimeError(f"hrm {command}: rc {ended.rc}: {ended.said.strip()}")

    def make_data(self):
        """A dataset of 16 and 6 Sudokus, a run with two checkpoints, results of two shards, a puzzle."""
        fix = self.work / "fix"
        shutil.rmtree(fix, ignore_errors=True)
        fix.mkdir()
        for name, source, rows in (("tr", "train-1k", 16), ("te", "test-10k", 6)):
            with gzip.open(ROOT / f"data/sudoku-extreme-{source}.csv.gz", "rt") as lines:
                (fix / f"{name}.csv").write_text("".join(itertools.islice(lines, rows + 1)))
        (fix / "puzzle.txt").write_text((fix / "te.csv").read_text().splitlines()[1].split(",")[1] + "\n")
        # Paths in the checkpoint are those that trials see.
        folder = self.folder()
        self.must(folder, f"build-dataset {LISTS} --output-dir {FIX}/d")
        self.must(folder, f"{TRAIN} checkpoint_every_steps=1 keep_last=2".replace("=run", f"={FIX}/run"))
        for shard in (1, 2):
            self.must(folder, f"infer {MODEL} --shard {shard}/2 --output {FIX}/s{shard}.jsonl")

    def prepare(self, case, halves):
        """Its template, reference and points. `halves` holds the Ready of each case that others go on with."""
        template = self.folder()
        for command in case.before:
            self.must(template, command)
        if case.halfway:
            whole = halves[case.halfway]
            self.run(template, case.command, (max(1, len(whole.points) // 2), "after"), processes=case.processes)
            first = case.again[0]
            more = [words.removeprefix(first) for words in case.again]
            case = replace(case, command=f"{case.command} {first}", again=more)
        undisturbed = []
        for _ in range(2):
            folder = self.folder(template)
            ended = self.run(folder, case.command, counted=True, processes=case.processes)
            if ended.rc != 0:
                raise RuntimeError(f"{case.name}: hrm {case.command}: rc {ended.rc}: {ended.said.strip()}")
            undisturbed.append(snapshot(folder, case.measured))
            shutil.rmtree(folder)
        wanted = halves[case.halfway].wanted if case.halfway else undisturbed[0]
        unlike = difference(undisturbed[1], wanted)
        if unlike:
            raise RuntimeError(f"{case.name}: undisturbed, two runs are unlike: {unlike}")
        return Ready(case, template, snapshot(template, case.measured), ended.points, wanted)

    def go_on(self, folder, ready):
        """Goes on after a stop. What was wrong, and whether --force had to be given."""
        case, forced = ready.case, False
        for i, more in enumerate(case.again):
            command = f"{case.command} {more}"
            ended = self.run(folder, command, processes=case.processes)
            if ended.rc == 0:
                break
            if "--force" not in ended.said or i + 1 == len(case.again):
                return f"`hrm {command}` after it: rc {ended.rc}: {last_line(ended.said)}", forced
            forced = True
        return difference(snapshot(folder, case.measured), ready.wanted), forced


def last_line(said):
    return (said.strip().splitlines() or ["nothing was said"])[-1][:400]


def odd_words(said):
    """What an error should not look like."""
    lines = [line for line in said.splitlines() if line.startswith("error")]
    if "panicked" in said:
        return f"a panic: {last_line(said)}"
    return "" if len(lines) == 1 else f"{len(lines)} lines begin with 'error': {said.strip()[-300:]!r}"


class Figures:
    """Counts for each case, and what failed; written to a file now and then, so that a cut leaves them."""

    def __init__(self, campaign, options, columns):
        self.campaign, self.options, self.columns = campaign, options, columns
        self.began, self.lock, self.flushed = time.monotonic(), threading.Lock(), 0.0
        self.rows, self.failures, self.complete = {}, [], False

    def case(self, name, **facts):
        with self.lock:
            self.rows[name] = {**facts, **dict.fromkeys(self.columns, 0), "failures": 0}

    def count(self, name, *columns):
        with self.lock:
            for column in columns:
                self.rows[name][column] += 1
            if time.monotonic() - self.flushed > 5:
                self.write()

    def fail(self, name, **facts):
        with self.lock:
            self.rows.setdefault(name, {"failures": 0})["failures"] += 1
            # All are counted; so many are enough to begin with.
            if len(self.failures) < 1000:
                self.failures.append({"case": name, **facts})
            print(f"FAILED {name}: " + "; ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
            self.write()

    def document(self):
        names = dict.fromkeys(key for row in self.rows.values() for key in row)
        totals = {key: sum(row.get(key, 0) for row in self.rows.values()) for key in names}
        return {
            "campaign": self.campaign, "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "cores": os.cpu_count(),
            "jobs": self.options.jobs, "seed": self.options.seed, "seconds": round(time.monotonic() - self.began, 1),
            "complete": self.complete, "totals": totals, "cases": self.rows, "failures": self.failures,
        }

    def table(self):
        document = self.document()
        names = list(document["totals"])
        width = max(map(len, [*self.rows, "all"]))
        lines = [" ".join([f"{self.campaign:{width}}", *(f"{name:>12}" for name in names)])]
        for name, row in [*self.rows.items(), ("all", document["totals"])]:
            lines.append(" ".join([f"{name:{width}}", *(f"{row.get(key, 0):12}" for key in names)]))
        lines.append(f"{document['seconds']} s, {self.options.jobs} jobs, " + ("all done" if self.complete else "cut"))
        return "\n".join(lines) + "\n"

    def write(self):
        self.flushed = time.monotonic()
        out = Path(self.options.output)
        out.mkdir(parents=True, exist_ok=True)
        for name, text in ((f"{self.campaign}.json", json.dumps(self.document(), indent=1) + "\n"), (f"{self.campaign}.txt", self.table())):
            (out / f".{name}.part").write_text(text)
            (out / f".{name}.part").rename(out / name)


def arguments(description, more=()):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--hrm", default=ROOT / "target/release/hrm", help="the program")
    add("--output", default="reliability", help="folder for NAME.json and NAME.txt")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=os.cpu_count())
    add("--only", default="", help="cases, separated by commas")
    add("--count", type=int, default=0, help="trials, the same number from each case as far as it has them; 0: all")
    add("--time-limit", type=float, default=1e9, help="seconds; what was found until then is the result")
    add("--faults", help="faults.so, if it is not to be compiled")
    add("--work", help="folder for the trials, made and removed unless it is given")
    add("--keep", action="store_true", help="keep the folders of trials that failed")
    add("--point", type=int, help="this trial alone, with --only and --how")
    add("--how", help="before, after, torn, or an error number")
    for name, keys in more:
        add(name, **keys)
    return parser.parse_args()


def in_turn(piles):
    """One of each pile, again and again."""
    return [item for row in itertools.zip_longest(*piles) for item in row if item is not None]


def campaign(name, options, columns, hows, trial, last=lambda how: False):
    """Prepares all cases, then runs `trial(bench, ready, n, how, figures)` at points and ways drawn at random."""
    figures = Figures(name, options, columns)
    deadline = figures.began + options.time_limit
    work = Path(options.work or tempfile.mkdtemp(prefix="hrm-reliability-"))
    asked = set(filter(None, options.only.split(",")))
    unknown = asked - {case.name for case in cases()}
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(case.name for case in cases())}")
    try:
        bench = Bench(options.hrm, work, options.faults)
        bench.make_data()
        wanted = [case for case in cases() if not asked or case.name in asked]
        ready = prepare_all(bench, wanted, options, figures)
        draw = random.Random(options.seed)
        piles = []
        for one in ready:
            pile = [(one, n, how) for n, point in enumerate(one.points, 1) for how in hows(point)]
            figures.case(one.case.name, points=len(one.points), possible=len(pile))
            piles.append(draw.sample(pile, len(pile)))
        trials = sorted(in_turn(piles), key=lambda item: last(item[2]))
        if options.point:
            trials = [(one, options.point, options.how) for one in ready]
        trials = trials[: options.count or None]
        figures.write()

        def attempt(item):
            if time.monotonic() > deadline:
                return False
            one, n, how = item
            try:
                trial(bench, one, n, how, figures)
            except Exception as error:  # The figures of the others are not to be lost.
                figures.fail(one.case.name, n=n, how=how, what=f"the script: {error!r}")
            return True

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            figures.complete = all(list(pool.map(attempt, trials)))
    finally:
        figures.write()
        if not options.work and not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(figures.table(), end="")
    sys.exit(1 if figures.failures else 0)


def prepare_all(bench, wanted, options, figures):
    """The cases that can be repeated; one that cannot is a failure."""
    halves, ready = {}, []
    needed = {case.halfway for case in wanted if case.halfway}

    def attempt(case):
        try:
            return bench.prepare(case, halves)
        except RuntimeError as error:
            figures.fail(case.name, what=str(error))
            return None

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        first = [case for case in cases() if not case.halfway and (case in wanted or case.name in needed)]
        made = list(filter(None, pool.map(attempt, first)))
        halves.update({one.case.name: one for one in made})
        second = [case for case in wanted if case.halfway in halves]
        made += list(filter(None, pool.map(attempt, second)))
    names = {case.name for case in wanted}
    ready = [one for one in made if one.case.name in names]
    return ready


def call_of(one, n):
    return " ".join(one.points[n - 1][1:]) if n <= len(one.points) else ""


def repeat(script, one, n, how):
    return f"python3 scripts/reliability/{script} --only {one.case.name} --point {n} --how {how} --keep --work /tmp/trial"
