"""Effects of factor levels and image layers on energy, time and size.

Each effect is a contrast of log values inside blocks, judged by the machinery of the verdicts
(:mod:`analysis.within_host`, :mod:`analysis.across_hosts`); all effects on one endpoint are one family
of tests. A level's effect is its log ratio to the same image without it. Where levels are combined it
is averaged over the settings of the other factors, and an interaction is the difference of two such
log ratios: by how much two levels together differ from the product of each alone. A layer's effect is
that of its rung against the rung below.

Sources: Montgomery 2017, *Design and Analysis of Experiments*, ch. 5 and 6 (effects and interactions
as contrasts of cell means).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from wattbench.analysis.model.experiment_document import ExperimentDocument, LayerDocument
from wattbench.analysis.stats import across_hosts, early_stopping, within_host
from wattbench.analysis.stats.endpoints import HostTrials, host_trials, images_of
from wattbench.analysis.stats.results import Pair, Settings

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """One effect.

    Attributes:
        kind: ``factor``, ``layer`` or ``interaction``.
        factor: the factor, the image whose layer it is, or two factors.
        level: the level, the layer's number with its instruction, or two levels.
        image: that has it; of an interaction, that has both.
        against: what it is compared with.
        weights: the contrast of log values, a weight an image; they sum to 0.
        energy: in % joules of the window; None where an image was left out.
        time: in % seconds of the window.
        size_mb: what it adds to the image, MB.
        size_pct: likewise, %.
        reason: why there is nothing to compare.
    """

    kind: Literal["factor", "layer", "interaction"]
    factor: str
    level: str
    image: str
    against: str
    weights: Mapping[str, float] = field(default_factory=dict)
    energy: Pair | None = None
    time: Pair | None = None
    size_mb: float | None = None
    size_pct: float | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """The effect in a few words."""
        if self.kind == "layer":
            numbers = re.findall(r"(?:^|; )(\d+): (?=RUN |COPY |ADD |the base)", self.level)
            return f"layer {'+'.join(numbers)} of {self.factor}"
        return f"{self.factor} {self.level}"

    @property
    def magnitude(self) -> float:
        """Size of the effect on energy, the same for a ratio and its inverse; −1 without one."""
        estimate = self.energy.estimate_pct if self.energy else None
        return -1.0 if estimate is None else abs(math.log1p(estimate / 100))


def what_matters(
    trials: pd.DataFrame,
    settings: Settings,
    experiment: ExperimentDocument,
    sizes_mb: Mapping[str, float],
) -> tuple[Effect, ...]:
    """Every declared effect, the largest on energy first, interactions last.

    Args:
        trials: rows in the schema of :mod:`analysis.trials`.
        settings: as laid down before the first trial.
        experiment: as ``run.json`` holds it: ``reference``, ``variants``, ``ladders``.
        sizes_mb: size by image, as far as it is known.

    Returns:
        Nothing where the experiment declares neither factors nor layers.
    """
    reference = str(experiment.get("reference"))
    images = images_of(trials, reference)
    variants: dict[str, Mapping[str, str]] = {reference: {}}
    variants |= experiment.get("variants", {})
    main = [*_levels(variants, images), *_layers(experiment.get("ladders", {}), images)]
    if not main:
        return ()
    share = early_stopping.factor(len(images), settings)
    names = sorted(trials.loc[trials["kind"] == "workload", "host"].fillna("").unique())
    hosts = [host_trials(trials, str(name), images, settings.endpoint) for name in names]
    found = []
    for family in (main, list(_interactions(variants, images))):
        energy = _judged(family, hosts, settings, share, "joules")
        time = _judged(family, hosts, settings, share, "duration_s")
        judged = [
            replace(_sized(e, sizes_mb), energy=energy.get(i), time=time.get(i))
            for i, e in enumerate(family)
        ]
        found += sorted(judged, key=lambda e: (-e.magnitude, e.factor, e.level))
    return tuple(found)


# Contrasts --------------------------------------------------------------------------------------

Variants = Mapping[str, Mapping[str, str]]


def _levels(variants: Variants, images: Sequence[str]) -> Iterator[Effect]:
    """Each level against the same settings without it, averaged over all settings that were measured."""
    at = _at(variants, images)
    levels = {pair: None for settings in variants.values() for pair in settings.items()}
    for factor, level in levels:
        with_it = [s for s in at if (factor, level) in s]
        pairs = [(at[s], at[s - {(factor, level)}]) for s in with_it if s - {(factor, level)} in at]
        weights = _mean([{a: 1.0, b: -1.0} for a, b in pairs])
        image, against = pairs[0] if pairs else _declared(variants, factor, level)
        reason = None if pairs else "an image of the comparison was left out"
        yield Effect("factor", factor, level, image, against, weights, reason=reason)


def _interactions(variants: Variants, images: Sequence[str]) -> Iterator[Effect]:
    """Two levels together against the product of each alone, averaged over the other factors."""
    at = _at(variants, images)
    seen = {pair for s in at for pair in itertools.combinations(sorted(s), 2)}
    for one, two in sorted(seen):
        squares = [
            {at[s]: 1.0, at[s - {one}]: -1.0, at[s - {two}]: -1.0, at[s - {one, two}]: 1.0}
            for s in sorted(at, key=len)
            if {one, two} <= s and {s - {one}, s - {two}, s - {one, two}} <= at.keys()
        ]
        if squares:
            (f, level), (g, other) = one, two
            both = next(iter(squares[0]))
            yield Effect(
                "interaction",
                f"{f} × {g}",
                f"{level} × {other}",
                both,
                "each alone",
                _mean(squares),
            )


def _at(variants: Variants, images: Sequence[str]) -> dict[frozenset[tuple[str, str]], str]:
    """Settings → the image that has them, of those measured; single changes first."""
    measured = [(frozenset(s.items()), image) for image, s in variants.items() if image in images]
    return dict(sorted(measured, key=lambda entry: len(entry[0])))


def _declared(variants: Variants, factor: str, level: str) -> tuple[str, str]:
    image = next(i for i, settings in variants.items() if settings.get(factor) == level)
    return image, next(iter(variants))


def _mean(contrasts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for contrast in contrasts:
        for image, weight in contrast.items():
            weights[image] = weights.get(image, 0.0) + weight / len(contrasts)
    return weights


def _layers(
    ladders: Mapping[str, Sequence[LayerDocument]], images: Sequence[str]
) -> Iterator[Effect]:
    """Each rung against the next lower one that was measured; what lies between counts as one layer."""
    for name, rungs in ladders.items():
        below: str | None = None
        between: list[str] = []
        for rung in rungs:
            between.append(f"{rung['number']}: {rung['instruction'] or 'the base'}")
            image = rung["image"]
            if image not in images:
                continue
            if below is not None:
                weights = {image: 1.0, below: -1.0}
                yield Effect("layer", name, "; ".join(between), image, below, weights)
            below, between = image, []


# Numbers ----------------------------------------------------------------------------------------


def _judged(
    family: Sequence[Effect],
    hosts: Sequence[HostTrials],
    settings: Settings,
    share: float,
    column: str,
) -> dict[int, Pair]:
    """The comparison of each effect by its place, over all hosts or on the one that has them."""
    places = [i for i, effect in enumerate(family) if effect.weights]
    tables = {h.host: h.table(column) for h in hosts if h.reason is None}
    if not places or not tables:
        return {}
    differences = {
        host: [_contrast(table, family[i].weights) for i in places]
        for host, table in tables.items()
    }
    # Two effects may be between the same two images: each has a name of its own.
    names = [(f"{i} {family[i].image}", family[i].against) for i in places]
    shares = {
        name: [s for host, d in differences.items() if (s := across_hosts.paired(host, d[k]))]
        for k, name in enumerate(names)
    }
    if any(len(s) > 1 for s in shares.values()):
        combined = across_hosts.combine_pairs(names, shares, settings, share)
        pairs = [pair.leading for pair in combined]
    else:
        fullest = max(differences.values(), key=lambda d: sum(map(len, d)))
        pairs = list(
            within_host.judge(
                [within_host.paired(a, b, d) for (a, b), d in zip(names, fullest, strict=True)],
                "blocked",
                settings,
                share,
            )
        )
    return {i: replace(p, a=family[i].image) for i, p in zip(places, pairs, strict=True)}


def _contrast(table: pd.DataFrame, weights: Mapping[str, float]) -> Array:
    """The contrast in each block that holds all its images."""
    values = table[list(weights)].dropna()
    return np.asarray(values.to_numpy(float) @ np.array(list(weights.values())))


def _sized(effect: Effect, sizes_mb: Mapping[str, float]) -> Effect:
    """With what it adds to the image; an interaction adds nothing of its own."""
    if (
        effect.kind == "interaction"
        or not effect.weights
        or not effect.weights.keys() <= sizes_mb.keys()
    ):
        return effect
    weighed = [(w, sizes_mb[image]) for image, w in effect.weights.items()]
    return replace(
        effect,
        size_mb=sum(w * size for w, size in weighed),
        size_pct=100 * math.expm1(sum(w * math.log(size) for w, size in weighed)),
    )
