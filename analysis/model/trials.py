"""The trial record: the one schema of live runs and imported campaigns.

One row a planned trial (its accepted, else its last attempt); ``attempts.csv`` has all attempts in the
same columns. Nothing to say is an empty cell, never 0 and never the text NaN.
"""

from __future__ import annotations

import csv
import dataclasses
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wattbench.analysis.model.escaping import cell, uncell

# pandas takes a second to import: readers of raw files in processes of their own do without it.
if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

KINDS = ("workload", "idle", "control")
STATUSES = ("valid", "invalid", "failed", "missing", "skipped")
ENERGY_SOURCES = ("measured", "modelled")

#: What is compared: joules of the whole window, or those of the steady phases per unit of work.
WINDOW, STEADY = "window", "steady"
ENDPOINTS = (WINDOW, STEADY)


@dataclass(frozen=True)
class TrialRow:
    """One row of ``trials.csv``, ``attempts.csv`` and ``trials.parquet``.

    Attributes:
        run_id: the run; for an imported campaign the campaign's folder name.
        host: the worker host; empty where an import does not report it.
        kind: ``workload``, ``idle`` or ``control``.
        block: from 1; None where the campaign had none.
        position: place in the order really executed, from 1, unique per run and host.
        planned_position: place in the plan, from 1.
        image: the treatment; of an idle row the image it idles in (``idle`` without a container).
        digest: the image's digest, ``sha256:…``.
        run: the number in an imported file's name.
        attempt: from 1.
        status: ``valid``, ``invalid``, ``failed``, ``missing`` or ``skipped``.
        reason: why it is not valid, one line.
        started_at: start of the window, ISO 8601 UTC with milliseconds.
        duration_s: the window, s.
        energy_j: joules of the window over ``energy_scope``, raw (idle not subtracted).
        energy_scope: the domains summed, for example ``package+dram+gpu``.
        energy_source: ``measured`` or ``modelled``.
        package_j: CPU packages (all sockets), J.
        dram_j: memory, J.
        gpu_j: the GPUs given to the trial, J.
        samples: meter rows inside the window.
        wraps: counter wraps corrected, over all domains.
        images_inferred: inferences done in the window (iterations × batch, warm-up excluded).
        j_per_image: energy_j / images_inferred.
        energy_uncertainty_j: half-width that covers the true window energy in ≥ 95 % of windows, J.
        idle_corrected_j: energy_j minus the run's idle power × duration, J.
        startup_j: phases before the first steady one, J.
        startup_s: likewise, s.
        steady_j: all steady phases together, J.
        steady_s: likewise, s.
        steady_j_per_image: steady_j / images_inferred.
        rest_s: how long the host rested before the window, s.
        device: the device that the workload reports.
        late: whether this is a further attempt, executed after the trial's block.
        findings: codes found for this attempt, joined by a blank.
        raw: the raw samples' key or path.
        unit: name of what the energy is divided by: ``image``, ``document``, ``request``, ….
        units: number of them done in the window; warm-up excluded.
        j_per_unit: energy_j / units; steady_j / units where the endpoint is ``steady``.
        board_j: the board behind its power supply, J, by the first meter of it, counted or not.
        wall_j: the machine with its power supply, J, likewise.
        wall_uncertainty_j: half-width of wall_j, J.
        idle_state: of an idle trial, what was there: ``loaded``: the image's framework and model;
            ``container``: its container alone; ``host``: no container. None: another kind, or not recorded.
    """

    run_id: str
    host: str
    kind: str
    block: int | None
    position: int | None
    planned_position: int | None
    image: str
    digest: str | None = None
    run: int | None = None
    attempt: int | None = None
    status: str = "missing"
    reason: str | None = None
    started_at: str | None = None
    duration_s: float | None = None
    energy_j: float | None = None
    energy_scope: str | None = None
    energy_source: str | None = None
    package_j: float | None = None
    dram_j: float | None = None
    gpu_j: float | None = None
    samples: int | None = None
    wraps: int | None = None
    images_inferred: int | None = None
    j_per_image: float | None = None
    energy_uncertainty_j: float | None = None
    idle_corrected_j: float | None = None
    startup_j: float | None = None
    startup_s: float | None = None
    steady_j: float | None = None
    steady_s: float | None = None
    steady_j_per_image: float | None = None
    rest_s: float | None = None
    device: str | None = None
    late: bool | None = None
    findings: str | None = None
    raw: str | None = None
    unit: str | None = None
    units: float | None = None
    j_per_unit: float | None = None
    board_j: float | None = None
    wall_j: float | None = None
    wall_uncertainty_j: float | None = None
    idle_state: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("status", STATUSES)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )

    def raw_place(self, line: int = 1) -> dict[str, Any]:
        """File and line of the raw samples, for evidence.

        Args:
            line: in the run's own log; the log of an appended run begins further down in its file.
        """
        appended = _APPENDED.fullmatch(self.raw or "")
        if appended is None:
            return {"file": self.raw, "line": line}
        return {"file": appended["file"], "line": int(appended["line"]) + line - 1}


