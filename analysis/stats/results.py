"""Result types of the statistics: frozen, read by the report and written as JSON.

Every relative figure is in percent energy of image ``a`` against image ``b``: −10 means that ``a``
uses 10 % less. An unknown figure is None, with its ``reason`` beside it; no value
is ever NaN.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.trials import ENDPOINTS, WINDOW

#: Why a comparison of few blocks has no verdict; pages quote it as it stands.
TOO_FEW_BLOCKS = "too few blocks"

#: Label of the common-effect interval, and of the random-effects one.
THESE_HOSTS = "these hosts"
HOSTS_LIKE_THESE = "hosts like these"


class PairVerdict(StrEnum):
    """How a comparison ended, seen from its first image."""

    LESS = "less"
    MORE = "more"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"

    def flipped(self) -> PairVerdict:
        """The same verdict seen from the other image."""
        return {PairVerdict.LESS: PairVerdict.MORE, PairVerdict.MORE: PairVerdict.LESS}.get(
            self, self
        )


#: Verdicts that say which image uses less.
DECIDED = (PairVerdict.LESS, PairVerdict.MORE)


@dataclass(frozen=True)
class Settings:
    """What was laid down before the first trial.

    Attributes:
        reference: the image that the others are compared with; None takes the one of lowest median.
        alpha: the family-wise error rate of verdicts, 1 − the simultaneous coverage of intervals.
        correction: over the pairs of images.
        equivalence_pct: margin of equivalence, ± % energy.
        precision_pct: half-width at which a host stops early; None for a fixed number of blocks.
        blocks_min: earliest block to stop after.
        blocks_max: planned blocks.
        seed: of every Monte-Carlo figure.
        draws: permutations where they can't be enumerated.
        endpoint: what is compared: joules of the ``window``, or of the ``steady`` phases per unit.
    """

    reference: str | None = None
    alpha: float = 0.05
    correction: Literal["holm", "bonferroni"] = "holm"
    equivalence_pct: float = 1.0
    precision_pct: float | None = None
    blocks_min: int | None = None
    blocks_max: int | None = None
    seed: int = 0
    draws: int = 20_000
    endpoint: str = WINDOW

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint is {self.endpoint!r}; allowed: {', '.join(ENDPOINTS)}")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}; it lies between 0 and 0.5")
        if self.correction not in ("holm", "bonferroni"):
            raise ValueError(f"correction is {self.correction!r}; allowed: holm, bonferroni")
        if not 0 < self.equivalence_pct < 100:
            raise ValueError(
                f"equivalence_pct is {self.equivalence_pct}; it lies between 0 and 100"
            )


@dataclass(frozen=True)
class Interval:
    """An estimate in % energy with its confidence interval; a bound of None is unbounded.

    Attributes:
        estimate_pct: the point estimate.
        lower_pct: lower bound, or None.
        upper_pct: upper bound, or None.
        level: confidence, for example 0.95.
    """

    estimate_pct: float
    lower_pct: float | None
    upper_pct: float | None
    level: float

    @property
    def half_width_pct(self) -> float | None:
        """Half the interval's length in % energy, None where it is unbounded."""
        if self.lower_pct is None or self.upper_pct is None:
            return None
        return (self.upper_pct - self.lower_pct) / 2

    def flipped(self) -> Interval:
        """The interval of b against a."""

        def invert(pct: float | None) -> float | None:
            return None if pct is None else 100 * (1 / (1 + pct / 100) - 1)

        estimate = invert(self.estimate_pct)
        assert estimate is not None
        return Interval(estimate, invert(self.upper_pct), invert(self.lower_pct), self.level)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against the margin.

    Attributes:
        margin_pct: ± % energy.
        p: the larger of the two one-sided p.
        p_adjusted: corrected over the pairs.
        holds: ``p_adjusted`` ≤ α.
        interval: the pair's own 1 − 2α interval.
    """

    margin_pct: float
    p: float
    p_adjusted: float
    holds: bool
    interval: Interval


@dataclass(frozen=True)
class Delta:
    """Cliff's delta of joules, P(a > b) − P(a < b), with its 1 − α interval.

    Negative: ``a`` uses less.
    """

    delta: float
    lower: float | None
    upper: float | None
    reason: str | None = None

    def flipped(self) -> Delta:
        """Of b against a."""
        return Delta(
            -self.delta,
            None if self.upper is None else -self.upper,
            None if self.lower is None else -self.lower,
            self.reason,
        )


@dataclass(frozen=True)
class Pair:
    """One image against another on one host, or over hosts.

    Attributes:
        a: the first image.
        b: the second; the reference where it takes part.
        n: blocks that hold both (unblocked: the smaller number of trials).
        individual: interval at 1 − α for this pair alone; None when nothing can be estimated.
        simultaneous: interval that holds jointly over all pairs at 1 − α: the one behind the
            verdict. A bound of exactly 0 next to a decided sign: Holm's procedure decides the sign
            but bounds no size.
        p: two-sided p of no difference, uncorrected.
        p_adjusted: corrected over the pairs.
        equivalence: the test of equivalence.
        verdict: less, more, equivalent or undecided.
        within_margin: of a decided difference: whether it was also shown to lie inside the margin.
        delta: Cliff's delta (None over hosts: joules of hosts are never pooled).
        sd_log_pct: SD of the log ratio between blocks, in % (unblocked: pooled over both images).
        detectable_pct: smallest difference found with 80 % power at this n and SD, corrected.
        method: estimator and interval, in words.
        ties: blocks with exactly equal energy.
        reason: why it is undecided, or why a figure is missing.
    """

    a: str
    b: str
    n: int
    individual: Interval | None = None
    simultaneous: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    equivalence: Equivalence | None = None
    verdict: PairVerdict = PairVerdict.UNDECIDED
    within_margin: bool | None = None
    delta: Delta | None = None
    sd_log_pct: float | None = None
    detectable_pct: float | None = None
    method: str = ""
    ties: int = 0
    reason: str | None = None

    @property
    def estimate_pct(self) -> float | None:
        """The point estimate, % energy of a against b."""
        return self.individual.estimate_pct if self.individual else None

    def flipped(self) -> Pair:
        """The same comparison seen from b."""
        return dataclasses.replace(
            self,
            a=self.b,
            b=self.a,
            individual=self.individual and self.individual.flipped(),
            simultaneous=self.simultaneous and self.simultaneous.flipped(),
            equivalence=self.equivalence
            and dataclasses.replace(self.equivalence, interval=self.equivalence.interval.flipped()),
            verdict=self.verdict.flipped(),
            delta=self.delta and self.delta.flipped(),
        )


@dataclass(frozen=True)
class Omnibus:
    """Whether the images differ at all.

    Attributes:
        test: ``Friedman``, ``Skillings–Mack``, ``Wilcoxon signed-rank`` or ``Kruskal–Wallis``.
        statistic: its value.
        df: degrees of freedom of the statistic's asymptotic law, for comparison with other
            programs.
        p: from the randomisation that was really done.
        p_method: ``exact``, ``Monte Carlo (N draws, seed S)`` or ``chi-square``.
        blocks: blocks used.
        images: images compared.
        ties: blocks with tied values.
    """

    test: str
    statistic: float
    df: int
    p: float
    p_method: str
    blocks: int
    images: int
    ties: int = 0


@dataclass(frozen=True)
class ImageSummary:
    """One image on one host, of its valid workload trials over the common domains.

    ``planned``, ``valid``: trials. ``shapiro_p`` describes; nothing depends on it. ``rank``: by
    estimated energy, 1 is least. ``vs_reference``: the simultaneous interval against the reference
    (None for itself).
    """

    image: str
    planned: int
    valid: int
    rank: int | None = None
    median_j: float | None = None
    mean_j: float | None = None
    sd_j: float | None = None
    cv_pct: float | None = None
    median_s: float | None = None
    shapiro_p: float | None = None
    vs_reference: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Secondary:
    """A secondary endpoint: shown beside the primary one, never chosen after the fact.

    Attributes:
        endpoint: the column: ``idle_corrected_j``, ``steady_j``, ``j_per_image``, ``duration_s``.
        label: for people.
        unit: of the column.
        pairs: as for the primary endpoint, corrected within this endpoint.
        reason: why there are none.
    """

    endpoint: str
    label: str
    unit: str
    pairs: tuple[Pair, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Trend:
    """Monotone drift with the order of execution: Spearman's rho of residual log energy.

    ``change_pct``: fitted change from first to last trial, % energy.
    """

    rho: float | None
    p: float | None
    change_pct: float | None
    found: bool
    reason: str | None = None


@dataclass(frozen=True)
class Step:
    """A change of level: at ``position`` begins the new one, by ``change_pct`` %."""

    position: int
    change_pct: float


@dataclass(frozen=True)
class Steps:
    """Change points of the residual log energy; ``p`` of one step at all, by permutation."""

    steps: tuple[Step, ...]
    p: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Autocorrelation:
    """Of residual log energy in the order of execution: lag-1 coefficient and Ljung–Box p."""

    lag1: float | None
    p: float | None
    found: bool
    reason: str | None = None


@dataclass(frozen=True)
class Outlier:
    """One trial far from the others of its image; flagged, never dropped.

    ``score``: modified z by MAD.
    """

    image: str
    position: int | None
    block: int | None
    planned_position: int | None
    attempt: int | None
    energy_j: float
    score: float


@dataclass(frozen=True)
class CarryOverChange:
    """An image against the reference, % energy: unadjusted and adjusted for the preceding trial."""

    image: str
    plain_pct: float
    adjusted_pct: float


@dataclass(frozen=True)
class CarryOver:
    """F test for an effect of the preceding trial on log energy.

    Attributes:
        f: the statistic; None: no test, see ``reason``.
        df: degrees of freedom of the preceding trial.
        residual_df: residual degrees of freedom.
        p: of the test.
        found: whether ``p`` is at most 0.05.
        changes: what an adjustment changes.
        reason: why there is no test.
    """

    f: float | None = None
    df: int | None = None
    residual_df: int | None = None
    p: float | None = None
    found: bool = False
    changes: tuple[CarryOverChange, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Fitness:
    """Whether one host's data were fit for the question.

    ``throttled``, ``late``: numbers of trials. ``notes``: sentences.
    """

    trend: Trend
    steps: Steps
    autocorrelation: Autocorrelation
    outliers: tuple[Outlier, ...] = ()
    throttled: int = 0
    late: int = 0
    notes: tuple[str, ...] = ()
    carry_over: CarryOver = CarryOver(reason="not tested")


@dataclass(frozen=True)
class Sensitivity:
    """The verdicts under another choice of trials.

    Attributes:
        scenario: ``without outliers``, ``without late attempts``, ``with throttled trials``, ….
        trials: how many were taken out or in.
        pairs: the pairs under that choice.
        changed: (a, b, verdict of the main analysis, verdict here) of every pair that ends
            otherwise.
    """

    scenario: str
    trials: int
    pairs: tuple[Pair, ...] = ()
    changed: tuple[tuple[str, str, PairVerdict, PairVerdict], ...] = ()


@dataclass(frozen=True)
class StopDecision:
    """Whether a host is precise enough.

    Attributes:
        stop: no further blocks are needed.
        blocks: complete blocks so far.
        precision_pct: asked for.
        half_widths: (a, b, half-width in % energy or None) a pair.
        level: confidence of each pair's interval, calibrated for looking after every block.
        factor: calibrated share of the fixed design's per-pair error rate.
        fixed_level: what the level would be without looking.
        coverage_fixed: simulated joint coverage of the fixed design's intervals under this
            stopping, or None.
        reason: one sentence.
    """

    stop: bool
    blocks: int
    precision_pct: float
    half_widths: tuple[tuple[str, str, float | None], ...]
    level: float
    factor: float
    fixed_level: float
    coverage_fixed: float | None
    reason: str


@dataclass(frozen=True)
class HostConclusion:
    """All that is concluded from one host.

    Attributes:
        host: its name; empty where an import does not report it.
        design: ``blocked`` or ``unblocked``.
        blocks: blocks with at least two images measured.
        complete_blocks: blocks with every image measured.
        scope: domains compared, ``package+dram``; None where there is no common one or it is not
            known.
        energy_source: ``measured`` or ``modelled`` or ``mixed``.
        counts: workload trials by status.
        images: by rank, unranked ones last.
        omnibus: None with fewer than two images.
        pairs: every pair; ``b`` is the reference where it takes part.
        secondary: secondary endpoints.
        fitness: None without valid trials.
        sensitivity: other choices of trials.
        stopping: the rule's last decision, where the experiment stops early.
        reason: why there is no comparison, or None.
        notes: sentences about what was done to the data.
    """

    host: str
    design: Literal["blocked", "unblocked"]
    blocks: int
    complete_blocks: int
    scope: str | None
    energy_source: str | None
    counts: dict[str, int]
    images: tuple[ImageSummary, ...] = ()
    omnibus: Omnibus | None = None
    pairs: tuple[Pair, ...] = ()
    secondary: tuple[Secondary, ...] = ()
    fitness: Fitness | None = None
    sensitivity: tuple[Sensitivity, ...] = ()
    stopping: StopDecision | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def pair(self, a: str, b: str) -> Pair | None:
        """The comparison of a against b, turned round where it is kept the other way."""
        return find_pair(self.pairs, a, b)


@dataclass(frozen=True)
class HostEffect:
    """One host's share in a combined pair: mean log ratio in % energy with its standard error."""

    host: str
    n: int
    estimate_pct: float
    se_log_pct: float
    weight: float


