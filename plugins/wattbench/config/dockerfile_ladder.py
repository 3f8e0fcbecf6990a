"""Layer ladder: a Dockerfile cut after each of its layers. Pure.

A rung keeps the settings of the whole (``ENV``, ``USER``, ``ENTRYPOINT``, …); it differs from the rung
below by one ``RUN``, ``COPY`` or ``ADD`` of the last stage. So the effect of a rung is that of the layer's
files. What a setting does is a factor's question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LAYERS = ("RUN", "COPY", "ADD")


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder.

    Attributes:
        number: how many layers it has; 0 is the base.
        instruction: its last layer's, in one line; empty on rung 0.
        text: its Dockerfile.
    """

    number: int
    instruction: str
    text: str


@dataclass(frozen=True)
class _Step:
    keyword: str
    line: str
    text: str


def ladder(text: str) -> tuple[Rung, ...]:
    """All rungs of a Dockerfile, the base first; the last one is the whole.

    Raises:
        ValueError: it adds no layer, or can't be read.
    """
    steps = list(_steps(text))
    last = max((i for i, s in enumerate(steps) if s.keyword == "FROM"), default=None)
    if last is None:
        raise ValueError("has no FROM")
    layers = [i for i in range(last, len(steps)) if steps[i].keyword in _LAYERS]
    if not layers:
        raise ValueError("adds no layer: there is nothing to take apart")
    return tuple(
        Rung(
            number,
            steps[layers[number - 1]].line if number else "",
            "".join(s.text for i, s in enumerate(steps) if i not in layers[number:]),
        )
        for number in range(len(layers) + 1)
    )


def _steps(text: str) -> Iterator[_Step]:
    """Instructions with the comments and empty lines before them; continued lines are joined."""
    raw: list[str] = []
    said: list[str] = []
    for line in text.splitlines(keepends=True):
        raw.append(line)
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        said.append(bare.removesuffix("\\").strip())
        if bare.endswith("\\"):
            continue
        joined = " ".join(" ".join(said).split())
        keyword = joined.split(maxsplit=1)[0].upper()
        if keyword in _LAYERS and re.search(r"<<-?['\"]?\w", joined):
            raise ValueError(
                f"{joined[:60]!r}: a here-document can't be taken apart; use && instead"
            )
        yield _Step(keyword, joined, "".join(raw))
        raw, said = [], []
    if said:
        raise ValueError("ends in the middle of an instruction")