#: ``raw`` of a run that was appended to a file: the file, and the line of its header or first sample.
_APPENDED = re.compile(r"(?P<file>.+\.csv(?:\.gz)?):(?P<line>\d+)")


_Frozen = TypeVar("_Frozen")


def changed(instance: _Frozen, **values: Any) -> _Frozen:
    """:func:`dataclasses.replace` without ``__init__``, several times as fast: for thousands of trials.

    Args:
        instance: of a frozen dataclass without slots.
        values: fields by name; they are taken as they are.
    """
    copy = object.__new__(type(instance))
    vars(copy).update(vars(instance))
    vars(copy).update(values)
    return copy


def per_unit(row: TrialRow, endpoint: str) -> TrialRow:
    """The row with the joules per unit of an endpoint."""
    joules = row.steady_j if endpoint == STEADY else row.energy_j
    each = joules / row.units if joules is not None and row.units else None
    return dataclasses.replace(row, j_per_unit=each)


COLUMNS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(TrialRow))

_INTEGERS = (
    "block", "position", "planned_position", "run", "attempt", "samples", "wraps", "images_inferred",
)  # fmt: skip
_TEXTS = [f.name for f in dataclasses.fields(TrialRow) if "str" in str(f.type)]
_FLOATS = [f.name for f in dataclasses.fields(TrialRow) if "float" in str(f.type)]
_DTYPES: dict[str, str] = (
    dict.fromkeys(COLUMNS, "string")
    | dict.fromkeys(_INTEGERS, "Int64")
    | dict.fromkeys(_FLOATS, "float64")
    | {"late": "boolean"}
)


def with_units(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored row of a version that counted images only, in today's columns; others as they are."""
    if not isinstance(row, Mapping) or "units" in row or row.get("images_inferred") is None:
        return row
    return dict(row) | image_units(row["images_inferred"], row.get("j_per_image"))


def image_units(images: int | None, j_per_image: float | None) -> dict[str, str | float | None]:
    """The unit's columns where the unit is an image."""
    known = images is not None
    return {
        "unit": "image" if known else None,
        "units": float(images) if images is not None else None,
        "j_per_unit": j_per_image if known else None,
    }


def to_frame(rows: Iterable[TrialRow]) -> pd.DataFrame:
    """Rows as a typed frame with exactly :data:`COLUMNS`."""
    import pandas as pd

    rows = list(rows)
    return _typed(pd.DataFrame({name: [getattr(r, name) for r in rows] for name in COLUMNS}))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    if "units" not in frame and "images_inferred" in frame:  # written before there were units
        known = frame["images_inferred"].notna()
        frame = frame.assign(
            unit=known.map({True: "image", False: None}),
            units=frame["images_inferred"],
            j_per_unit=frame["j_per_image"].where(known) if "j_per_image" in frame else None,
        )
    return frame.reindex(columns=list(COLUMNS)).astype(_DTYPES)


def write_rows(rows: Iterable[TrialRow], path: Path) -> None:
    """Write rows as ``escaping.write_frame`` writes a frame, without making one."""
    cells = operator.attrgetter(*COLUMNS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        # NaN, the one value that differs from itself, is an empty cell as in a frame.
        writer.writerows([cell(v) if v == v else None for v in cells(row)] for row in rows)


def read_csv(path: Path) -> pd.DataFrame:
    """Read what :func:`write_rows` or ``escaping.write_frame`` wrote, with the schema's types."""
    import pandas as pd

    return without_apostrophes(_typed(pd.read_csv(path, dtype=_DTYPES)))


def without_apostrophes(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts as they were before ``escaping`` kept spreadsheets from reading formulas in them."""
    texts = {name: frame[name].map(uncell, na_action="ignore").astype("string") for name in _TEXTS}
    return frame.assign(**texts)


def from_records(records: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """A typed frame from dicts that hold at least some of the columns."""
    import pandas as pd

    return _typed(pd.DataFrame(list(records), columns=None))
