"""The answer of a run in two sentences: what is decided, then what is not and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.analysis.presentation.formatting import (
    count,
    interval,
    listed,
    pct,
    sentence,
    stop,
)
from wattbench.analysis.stats import power
from wattbench.analysis.stats.results import (
    HOSTS_LIKE_THESE,
    AcrossHosts,
    Headline,
    HostConclusion,
    Pair,
    PairVerdict,
    RankedImage,
    Settings,
    find_pair,
)

#: What a headline is based on where only one host was measured.
ONE_HOST = "one host"
#: From this ratio on an effect is given as a ratio.
_AS_RATIO = 2.0
#: Images and hosts that a sentence names.
_NAMED = 2
#: More blocks than this are not worth proposing.
_MOST_BLOCKS = 2000


@dataclass(frozen=True)
class View:
    """What the headline is made from; the fields are those of the conclusion."""

    reference: str | None
    ranking: tuple[RankedImage, ...]
    pairs: tuple[Pair, ...]
    basis: str | None
    hosts: tuple[HostConclusion, ...]
    across: AcrossHosts
    settings: Settings
    source: str | None
    endpoint: str = ""

    @property
    def basis_text(self) -> str:
        """For example ``2 hosts``."""
        if self.basis == ONE_HOST:
            return ONE_HOST
        tail = ", for hosts like these" if self.basis == HOSTS_LIKE_THESE else ""
        return count(len(self.across.hosts), "host") + tail


def headline(view: View, *, equal_work: bool) -> Headline:
    """The headline of a conclusion.

    Args:
        view: the conclusion so far.
        equal_work: whether the images are shown to have done the same work.
    """
    ranked = [r for r in view.ranking if r.rank is not None]
    is_modelled = view.source in ("modelled", "mixed")
    if len(ranked) < 2:
        reasons = _no_verdict(view)
        text = _prefixed(view, f"No verdict: {reasons[0]}.")
        rest = sentence("; ".join(reasons[1:])) if reasons[1:] else ""
        return Headline(text, None, False, None, view.basis, is_modelled, rest)
    best = ranked[0].image
    against = view.reference if best != view.reference else ranked[1].image
    rivals = {
        r.image: find_pair(view.pairs, best, r.image) for r in view.ranking if r.image != best
    }
    pair = rivals[str(against)]
    decided = all(p is not None and p.verdict is PairVerdict.LESS for p in rivals.values())
    text, named = _first(view, best, pair, rivals, decided=decided)
    rest = _second(view, best, rivals, named)
    if not equal_work:
        rest = f"Equal work is not proven. {rest}"
    return Headline(_prefixed(view, text), best, decided, pair, view.basis, is_modelled, rest)


def _prefixed(view: View, text: str) -> str:
    prefix = {"modelled": "Modelled", "mixed": "Partly modelled"}.get(view.source or "")
    return f"{prefix}, not measured: {text}" if prefix else text


def why_unranked(pair: Pair | None) -> str:
    """Why an image has no rank."""
    return (pair.reason if pair else None) or "nothing links it to the reference"


def _no_verdict(view: View) -> list[str]:
    """Why there is no verdict, the first reason first."""
    if not view.hosts:
        return ["the run holds no workload trial"]
    if not any(h.counts["valid"] for h in view.hosts):
        planned = sum(sum(h.counts.values()) for h in view.hosts)
        return [f"none of {planned} planned trials is valid"]
    if len(view.ranking) == 1:
        return [f"{view.ranking[0].image} is the only image"]
    if not view.pairs:
        reasons = {h.reason for h in view.hosts if h.reason} or {
            p.reason for h in view.hosts for p in h.pairs if p.reason
        }
        return sorted(reasons) or ["no host compares two images"]
    return [f"{r.image}: {r.reason}" for r in view.ranking if r.reason]


# The first sentence -------------------------------------------------------------------------------


def _first(
    view: View, best: str, pair: Pair | None, rivals: dict[str, Pair | None], *, decided: bool
) -> tuple[str, Pair | None]:
    """What is decided, and the pair that the sentence gives."""
    turned = _turned(view)
    if turned:
        return turned, None
    if decided and pair is not None:
        return f"{best} uses the least energy: {_than(pair)}.", pair
    shown = [p for p in rivals.values() if p is not None and p.verdict is PairVerdict.LESS]
    if pair in shown and pair is not None:
        return f"{_claim(pair)}.", pair
    shown = shown or [
        p if p.verdict is PairVerdict.LESS else p.flipped()
        for p in view.pairs
        if p.verdict in (PairVerdict.LESS, PairVerdict.MORE)
    ]
    if shown:
        largest = min(shown, key=lambda p: (p.estimate_pct or 0.0, p.a, p.b))
        return f"{_claim(largest)}.", largest
    same = [i for i, p in rivals.items() if p is not None and p.verdict is PairVerdict.EQUIVALENT]
    if same:
        margin = f"±{view.settings.equivalence_pct:g} %"
        return f"{listed([best, *same], _NAMED)} are equivalent within {margin}.", None
    return "No image is shown to use the least energy.", None


def _turned(view: View) -> str:
    """The sentence for a pair that two hosts decided in opposite directions; empty without one."""
    for hosts_pair in view.across.pairs:
        a, b = hosts_pair.these_hosts.a, hosts_pair.these_hosts.b
        hosts: dict[PairVerdict, list[str]] = {}
        for host in view.hosts:
            pair = host.pair(a, b)
            if pair is not None:
                hosts.setdefault(pair.verdict, []).append(host.host)
        if PairVerdict.LESS in hosts and PairVerdict.MORE in hosts:
            less, more = (listed(hosts[v], _NAMED) for v in (PairVerdict.LESS, PairVerdict.MORE))
            return f"Which image uses less depends on the host: {a} on {less}, {b} on {more}."
    return ""


@dataclass(frozen=True)
class _Less:
    """An interval of *less* energy; both bounds positive for a decided pair."""

    lower_pct: float | None
    upper_pct: float | None


def _ratio(estimate_pct: float) -> float:
    return 1 / (1 + estimate_pct / 100)


def _is_ratio(pair: Pair) -> bool:
    return _ratio(pair.estimate_pct or 0.0) >= _AS_RATIO


def _bounds_of_less(pair: Pair) -> _Less:
    found = pair.simultaneous
    if found is None:
        return _Less(None, None)
    return _Less(*(None if b is None else -b for b in (found.upper_pct, found.lower_pct)))


def _bounds(pair: Pair) -> str:
    """The interval of the claim, in the claim's own terms."""
    if pair.simultaneous is None:
        return "no interval"
    found = _bounds_of_less(pair)
    low, high = found.lower_pct, found.upper_pct
    if not _is_ratio(pair) or low is None or high is None or high >= 100:
        return interval(found, signed=False)
    return f"{_ratio(-low):.1f} to {_ratio(-high):.1f}"