@dataclass(frozen=True)
class Interaction:
    """Whether one pair's effect depends on the host: Welch's F on the blocks' log ratios.

    ``low_pct``, ``high_pct``: smallest and largest host estimate.
    """

    a: str
    b: str
    low_pct: float
    high_pct: float
    p: float | None
    p_adjusted: float | None
    found: bool
    reason: str | None = None


@dataclass(frozen=True)
class Agreement:
    """Kendall's W of the hosts' rankings. ``p`` is None below four images, with the reason."""

    w: float | None
    hosts: int
    images: int
    p: float | None
    p_method: str | None
    reason: str | None = None


@dataclass(frozen=True)
class HostsPair:
    """One pair over hosts.

    Attributes:
        these_hosts: common effect over the hosts measured, with verdict.
        hosts_like_these: Hartung–Knapp random effects at 1 − α simultaneous; None when it can't be
            estimated.
        hosts: what every host gave.
        tau_pct: SD of the effect between hosts, in % (Paule–Mandel).
        i2_pct: share of the variance that is between hosts, %.
        headline: which of both leads: ``these hosts`` below five hosts, else ``hosts like these``.
    """

    these_hosts: Pair
    hosts_like_these: Pair | None
    hosts: tuple[HostEffect, ...]
    tau_pct: float | None
    i2_pct: float | None
    headline: str

    @property
    def leading(self) -> Pair:
        """The comparison that leads."""
        if self.headline == HOSTS_LIKE_THESE and self.hosts_like_these is not None:
            return self.hosts_like_these
        return self.these_hosts


