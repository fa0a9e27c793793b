#!/usr/bin/env python3
"""Kills commands at their n-th call that writes (before it, after it, halfway through it), goes on as a user would, and
compares the folder with that of an undisturbed run: the same files with the same bytes, and nothing else.

  python3 scripts/reliability/kills.py --count 100 --jobs 2
"""

import shutil

import campaign

OPTIONS = campaign.arguments(__doc__)


def hows(point):
    _, call, length, _ = point
    torn = call in ("write", "pwrite", "writev", "copy_file_range", "sendfile") and int(length) > 1
    return ["before", "after", "torn"] if torn else ["before", "after"]


def trial(bench, one, n, how, figures):
    folder, case = bench.folder(one.template), one.case
    ended = bench.run(folder, case.command, (n, how), processes=case.processes)
    # Of several processes the one that is killed is not always the first.
    killed = ended.rc == -9 or (case.processes and ended.rc != 0)
    if killed or ended.rc == 0:
        broken = campaign.neither(case, one.before, campaign.snapshot(folder, case.measured), one.wanted)
        unlike, forced = bench.go_on(folder, one)
    else:
        broken, unlike, forced = f"rc {ended.rc}: {ended.said}", "", False
    wrong = "; ".join(filter(None, [broken, unlike]))
    figures.count(case.name, "kills" if killed else "not reached", *["forced"] * forced)
    if wrong:
        again = campaign.repeat("kills.py", one, n, how)
        figures.fail(case.name, n=n, how=how, call=campaign.call_of(one, n), what=wrong, repeat=again)
    if not (wrong and OPTIONS.keep):
        shutil.rmtree(folder)


campaign.campaign("kills", OPTIONS, ["kills", "not reached", "forced"], hows, trial)
