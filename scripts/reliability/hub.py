#!/usr/bin/env python3
"""Lets `hrm checkpoint inspect hf://...` fetch from a hub that lies: each answer twisted in a known way, and then in ways
drawn at random, several at once. Each command must end in time with rc 0, or with rc 1 and one line; write nothing
outside its cache; keep under the name of a hash only what has that hash; and show its token to nobody else.

  python3 scripts/reliability/hub.py --count 500 --jobs 2
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import campaign

FILES = {name: (campaign.ROOT / "tests/golden/e2e/run_b" / name).read_bytes() for name in ("step_30", "all_config.yaml")}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hf_SECRET"
LISTING, METADATA, BYTES = "listing", "metadata", "bytes"
STAGES = (LISTING, METADATA, BYTES)
# The most that a hub without end may make a command take.
LIMIT_S, LARGEST = 60, 64 << 20


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self.raw = self.keep = self.rest = None

    def drop(self, name):
        self.headers = [(key, value) for key, value in self.headers if key.lower() != name.lower()]

    def set(self, name, value):
        self.drop(name)
        self.headers.append((name, value))

    def list(self, names):
        self.body = json.dumps({"siblings": [{"rfilename": name} for name in names], "sha": COMMIT}).encode()

    def endless(self, piece):
        self.rest = piece

    def send(self, connection):
        if self.raw is not None:
            connection.sendall(self.raw)
        else:
            if self.rest is None and not any(key.lower() == "content-length" for key, _ in self.headers):
                self.headers.append(("Content-Length", str(len(self.body))))
            head = f"HTTP/1.1 {self.status} X\r\n" + "".join(f"{key}: {value}\r\n" for key, value in self.headers) + "\r\n"
            connection.sendall(head.encode("utf-8", "surrogateescape"))
            connection.sendall(self.body[: self.keep])
        if self.rest == b"drip":
            while True:
                connection.sendall(b"z")
                time.sleep(0.05)
        while self.rest:
            connection.sendall(self.rest)


class Hub:
    """A server; `twist(stage, path, reply)` changes its answers."""

    def __init__(self, host, twist):
        self.twist, self.tokens = twist, []
        self.listener = socket.create_server((host, 0))
        self.address = f"http://{host}:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def close(self):
        # Wakes the thread that waits for the next connection.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def answer(self, connection):
        with connection:
            try:
                # A client that was killed must not keep a thread.
                connection.settimeout(LIMIT_S)
                text = b""
                while b"\r\n\r\n" not in text:
                    more = connection.recv(65536)
                    if not more:
                        return
                    text += more
                lines = text.decode("latin-1").split("\r\n")
                path = lines[0].split(" ")[1].lstrip("/")
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
                self.tokens.append(headers.get("authorization"))
                self.reply(path, headers.get("range", "")).send(connection)
            except OSError:
                pass  # The client went away, as it should.

    def reply(self, path, asked):
        name = path.split("?")[0].removeprefix("someone/model/resolve/main/")
        data, stage = FILES.get(name), None
        reply = Reply(404, [("Connection", "close")], b"")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if data is not None and found:
            stage = METADATA if asked == "bytes=0-0" else BYTES
            first, last = int(found[1]), int(found[2] or len(data) - 1)
            reply.status, reply.body = 206, data[first : last + 1]
            reply.set("Content-Range", f"bytes {first}-{last}/{len(data)}")
            reply.set("ETag", f'"{hashlib.sha256(data).hexdigest() if name == "step_30" else git_hash(data)}"')
            reply.set("X-Repo-Commit", COMMIT)
        elif path == "api/models/someone/model/revision/main":
            stage = LISTING
            reply.status = 200
            reply.list([*FILES, "README.md"])
        if stage == LISTING or (stage and name == "step_30"):
            self.twist(stage, path, reply)
        return reply


# What is done to an answer: a name, and what draws the change; `far` is another server, `victim` a file not to be touched.
def twists(draw, far, victim):
    path = draw.choice([str(victim), "../../../../x", "/etc/passwd", "..\\..\\x", "a/b", ".", "x\x1b[2J", "é" * 50, "A" * 5000])
    number = draw.choice(["-1", "0", "1", "7", "114549", "114551", str(2**31), str(2**63), str(2**64), "1e9", "0x10", "", " 5", "٣"])
    status = draw.choice([100, 101, 200, 201, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 416, 429, 500, 503, 999, 0])
    where = draw.choice(["/{path}", far + "/{path}", "file:///etc/passwd", "http://[::1", "http://me:pw@127.0.0.1/", "*", "", "//", "?x",
                         "http://127.0.0.1:1/", "ftp://x/", "HTTP://LOCALHOST:0", "http://" + "a" * 3000, "javascript:1", "\x1b[2J"])
    piece = draw.choice([b"z" * 65536, b"10000\r\n" + b"z" * 65536 + b"\r\n", b"drip", b"1\r\nz\r\n", b"\0" * 4096, b"X: " + b"z" * 500 + b"\r\n"])
    raw = draw.choice([b"", b"\x1b[31m220 ready\r\n\r\n", b"HTTP/1.1 206 X\r\nX: ", b"HTTP/9.9 200\r\n\r\n", b"HTTP/1.1 206 X\r\n", b"\0" * 100,
                       b"HTTP/1.1 200 X\r\nContent-Length: 99999999999999999999\r\n\r\n", draw.randbytes(200)])
    body = draw.choice([b"", b"{}", b"[" * 200_000, b'{"siblings":' + b"[" * 200_000, b"null", b'{"siblings":[{}]}', b"\xff\xfe", draw.randbytes(114550)])
    names = draw.choice([[path], ["step_30", path], ["x"] * 100_001, [""], ["step_30\n"], ["step_99", "step_30"], ["step_" + "9" * 400],
                         [f"step_{i}" for i in range(500)], ["all_config.yaml"], ["step_30"] * 3])
    header = draw.choice(["ETag", "X-Linked-Etag", "X-Repo-Commit", "Content-Range", "X-Linked-Size", "Content-Length", "Location"])
    half = draw.random()

    def redirect(asked, reply):
        reply.status = draw.choice([301, 302, 303, 307, 308])
        reply.set("Location", where.replace("{path}", asked))

    def without_end(asked, reply):
        reply.status = 200
        reply.set(*draw.choice([("Transfer-Encoding", "chunked"), ("Connection", "close")]))
        reply.endless(piece)

    def raw_bytes(asked, reply):
        reply.raw, reply.rest = raw, draw.choice([None, piece])

    return {
        "a header is a path": lambda asked, reply: reply.set(header, draw.choice(['"%s"', "%s"]) % path),
        "a header is a number": lambda asked, reply: reply.set(header, number),
        "a header is missing": lambda asked, reply: reply.drop(header),
        "a header is there twice": lambda asked, reply: reply.headers.append((header, number)),
        "a range": lambda asked, reply: reply.set("Content-Range", f"bytes {draw.choice(['0-0', number, '5-9'])}/{number}"),
        "a status": lambda asked, reply: setattr(reply, "status", status),
        "a redirect": redirect,
        "compressed": lambda asked, reply: reply.set("Content-Encoding", draw.choice(["gzip", "br", "x"])),
        "other bytes": lambda asked, reply: setattr(reply, "body", body),
        "a bit": lambda asked, reply: setattr(reply, "body", flipped(reply.body, half)),
        "cut": lambda asked, reply: setattr(reply, "keep", int(len(reply.body) * half)),
        "without end": without_end,
        "no HTTP": raw_bytes,
        "a list of names": lambda asked, reply: reply.list(names),
    }


def flipped(data, where):
    at = int(len(data) * where)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else data


def wrong_in(work, cache):
    """What was written that should not have been."""
    if (work / "victim").read_bytes() != b"mine":
        return "a file outside was overwritten"
    for path in work.rglob("*"):
        if path.is_dir() or path == work / "victim":
            continue
        if not str(path).startswith((f"{cache}/.locks/", f"{cache}/models--someone--model/")):
            return f"{path.relative_to(work)} was written"
        if path.stat().st_size > LARGEST:
            return f"{path.name} has {path.stat().st_size} bytes"
        data = path.read_bytes()
        if path.parent.name == "blobs" and not path.name.endswith(".incomplete"):
            if path.name not in (hashlib.sha256(data).hexdigest(), git_hash(data)):
                return f"blob {path.name} has other bytes"
    return ""


def trial(options, work, number, kind):
    """One command against one hub. What was twisted, and what was wrong."""
    draw = random.Random(f"{options.seed} {number}")
    folder = work / f"h{number}"
    inner = folder / "some/levels/down"
    inner.mkdir(parents=True)
    victim = folder / "victim"
    victim.write_bytes(b"mine")
    far = Hub("127.0.0.2", lambda stage, path, reply: None)
    chosen = {}
    for stage in draw.sample(STAGES, 1 if kind else draw.randint(1, 3)):
        ways = twists(draw, far.address, victim)
        names = [kind] if kind else draw.sample(sorted(ways), draw.randint(1, 3))
        chosen[stage] = {name: ways[name] for name in names}

    def twist(stage, path, reply):
        for change in chosen.get(stage, {}).values():
            change(path, reply)

    near = Hub("127.0.0.1", twist)
    env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    env |= {"HOME": str(inner), "HF_HOME": str(inner / "hf"), "HF_ENDPOINT": near.address, "HF_TOKEN": SECRET,
            "HF_HUB_DOWNLOAD_TIMEOUT": "1", "OMP_NUM_THREADS": "1"}
    command = [options.hrm, "checkpoint", "inspect", "hf://someone/model", "--threads", "1"]
    said = ", ".join(f"{stage}: {' + '.join(ways)}" for stage, ways in chosen.items())
    try:
        ended = subprocess.run(command, cwd=inner, env=env, capture_output=True, timeout=LIMIT_S)
        error, rc = ended.stderr.decode(errors="replace"), ended.returncode
    except subprocess.TimeoutExpired:
        return said, -1, f"still running after {LIMIT_S} s"
    finally:
        near.close()
        far.close()
    wrong = wrong_in(folder, inner / "hf/hub")
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    if rc not in (0, 1):
        wrong = wrong or f"rc {rc}: {error[-300:]!r}"
    elif rc == 1 and not (len(errors) == 1 and error.count("\n") == 1):
        wrong = wrong or f"more than one line: {error[-300:]!r}"
    elif "\x1b" in error or SECRET in error:
        wrong = wrong or f"an escape or the token is printed: {error[-300:]!r}"
    if any(far.tokens):
        wrong = wrong or "the token went to another host"
    shutil.rmtree(folder)
    return said, rc, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--hrm", type=lambda path: Path(path).resolve(), default=campaign.ROOT / "target/release/hrm")
    add("--output", default="reliability", help="folder for hub.json and hub.txt")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=os.cpu_count())
    add("--count", type=int, default=1000, help="hubs")
    add("--number", type=int, help="this one alone, to repeat it")
    add("--time-limit", type=float, default=1e9, help="seconds")
    options = parser.parse_args()
    figures = campaign.Figures("hub", options, ["hubs", "answered", "refused"])
    work = Path(tempfile.mkdtemp(prefix="hrm-hub-"))
    kinds = list(twists(random.Random(0), "", ""))
    for name in [*kinds, "several at once"]:
        figures.case(name)

    def attempt(number):
        if time.monotonic() - figures.began > options.time_limit:
            return False
        # A third with one twist, the rest with several.
        kind = kinds[number // 3 % len(kinds)] if number % 3 == 0 else None
        name = kind or "several at once"
        said, rc, wrong = trial(options, work, number, kind)
        figures.count(name, "hubs", "answered" if rc == 0 else "refused")
        if wrong:
            again = f"python3 scripts/reliability/hub.py --seed {options.seed} --number {number}"
            figures.fail(name, twists=said, what=wrong, repeat=again)
        return True

    numbers = range(options.count) if options.number is None else [options.number]
    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            figures.complete = all(list(pool.map(attempt, numbers)))
    finally:
        figures.write()
        shutil.rmtree(work, ignore_errors=True)
    print(figures.table(), end="")
    print(f"largest program: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB")
    sys.exit(1 if figures.failures else 0)


main()