@dataclass(frozen=True)
class AcrossHosts:
    """Combined effects of the hosts. ``reason`` says why ``pairs`` is empty (one host: none)."""

    hosts: tuple[str, ...]
    label: str | None = None
    pairs: tuple[HostsPair, ...] = ()
    agreement: Agreement | None = None
    interactions: tuple[Interaction, ...] = ()
    best_by_host: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class RankedImage:
    """One row of the headline ranking.

    ``pair``: against the reference (None for the reference itself, or where nothing links them).
    """

    image: str
    rank: int | None
    is_reference: bool
    pair: Pair | None
    reason: str | None = None


@dataclass(frozen=True)
class Headline:
    """The answer.

    Attributes:
        sentence: what is decided, in at most 25 words.
        conditions: what is not decided and what would decide it, and what the sentence rests on.
        best: the image of lowest estimate, None without one.
        decided: whether ``best`` was shown to use less than (or as little as) every other image.
        pair: ``best`` against the reference (or, where it is the reference, against the next one).
        basis: ``one host``, ``these hosts`` or ``hosts like these``.
        modelled: the joules come from a model: *modelled, not measured*.
    """

    sentence: str
    best: str | None
    decided: bool
    pair: Pair | None
    basis: str | None
    modelled: bool
    conditions: str = ""


