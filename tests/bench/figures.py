"""One figure of a benchmark: what, of which size, its limit, and what a plain sequential script needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

_MARK = "figure "


@dataclass(frozen=True)
class Figure:
    """A row of docs/performance.md.

    Attributes:
        what: is measured.
        size: of the task.
        value: measured.
        unit: of the value, the limit and the plain script's value.
        limit: the value may not exceed it; None where there is none.
        plain: the same of a plain sequential script, in the same run.
        plain_is: what that script does.
    """

    what: str
    size: str
    value: float
    unit: str
    limit: float | None = None
    plain: float | None = None
    plain_is: str = ""

    @property
    def over(self) -> bool:
        """Whether the limit is exceeded."""
        return self.limit is not None and self.value > self.limit

    @property
    def ratio(self) -> float | None:
        """Times of the plain script."""
        return self.value / self.plain if self.plain else None

    def cells(self) -> list[str]:
        """The row's cells, as text."""
        limit = "–" if self.limit is None else f"{'**over** ' if self.over else ''}{self.limit:.3g}"
        plain = "–" if self.plain is None else f"{self.plain:.3g} ({self.plain_is})"
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.what, self.size, f"{self.value:.3g} {self.unit}", limit, plain, ratio]


def show(figure: Figure) -> None:
    """Print a figure for ``tests/bench/all.py``."""
    print(_MARK + json.dumps(asdict(figure), ensure_ascii=False), flush=True)


def read(line: str) -> Figure | None:
    """The figure that a line of output holds."""
    return Figure(**json.loads(line.removeprefix(_MARK))) if line.startswith(_MARK) else None
