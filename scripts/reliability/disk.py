#!/usr/bin/env python3
"""Lets each call that writes fail once with ENOSPC and once with EIO, and with ENOSPC from there on. The command must end
with one line of error and rc 1, or, where the call does not matter, as if nothing had happened; what was there before
is there still; and then the same command goes on to what an undisturbed run leaves.

  python3 scripts/reliability/disk.py --only train --jobs 2
"""

import errno
import shutil

import campaign

OPTIONS = campaign.arguments(__doc__)
HOWS = [str(errno.ENOSPC), str(errno.EIO), f"{errno.ENOSPC}-stays"]


def earlier_lost(one, now):
    """Files that were there before, as they shall be in the end, and are not any more."""
    kept = [name for name, data in one.before.items() if one.wanted.get(name) == data and now.get(name) != data]
    return f"lost by the fault: {', '.join(kept)}" if kept else ""


def trial(bench, one, n, how, figures):
    folder, case = bench.folder(one.template), one.case
    ended = bench.run(folder, case.command, (n, how), processes=case.processes)
    now = campaign.snapshot(folder, case.measured)
    wrong = [campaign.neither(case, one.before, now, one.wanted), earlier_lost(one, now)]
    if ended.rc == 1:
        column = "refused"
        wrong.append(campaign.odd_words(ended.said) if not case.processes else "")
    elif ended.rc == 0:
        column = "immaterial"
    else:
        column = "odd"
        wrong.append(f"rc {ended.rc}: {campaign.last_line(ended.said)}")
    unlike = campaign.difference(now, one.wanted) if ended.rc == 0 else ""
    # A success that leaves something else must at least have warned, and the next run must mend it.
    if unlike and "warning" not in ended.said:
        wrong.append(f"rc 0 and not a word, but {unlike}")
    if ended.rc != 0 or unlike:
        wrong.append(bench.go_on(folder, one)[0])
    figures.count(case.name, "faults", column)
    said = "; ".join(filter(None, wrong))
    if said:
        again = campaign.repeat("disk.py", one, n, how)
        figures.fail(case.name, n=n, how=how, call=campaign.call_of(one, n), what=said, repeat=again)
    if not (said and OPTIONS.keep):
        shutil.rmtree(folder)


COLUMNS = ["faults", "refused", "immaterial", "odd"]
# The lasting ones come when every call has failed once with either number.
campaign.campaign("disk", OPTIONS, COLUMNS, lambda point: HOWS, trial, last=lambda how: how.endswith("-stays"))
