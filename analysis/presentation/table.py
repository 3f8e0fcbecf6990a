"""Tables: one frame each, as CSV for programs, booktabs for papers, and text, Markdown and HTML for people.

A :class:`Table` holds numbers at full precision; :meth:`Table.grid` gives its cells as text, and every
renderer takes such a :class:`Grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model import escaping
from wattbench.analysis.model.escaping import one_line, write_frame
from wattbench.analysis.presentation.formatting import (
    NOTHING,
    missing,
    number,
    p_value,
    significant,
)

if TYPE_CHECKING:
    import pandas as pd

#: One row of a table: values by column.
Row = dict[str, str | int | float | bool | None]

#: Column → label, unit, format. ``{unit}`` stands for the name of the unit of work.
HEADS: dict[str, tuple[str, str, str]] = {
    "basis": ("host", "", ""),
    "host": ("host", "", ""),
    "image": ("image", "", ""),
    "image_a": ("image A", "", ""),
    "image_b": ("image B", "", ""),
    "a": ("image", "", ""),
    "b": ("against", "", ""),
    "reference": ("against", "", ""),
    "n": ("n", "", "d"),
    "planned": ("planned", "", "d"),
    "valid": ("valid", "", "d"),
    "rank": ("rank", "", "d"),
    "median_j": ("median", "J", ".2f"),
    "mean_j": ("mean", "J", ".2f"),
    "low_j": ("lowest", "J", ".2f"),
    "high_j": ("highest", "J", ".2f"),
    "gpu": ("GPU", "", ""),
    "sd_j": ("σ", "J", ".2f"),
    "cv_pct": ("σ / mean", "%", ".2f"),
    "median_s": ("median", "s", ".2f"),
    "mean_s": ("mean", "s", ".2f"),
    "sd_s": ("σ", "s", ".2f"),
    "median_w": ("median", "W", ".2f"),
    "low_w": ("lowest", "W", ".2f"),
    "high_w": ("highest", "W", ".2f"),
    "idle_state": ("state", "", ""),
    "is_subtracted": ("subtracted", "", ""),
    "median_j_per_image": ("median", "J/image", ".3f"),
    "median_j_per_unit": ("median", "J/{unit}", ".3f"),
    "shapiro_p": ("Shapiro–Wilk p", "", "p"),
    "test": ("test", "", ""),
    "statistic": ("statistic", "", ".3f"),
    "df": ("df", "", "d"),
    "p": ("p", "", "p"),
    "p_method": ("p by", "", ""),
    "p_bonferroni": ("p (Bonferroni)", "", "p"),
    "p_holm": ("p (Holm)", "", "p"),
    "p_adjusted": ("p, corrected", "", "p"),
    "mean_diff_j": ("A − B", "J", "+.2f"),
    "cliffs_delta": ("Cliff’s δ", "", "+.2f"),
    "delta_lower": ("δ from", "", "+.2f"),
    "delta_upper": ("δ to", "", "+.2f"),
    "median_diff_j": ("energy", "J", "+.2f"),
    "median_diff_pct": ("energy", "%", "+.2f"),
    "diff_pct": ("difference", "%", "+.2f"),
    "size_diff_gb": ("size", "GB", "+.2f"),
    "size_diff_pct": ("size", "%", "+.2f"),
    "estimate_pct": ("energy", "%", "+.2f"),
    "lower_pct": ("from", "%", "+.2f"),
    "upper_pct": ("to", "%", "+.2f"),
    "level_pct": ("level", "%", ".1f"),
    "verdict": ("verdict", "", ""),
    "within_margin": ("within margin", "", ""),
    "tost_p": ("TOST p, corrected", "", "p"),
    "sd_log_pct": ("σ of ratio", "%", ".2f"),
    "detectable_pct": ("detectable", "%", ".2f"),
    "method": ("method", "", ""),
    "reason": ("why", "", ""),
    "endpoint": ("endpoint", "", ""),
    "phase": ("phase", "", ""),
    "duration_s": ("duration", "s", ".2f"),
    "energy_j": ("energy", "J", ".2f"),
    "mean_w": ("mean power", "W", ".1f"),
    "j_per_image": ("energy", "J/image", ".4f"),
    "share_pct": ("share of joules", "%", ".1f"),
    "fixed_j": ("start-up and end", "J", ".2f"),
    "fixed_s": ("start-up and end", "s", ".2f"),
    "marginal_j": ("per {unit}", "J", ".4f"),
    "fixed_diff_j": ("start-up", "J", "+.2f"),
    "marginal_diff_j": ("per {unit}", "J", "+.4f"),
    "break_even_images": ("break-even", "{unit}s", ",.0f"),
    "outcome": ("what follows", "", ""),
    "pull_diff_j": ("download", "J", "+,.0f"),
    "counted": ("what is counted", "", ""),
    "quantity": ("quantity", "", ""),
    "per": ("in", "", ""),
    "compressed_mb": ("to pull", "MB", ",.0f"),
    "unpacked_gb": ("on disk", "GB", ".2f"),
    "layers": ("layers", "", "d"),
    "pulled_mb": ("pulled", "MB", ",.1f"),
    "pull_s": ("in", "s", ",.1f"),
    "mb_per_s": ("rate", "MB/s", ".1f"),
    "pull_j": ("energy", "J", ",.1f"),
    "window_s": ("over", "s", ",.1f"),
    "source": ("joules are", "", ""),
    "remark": ("remark", "", ""),
    "pareto": ("Pareto-optimal", "", ""),
    "scenario": ("scenario", "", ""),
    "trials": ("trials", "", "d"),
    "changed": ("verdicts that change", "", ""),
    "tau_pct": ("τ between hosts", "%", ".2f"),
    "i2_pct": ("I²", "%", ".0f"),
    "weight_pct": ("weight", "%", ".0f"),
    "label": ("stands for", "", ""),
    "low_pct": ("lowest host", "%", "+.2f"),
    "high_pct": ("highest host", "%", "+.2f"),
    "depends": ("depends on host", "", ""),
    "blocks": ("blocks", "", "d"),
    "images": ("images", "", "d"),
    "subject": ("subject", "", ""),
    "table": ("table", "", ""),
    "median_j_above_idle": ("above idle", "J", ".2f"),
    "rho": ("ρ with order", "", "+.2f"),
    "change_pct": ("first to last", "%", "+.2f"),
    "steps": ("steps", "", ""),
    "lag1": ("lag-1 autocorrelation", "", "+.2f"),
    "lag1_p": ("its p", "", "p"),
    "carry_over_p": ("p of carry-over", "", "p"),
    "carry_over": ("carry-over", "", ""),
    "outliers": ("outliers", "", "d"),
    "factor": ("factor", "", ""),
    "of": ("level or layer", "", ""),
    "time_pct": ("time", "%", "+.2f"),
    "time_lower_pct": ("from", "%", "+.2f"),
    "time_upper_pct": ("to", "%", "+.2f"),
    "size_diff_mb": ("size", "MB", "+,.0f"),
    "throttled": ("throttled", "", "d"),
    "late": ("late", "", "d"),
    "j_per_unit": ("energy", "J/{unit}", ".4f"),
    "units": ("work", "{unit}s", ",.0f"),
    "step": ("step", "", ""),
    "throughput_per_s": ("served", "1/s", ",.1f"),
    "goodput_per_s": ("within SLO", "1/s", ",.1f"),
    "error_pct": ("errors", "%", ".2f"),
    "latency_p50_ms": ("p50", "ms", ",.1f"),
    "latency_p90_ms": ("p90", "ms", ",.1f"),
    "latency_p99_ms": ("p99", "ms", ",.1f"),
    "latency_max_ms": ("max", "ms", ",.1f"),
    "first_byte_p50_ms": ("first token p50", "ms", ",.1f"),
    "first_byte_p99_ms": ("p99", "ms", ",.1f"),
    "j_per_request": ("energy", "J/request", ".4f"),
    "j_per_request_lower": ("from", "", ".4f"),
    "j_per_request_upper": ("to", "", ".4f"),
    "j_per_request_uncertainty": ("metered to ±", "", ".4f"),
    "j_per_token": ("energy", "J/token", ".4f"),
    "j_per_token_lower": ("from", "", ".4f"),
    "j_per_token_upper": ("to", "", ".4f"),
    "j_per_token_uncertainty": ("metered to ±", "", ".4f"),
    "cpu_pct": ("generator’s CPU", "%", ".0f"),
    "meets_slo": ("keeps SLO", "", ""),
    "on_front": ("on the front", "", ""),
    "compared": ("compared", "", ""),
}


@dataclass(frozen=True)
class Head:
    """One column of a grid: ``is_number`` columns are aligned to the right."""

    label: str
    unit: str = ""
    is_number: bool = False

    def __str__(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Grid:
    """A table as text.

    Attributes:
        title: a few words.
        heads: columns.
        rows: cells, one per column.
        caption: how to read it.
        note: why cells are empty, or there are no rows.
        name: of its files below ``tables/``; empty where it has none.
    """

    title: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    note: str = ""
    name: str = ""

    @classmethod
    def of(
        cls,
        title: str,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        numbers: str = "",
        note: str = "",
    ) -> Grid:
        """A grid of plain text.

        Args:
            title: a few words.
            heads: column labels.
            rows: cells.
            numbers: labels of columns that hold numbers, separated by blanks.
            note: stands below.
        """
        right = numbers.split()
        columns = tuple(Head(label, is_number=label in right) for label in heads)
        return cls(title, columns, tuple(tuple(row) for row in rows), note=note)

    def right_aligned(self, *columns: int) -> Grid:
        """The grid with these columns aligned as numbers."""
        heads = tuple(
            replace(h, is_number=True) if i in columns else h for i, h in enumerate(self.heads)
        )
        return replace(self, heads=heads)

    def without_empty_columns(self) -> Grid:
        """The grid without columns that hold no value in any row; the first column stays."""
        keep = [
            i
            for i in range(len(self.heads))
            if i == 0 or any(row[i] not in ("", NOTHING) for row in self.rows)
        ]
        return replace(
            self,
            heads=tuple(self.heads[i] for i in keep),
            rows=tuple(tuple(row[i] for i in keep) for row in self.rows),
        )

    def text(self) -> list[str]:
        """Aligned lines for a terminal, heads first."""
        rows = [tuple(one_line(cell) for cell in row) for row in self.rows]
        lines = [tuple(str(h) for h in self.heads), *rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        return [
            "  ".join(
                cell.rjust(width) if head.is_number else cell.ljust(width)
                for cell, width, head in zip(line, widths, self.heads, strict=True)
            ).rstrip()
            for line in lines
        ]

    def markdown(self) -> list[str]:
        """Lines of a Markdown table."""
        lines = [
            tuple(str(h) for h in self.heads),
            tuple("--:" if h.is_number else "---" for h in self.heads),
            *(tuple(escaping.markdown(cell) for cell in row) for row in self.rows),
        ]
        return ["| " + " | ".join(line) + " |" for line in lines]

    def latex(self, modelled: str = "") -> str:
        """A booktabs table; ``modelled`` stands at the start of its caption."""
        align = "".join("r" if h.is_number else "l" for h in self.heads)
        caption = " ".join(t for t in (modelled, f"{self.title}.", self.caption) if t)
        lines = [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            f"  \\caption{{{_escape(caption)}}}",
            f"  \\label{{tab:{self.name.replace('_', '-')}}}",
            f"  \\begin{{tabular}}{{{align}}}",
            "    \\toprule",
            f"    {' & '.join(_escape(str(h)) for h in self.heads)} \\\\",
            "    \\midrule",
            *(f"    {' & '.join(map(_escape, row))} \\\\" for row in self.rows),
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Table:
    """One table of a report.

    Attributes:
        name: of its files.
        title: a few words.
        caption: how to read it.
        frame: the numbers at full precision; missing cells are empty.
        shown: columns of the page and of LaTeX, in order; None: all.
        note: why cells are empty, or there are no rows.
        unit: name of the unit of work in labels.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    shown: tuple[str, ...] | None = None
    note: str = ""
    unit: str = "unit"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the page and of LaTeX."""
        return self.shown or tuple(str(c) for c in self.frame.columns)

    def grid(self, host: str | None = None) -> Grid:
        """Cells as text; of one host: its rows, without the column of the host and empty columns."""
        frame = self.frame
        if host is not None:
            frame = frame[frame["host" if "host" in frame else "basis"] == host]
        columns = [c for c in self.columns if host is None or head(c)[0] != "host"]
        heads = tuple(
            Head(label, unit, bool(form))
            for label, unit, form in (head(c, self.unit) for c in columns)
        )
        rows = tuple(
            tuple(_cell(row, column) for column in columns) for row in frame.to_dict("records")
        )
        return Grid(self.title, heads, rows, self.caption, self.note, self.name)

    def write(self, folder: Path, modelled: str = "") -> None:
        """Write ``NAME.csv`` and ``NAME.tex``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_frame(self.frame, folder / f"{self.name}.csv")
        (folder / f"{self.name}.tex").write_text(self.grid().latex(modelled), encoding="utf-8")