@dataclass(frozen=True)
class Conclusion:
    """All that a run's statistics say.

    Attributes:
        headline: the answer.
        settings: as laid down.
        reference: the image compared with; None without any.
        images: all workload images seen in the plan, the reference first.
        ranking: by the leading comparison, least energy first.
        counts: workload trials by status, over all hosts.
        hosts: one a host.
        across: over hosts.
        findings: ``drift`` and ``outlier``, of the hosts.
        energy_source: ``measured``, ``modelled``, ``mixed`` or None.
        notes: sentences that belong on the first screen.
    """

    headline: Headline
    settings: Settings
    reference: str | None
    images: tuple[str, ...]
    ranking: tuple[RankedImage, ...]
    counts: dict[str, int]
    hosts: tuple[HostConclusion, ...]
    across: AcrossHosts
    findings: tuple[Finding, ...] = ()
    energy_source: str | None = None
    notes: tuple[str, ...] = ()

    def host(self, name: str) -> HostConclusion | None:
        """The host of that name."""
        return next((h for h in self.hosts if h.host == name), None)

    def pair(self, a: str, b: str) -> Pair | None:
        """The leading comparison of two images: over hosts, or of the one host that compares them."""
        if self.across.pairs:
            return find_pair(tuple(p.leading for p in self.across.pairs), a, b)
        found = [p for h in self.hosts if (p := h.pair(a, b)) and p.individual]
        return found[0] if len(found) == 1 else None

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready dict."""
        plain = dataclasses.asdict(dataclasses.replace(self, findings=()))
        return plain | {"findings": [f.to_dict() for f in self.findings]}


def find_pair(pairs: tuple[Pair, ...], a: str, b: str) -> Pair | None:
    """The comparison of a against b among pairs, turned round where it is kept the other way."""
    for pair in pairs:
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return pair.flipped()
    return None
