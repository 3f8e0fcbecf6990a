"""What a campaign's numbers say by this product's own statistics, on each basis.

The tables in the literature's form say whether images differ; this says by how much, how surely, and where
there is no verdict. Imported campaigns have no blocks: images are compared as independent samples, which
cannot separate drift of the machine from an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import pandas as pd

from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.audit.scopes import LEAST_SHARE, WHOLE_SHARE
from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.presentation.formatting import sentence
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.results import Pair, Settings

#: Pairs are compared trial by trial, which grows with the square: beyond this nothing is concluded.
MOST_PER_IMAGE = 500

#: Treatments beyond which nothing is concluded: their pairs grow with the square.
MOST_TREATMENTS = 30

COLUMNS = (
    "basis", "image_a", "image_b", "diff_pct", "lower_pct", "upper_pct", "p_holm", "verdict", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What one basis says.

    Attributes:
        basis: ``published``, ``imported`` or ``repaired``.
        sentence: the verdict, or why there is none.
        notes: what limits it.
        pairs: every pair of images.
    """

    basis: str
    sentence: str
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    def worded(self, words: Callable[[str], str]) -> Answer:
        """The same in other words."""
        return replace(self, sentence=words(self.sentence), notes=tuple(map(words, self.notes)))


def answers(
    frames: Mapping[str, pd.DataFrame],
    reference: str | None,
    *,
    modelled: bool,
    covered: Mapping[str, float] = MappingProxyType({}),
    misread: str = "",
    apart: str = "",
    key: Callable[[str], str] = key_of,
) -> list[Answer]:
    """Conclude from every basis that holds workload trials.

    Args:
        frames: basis → tidy frame, as :class:`analysis.audit.bases.Tables` has them.
        reference: the image the others are compared with, with or without suffix; None: the one of
            lowest median.
        modelled: whether joules are a model's.
        key: the name under which load and idle data of an image are joined.
        misread: which joules are in a wrong unit; these stand on all bases but ``repaired``.
        apart: why the measured treatments can't be compared: they meter different domains.
        covered: basis → share of the metered joules that its numbers cover, where it is less than all.
    """
    given = {
        basis: work
        for basis, frame in frames.items()
        if len(work := frame[frame["kind"] == "workload"])
    }
    if misread and "repaired" not in given:
        given["repaired"] = frames["repaired"]
    return [
        Answer(basis, f"No verdict: {apart}.")
        if apart and not basis.startswith("published")
        else Answer(basis, f"No verdict: {misread}.")
        if misread and (basis != "repaired" or work.empty)
        else _with_misread(
            _with_scope(basis, work, reference, modelled, key, covered.get(basis, 1.0)), misread
        )
        for basis, work in given.items()
    ]


def _with_misread(answer: Answer, misread: str) -> Answer:
    """An answer that says which joules it is made without."""
    if not misread:
        return answer
    return replace(
        answer,
        sentence=f"{answer.sentence.rstrip('.')} (joules of a wrong unit are left out: {misread}).",
    )


def _with_scope(
    basis: str,
    work: pd.DataFrame,
    reference: str | None,
    modelled: bool,
    key: Callable[[str], str],
    share: float,
) -> Answer:
    """An answer, unless its numbers cover too small a share of the metered joules."""
    if share < LEAST_SHARE:
        return Answer(
            basis,
            f"No verdict on the CPU package alone: it is {100 * share:.0f} % of the metered joules, "
            f"{100 - 100 * share:.0f} % are other domains'.",
        )
    return _qualified(_answer(basis, work, reference, modelled, key), share)


def _qualified(answer: Answer, share: float) -> Answer:
    """An answer that says what its numbers leave out."""
    if share >= WHOLE_SHARE:
        return answer
    text = (
        f"{answer.sentence.rstrip('.')} (CPU package only, {100 * share:.0f} % of the metered joules; "
        f"the other {100 - 100 * share:.0f} % are left out)."
    )
    return replace(answer, sentence=text)


def table(given: Iterable[Answer]) -> pd.DataFrame:
    """``tables/verdicts.csv``: one row per pair; percentages are of ``image_b``'s energy."""
    rows = [
        (
            answer.basis, pair.a, pair.b, pair.estimate_pct,
            pair.simultaneous.lower_pct if pair.simultaneous else None,
            pair.simultaneous.upper_pct if pair.simultaneous else None,
            pair.p_adjusted, str(pair.verdict), pair.reason,
        )
        for answer in given
        for pair in answer.pairs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def _answer(
    basis: str,
    work: pd.DataFrame,
    reference: str | None,
    modelled: bool,
    key: Callable[[str], str],
) -> Answer:
    treatments = work["image"].nunique()
    if treatments > MOST_TREATMENTS:
        return Answer(
            basis,
            f"No verdict: {treatments} treatments are more than the {MOST_TREATMENTS} that are compared pair "
            "by pair; say what a treatment is with `factors: […]` or `raw: {image: …}` in a --mapping file.",
        )
    most = int(work["image"].value_counts().max())
    if most > MOST_PER_IMAGE:
        return Answer(
            basis,
            f"No verdict: {most} trials of one image are more than the {MOST_PER_IMAGE} that are compared "
            "pair by pair.",
        )
    named = {key(str(i)): str(i) for i in work["image"].unique()}
    values = work[["host", "image", "energy_j", "duration_s"]].to_numpy(object).tolist()
    trials = to_frame(
        TrialRow(
            run_id=basis, host=host, kind="workload", block=None, position=None, planned_position=None,
            image=image, status="valid", energy_j=joules, duration_s=seconds,
            energy_scope="package", package_j=joules,
            energy_source="modelled" if modelled else "measured",
        )
        for host, image, joules, seconds in values
    )  # fmt: skip
    found = conclude(trials, Settings(reference=named.get(key(reference)) if reference else None))
    notes = [
        found.headline.conditions,
        *map(sentence, found.notes),
        *(sentence(note) for host in found.hosts for note in host.notes),
    ]
    pairs = tuple(p.these_hosts for p in found.across.pairs)
    if len(found.hosts) == 1:
        pairs = found.hosts[0].pairs
    return Answer(basis, found.headline.sentence, tuple(dict.fromkeys(filter(None, notes))), pairs)
