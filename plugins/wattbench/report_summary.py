"""Summary of a stored report, for pages and notifications: pure functions of its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effect:
    """One image against the reference on one host.

    Attributes:
        host: where.
        image: which.
        verdict: less, more, equivalent or undecided.
        estimate_pct: energy against the reference's, %; None: nothing can be estimated.
        lower_pct: of the interval that holds jointly over all pairs; None: unbounded.
        upper_pct: likewise.
        reason: why there is no verdict, or why a figure is missing.
    """

    host: str
    image: str
    verdict: str
    estimate_pct: float | None
    lower_pct: float | None
    upper_pct: float | None
    reason: str


@dataclass(frozen=True)
class Answer:
    """A report's answer.

    Attributes:
        headline: in one sentence.
        conditions: what it depends on, in another; empty: of an older version.
        decided: whether there is a verdict.
        modelled: whether joules come from a model.
        reference: the image that the others are compared with.
        images: all of them.
        hosts: that took part.
        valid: trials that count.
        wanted: planned trials without those skipped on purpose.
        errors: findings of severity error.
        warnings: likewise warning.
        effects: every image against the reference on every host.
    """

    headline: str
    decided: bool
    modelled: bool
    reference: str
    images: tuple[str, ...]
    hosts: tuple[str, ...]
    valid: int
    wanted: int
    errors: int
    warnings: int
    effects: tuple[Effect, ...]
    conditions: str = ""

    def effect(self, host: str, image: str) -> Effect | None:
        """Of one image on one host."""
        return next((e for e in self.effects if (e.host, e.image) == (host, image)), None)


def answer(summary: Mapping[str, Any]) -> Answer:
    """Read a report's `summary.json`."""
    trials = summary["trials"]
    reference = str(summary["reference"])
    return Answer(
        headline=str(summary["headline"]),
        decided=bool(summary["decided"]),
        modelled=bool(summary["modelled"]),
        reference=reference,
        images=tuple(summary["images"]),
        hosts=tuple(summary["hosts"]),
        valid=int(trials.get("valid", 0)),
        wanted=int(summary["planned"]) - int(trials.get("skipped", 0)),
        errors=int(summary["findings"]["error"]),
        warnings=int(summary["findings"]["warning"]),
        effects=tuple(
            effect
            for host in summary["conclusion"]["hosts"]
            for effect in _effects(host, reference)
        ),
        conditions=str(summary.get("conditions") or ""),
    )


def _effects(host: Mapping[str, Any], reference: str) -> list[Effect]:
    found = []
    for pair in host["pairs"]:
        if pair["b"] != reference:
            continue
        own, joint = pair["individual"] or {}, pair["simultaneous"] or {}
        found.append(
            Effect(
                str(host["host"]), str(pair["a"]), str(pair["verdict"]), own.get("estimate_pct"),
                joint.get("lower_pct"), joint.get("upper_pct"), str(pair["reason"] or ""),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Point:
    """One run's effect in a trend."""

    run_id: str
    effect: Effect


def trends(answers: Sequence[tuple[str, Answer]]) -> dict[tuple[str, str], list[Point]]:
    """`{(host, image): its effects, oldest run first}` of runs in order."""
    found: dict[tuple[str, str], list[Point]] = {}
    for run_id, one in answers:
        for effect in one.effects:
            if effect.estimate_pct is not None:
                found.setdefault((effect.host, effect.image), []).append(Point(run_id, effect))
    return found