def less(pair: Pair) -> tuple[str, str]:
    """By how much ``a`` uses less than ``b``, and the interval in the same terms, of a decided pair."""
    return _size(pair), interval(_bounds_of_less(pair), signed=False)


def _than(pair: Pair) -> str:
    """How ``a`` compares with ``b``, of a pair in which ``a`` uses less."""
    if _is_ratio(pair):
        return (
            f"{pair.b} needs {_ratio(pair.estimate_pct or 0.0):.1f} times as much ({_bounds(pair)})"
        )
    return f"{_size(pair)} less than {pair.b} ({_bounds(pair)})"


def _claim(pair: Pair) -> str:
    """The same as a whole clause."""
    if _is_ratio(pair):
        times = f"{_ratio(pair.estimate_pct or 0.0):.1f} times"
        return f"{pair.b} needs {times} the energy of {pair.a} ({_bounds(pair)})"
    return f"{pair.a} uses {_size(pair)} less energy than {pair.b} ({_bounds(pair)})"


def _size(pair: Pair) -> str:
    found = pair.simultaneous
    narrow = found is not None and (found.half_width_pct or 1.0) < 0.25
    return pct(abs(pair.estimate_pct or 0.0), 2 if narrow else 1, signed=False)


# The second sentence ------------------------------------------------------------------------------


