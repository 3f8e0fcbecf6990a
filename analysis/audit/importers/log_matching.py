"""Which start of a log belongs to which raw file of the same folder.

Logs carry neither run numbers nor times; files may have been overwritten while the log grew. What ties
the two together is the meter's arithmetic: its summary line adds up the package counter from the first to
the last but one row, wraps and all. Starts without such a line are placed between those that have one, in
order of time, where the durations allow it.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from wattbench.analysis.audit.importers.reduce import Reduced
from wattbench.analysis.audit.logs import Start
from wattbench.analysis.audit.treatments import folder_of, run_of, stem_of

#: Joules within which a summary line and a raw file are the same number.
SAME_J = 0.01

#: Share of the energy and of an interval that a meter of another build may differ by.
NEAR_SHARE = 0.02

#: Cells of the alignment beyond which leftovers are matched in plain order.
_LARGEST = 4_000_000

Pairs = list[tuple[Start | None, Reduced | None]]


def pair_by_name(starts: Sequence[Start], raws: Sequence[Reduced]) -> Pairs:
    """Match starts and raw files: first those of a text log that is named like one raw file.

    The last start of such a log wrote the raw file, which each start writes anew.
    """
    if not starts:
        return [(None, raw) for raw in _in_time(raws)]
    last = {start.file: start for start in starts}
    named: dict[str, tuple[Start, Reduced]] = {}
    for name_of in (stem_of, run_of):
        of_name: defaultdict[tuple[str, object], list[Reduced]] = defaultdict(list)
        files: defaultdict[tuple[str, object], list[str]] = defaultdict(list)
        for raw in raws:
            of_name[folder_of(raw.path), name_of(raw.path)].append(raw)
        for file in last:
            files[folder_of(file), name_of(file)].append(file)
        for (folder, name), mine in files.items():
            same = of_name[folder, name]
            # One log alone with a number may be the log of all runs.
            sure = name_of is stem_of or len(last) > 1
            if name is not None and sure and len(same) == len(mine) == 1:
                named.setdefault(same[0].path, (last[mine[0]], same[0]))
        if named:
            break
    if not named:
        return pair(starts, raws)
    taken = {id(start) for start, _ in named.values()}
    alone = {start.file for start, _ in named.values()}
    rest = pair(
        [s for s in starts if s.file not in alone], [r for r in raws if r.path not in named]
    )
    repeated: Pairs = [(s, None) for s in starts if s.file in alone and id(s) not in taken]
    pairs: Pairs = [*named.values(), *rest, *repeated]
    return sorted(pairs, key=lambda p: (p[1] is None, (p[1] and p[1].first_s) or 0.0))


def pair(starts: Sequence[Start], raws: Sequence[Reduced]) -> Pairs:
    """Match starts and raw files.

    Args:
        starts: in the log's order.
        raws: of the same folder, in any order.

    Returns:
        every start and every file once, files in order of time; what has no partner stands alone.
    """
    timed = _in_time(raws)
    match = _exact(starts, timed)
    if 2 * len(match) < sum(start.summary_j is not None for start in starts):
        near = _near(starts, timed)
        match = near if len(near) > len(match) else match
    overhead = [
        duration - starts[i].worked_s
        for i, j in match.items()
        if starts[i].complete and (duration := timed[j].duration_s) is not None
    ]
    usual = statistics.median(overhead) if overhead else None
    taken = set(match.values())
    for (i0, i1), (j0, j1) in _between(match, len(starts), len(timed)):
        free_i = [i for i in range(i0, i1) if i not in match]
        free_j = [j for j in range(j0, j1) if j not in taken]
        match |= _align(starts, timed, free_i, free_j, usual)
    return _merge(starts, timed, match)


def _in_time(raws: Sequence[Reduced]) -> list[Reduced]:
    return sorted(raws, key=lambda r: (r.first_s is None, r.first_s or 0.0, r.path))


def _exact(starts: Sequence[Start], raws: Sequence[Reduced]) -> dict[int, int]:
    """Pairs whose joules agree to the last digits; equal sums are taken in order."""
    at: defaultdict[int, list[int]] = defaultdict(list)
    for j, raw in enumerate(raws):
        for joules in _sums(raw):
            at[round(joules / SAME_J)].append(j)
    match: dict[int, int] = {}
    used: set[int] = set()
    for i, start in enumerate(starts):
        if start.summary_j is None:
            continue
        key = round(start.summary_j / SAME_J)
        for j in sorted({j for k in (key - 1, key, key + 1) for j in at.get(k, ())}):
            if j not in used and any(abs(s - start.summary_j) <= SAME_J for s in _sums(raws[j])):
                match[i] = j
                used.add(j)
                break
    return match


def _sums(raw: Reduced) -> tuple[float, ...]:
    package = raw.energy("package") or raw.energy("system")
    if package is None:
        return ()
    return tuple(
        j
        for j in (package.summary_j, package.naive_j)
        if j is not None and math.isfinite(j / SAME_J)
    )


def _near(starts: Sequence[Start], raws: Sequence[Reduced]) -> dict[int, int]:
    """For meters whose sum differs a little: same order, close in joules and seconds."""
    match: dict[int, int] = {}
    begin = 0
    for i, start in enumerate(starts):
        if start.summary_j is None or start.summary_s is None:
            continue
        for j in range(begin, len(raws)):
            package, seconds = (
                raws[j].energy("package") or raws[j].energy("system"),
                raws[j].duration_s,
            )
            if package is None or package.joules is None or seconds is None:
                continue
            near_j = abs(package.joules - start.summary_j) <= NEAR_SHARE * abs(start.summary_j)
            slack = (raws[j].interval_s or 0.0) + 1.0
            if near_j and abs(seconds - start.summary_s) <= slack:
                match[i] = j
                begin = j + 1
                break
    return match


def _between(
    match: dict[int, int], n: int, m: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Stretches of the log and of the files between matches that are in the same order in both."""
    tails: list[tuple[int, int]] = []  # patience sorting: the longest increasing run of matches
    back: dict[tuple[int, int], tuple[int, int] | None] = {}
    for i, j in sorted(match.items()):
        place = bisect_left([t[1] for t in tails], j)
        back[i, j] = tails[place - 1] if place else None
        tails[place : place + 1] = [(i, j)]
    anchors: list[tuple[int, int]] = []
    node = tails[-1] if tails else None
    while node is not None:
        anchors.append(node)
        node = back[node]
    edges = [(-1, -1), *reversed(anchors), (n, m)]
    return [((i0 + 1, i1), (j0 + 1, j1)) for (i0, j0), (i1, j1) in pairwise(edges)]