def head(column: str, unit: str = "unit") -> tuple[str, str, str]:
    """Label, unit and format of a column; an unknown column is its own label."""
    label, of, form = HEADS.get(column, (column.replace("_", " "), "", ""))
    return label.format(unit=unit), of.format(unit=unit), form


def _cell(row: Mapping[Any, Any], column: str) -> str:
    """One cell; a missing bound of an interval that was computed is ``unbounded``."""
    value = row[column]
    is_bound = column.endswith(("lower_pct", "upper_pct")) and not missing(row.get("level_pct"))
    return "unbounded" if is_bound and missing(value) else cell(value, head(column)[2])


def cell(value: Any, form: str = "") -> str:
    """A value as the text of a cell.

    Args:
        value: of any type; missing values become an en dash.
        form: ``p`` (p value), ``d`` (integer) or a fixed-point format such as ``+.2f``; of three decimals
            and more, and without a sign, a smaller value keeps three significant digits.
    """
    if missing(value) or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if form == "p":
        return p_value(float(value))
    if form == "d":
        return str(int(value))
    if form:
        digits, signed = int(form.rstrip("f").rpartition(".")[2]), form.startswith("+")
        # Energy per unit may be of any magnitude; an effect that rounds to 0 is meant so.
        if digits >= 3 and not signed and 0 < abs(float(value)) < 10.0 ** (1 - digits):
            return significant(value, 3)
        return number(value, digits, signed=signed)
    return plain(value)


def plain(value: Any) -> str:
    """Any value as text: floats to four digits, mappings and sequences in one line."""
    if missing(value):
        return NOTHING
    if isinstance(value, float):
        return significant(value) if 1e-3 <= abs(value) < 1e7 or not value else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(plain(v) for v in value)
    return str(value)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "–": "--", "±": r"$\pm$", "σ": r"$\sigma$", "δ": r"$\delta$", "τ": r"$\tau$",
    "→": r"$\to$", "²": r"$^2$", "ρ": r"$\rho$", "<": r"$<$", ">": r"$>$", "’": "'", "×": r"$\times$",
    "\u202f": r"\,", "Ω": r"$\Omega$", "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$", "·": r"$\cdot$",
}  # fmt: skip


def _escape(plain: str) -> str:
    return "".join(_TEX.get(c, c) for c in plain)