def _second(view: View, best: str, rivals: dict[str, Pair | None], named: Pair | None) -> str:
    """What is open and what would decide it; the basis."""
    groups: dict[str, list[str]] = {"equivalent": [], "undecided": [], "less": []}
    unlinked: dict[str, list[str]] = {}
    for image, pair in rivals.items():
        if pair is None or pair.estimate_pct is None:
            unlinked.setdefault(why_unranked(pair), []).append(image)
        elif pair.verdict is PairVerdict.EQUIVALENT:
            groups["equivalent"].append(image)
        elif pair.verdict is PairVerdict.UNDECIDED:
            groups["undecided"].append(image)
        elif pair.verdict is PairVerdict.MORE:
            groups["less"].append(image)
    parts = []
    if groups["undecided"]:
        wanted = to_decide([p for i in groups["undecided"] if (p := rivals[i])], view)
        names = listed(groups["undecided"], _NAMED)
        verb = "is" if len(groups["undecided"]) == 1 else "are"
        parts.append(f"{names} against {best} {verb} undecided: {wanted}")
    if groups["equivalent"] and named is not None:
        margin = f"±{view.settings.equivalence_pct:g} %"
        parts.append(
            f"equivalent to {best} within {margin}: {listed(groups['equivalent'], _NAMED)}"
        )
    if groups["less"]:
        parts.append(f"shown to use less, although ranked lower: {listed(groups['less'], _NAMED)}")
    parts += [f"not compared: {listed(i, _NAMED)} ({why})" for why, i in unlinked.items()]
    level = f"{100 * (1 - view.settings.alpha):g} %"
    endpoint = f"{view.endpoint}, " if view.endpoint else ""
    scope = f"{endpoint}{view.basis_text}, intervals hold jointly at {level}"
    return stop("; ".join([*parts, scope])) if parts else sentence(scope)


def to_decide(pairs: Sequence[Pair], view: View) -> str:
    """What would decide pairs that are undecided: the number of further blocks, from their noise."""
    margin_pct = view.settings.equivalence_pct
    margin = f"±{margin_pct:g} %"
    if view.basis == HOSTS_LIKE_THESE:
        return f"more hosts would decide {margin}"
    alpha = view.settings.alpha / max(1, len(view.pairs))
    blocked = all(h.design == "blocked" for h in view.hosts if h.pairs)
    noun, tail = ("block", "") if blocked else ("trial", " per image")
    tail += " per host" if len(view.across.hosts) > 1 else ""
    wanted: list[int | None] = []
    for pair in pairs:
        own = [p for h in view.hosts if (p := h.pair(pair.a, pair.b)) and p.n]
        spreads = [(p.n, p.sd_log_pct) for p in own if p.sd_log_pct is not None]
        done, hosts = sum(p.n for p in own), max(1, len(own))
        if not spreads:
            least = math.ceil((power.smallest_n(alpha, blocked=blocked) - done) / hosts)
            return f"at least {count(max(1, least), f'more {noun}')}{tail} needed"
        weight = sum(n for n, _ in spreads)
        sd_pct = math.sqrt(sum(n * sd**2 for n, sd in spreads) / weight)
        needed = power.trials_to_decide(margin_pct, sd_pct, alpha=alpha, blocked=blocked)
        wanted.append(None if needed is None else math.ceil((needed - done) / hosts))
    if any(n is None or n > _MOST_BLOCKS for n in wanted):
        return f"{noun}s scatter too much to decide {margin} by repeating"
    most = max(n for n in wanted if n is not None)
    if most <= 0:
        return f"another run of this size would decide {margin} in four of five cases"
    return f"{count(most, f'more {noun}')}{tail} would decide {margin}"