def _align(
    starts: Sequence[Start],
    raws: Sequence[Reduced],
    free_i: list[int],
    free_j: list[int],
    usual: float | None,
) -> dict[int, int]:
    """Order-keeping alignment of the rest, by dynamic programming over how well durations fit."""
    n, m = len(free_i), len(free_j)
    if not n or not m:
        return {}
    if n * m > _LARGEST:
        return dict(zip(free_i, free_j, strict=False))
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    for a in range(n - 1, -1, -1):
        for b in range(m - 1, -1, -1):
            fits = _fits(starts[free_i[a]], raws[free_j[b]], usual)
            best[a][b] = max(
                best[a + 1][b],
                best[a][b + 1],
                best[a + 1][b + 1] + fits if fits > 0 else 0.0,
            )
    match: dict[int, int] = {}
    a = b = 0
    while a < n and b < m:
        if best[a][b] == best[a + 1][b]:
            a += 1
        elif best[a][b] == best[a][b + 1]:
            b += 1
        else:
            match[free_i[a]] = free_j[b]
            a, b = a + 1, b + 1
    return match


def _fits(start: Start, raw: Reduced, usual: float | None) -> float:
    """How well a start without a partner fits a file; 0: not at all."""
    if start.summary_j is not None:
        return 0.0  # its own file would have had the same sum: it was overwritten
    interval = raw.interval_s or 0.0
    seconds = raw.duration_s
    if seconds is None:
        return 1.0
    package = raw.energy("package")
    cut = raw.last_delta_s is not None and raw.last_delta_s >= 0.5 * interval
    silent = package is None or package.summary_j is None or package.summary_j <= 0
    score = 4.0 if silent or cut else 1.0
    worked = start.worked_s
    if worked and seconds < worked - interval - 1 and not (cut or start.panic):
        return 0.0
    if start.complete and not cut:
        over = seconds - worked - (usual if usual is not None else interval)
        score += 4.0 - min(3.5, abs(over) / max(interval, 1.0))
        if over > max(120.0, 0.5 * worked):
            return 0.0
    elif start.complete is False and cut:
        score += 2.0
    return score


def _merge(starts: Sequence[Start], raws: Sequence[Reduced], match: dict[int, int]) -> Pairs:
    """All of both, files in order of time, lone starts after the partner of the start before."""
    of_raw = {j: i for i, j in match.items()}
    pairs: Pairs = [(starts[of_raw[j]] if j in of_raw else None, r) for j, r in enumerate(raws)]
    pairs += [(start, None) for i, start in enumerate(starts) if i not in match]
    return pairs
