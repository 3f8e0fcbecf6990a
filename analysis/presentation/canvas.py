"""A matplotlib figure → SVG for the page, SVG and PNG for papers.

The page's SVG takes its colours from CSS variables, its text from the page's font, and has no
identifiers that could clash with another figure's. Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.analysis.presentation import palette

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = npt.NDArray[np.float64]

INK, MUTED, LINE, WASH, PAPER = (
    palette.TONES[t][0] for t in ("ink", "muted", "line", "wash", "paper")
)
WARN = palette.TONES["warn"][0]
WIDTH_IN = 5.4
MODELLED = "modelled, not measured"
#: More values of one row are not drawn as points.
MOST_POINTS = 300

#: matplotlib types its own keys one by one; these are checked when they are set.
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.2,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "wattbench",
}


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its files.
        caption: what is shown, one or two sentences.
        alt: what a reader who can't see it needs.
        inline: SVG for the page.
        svg: SVG for a file.
        png: PNG, 200 dots an inch.
    """

    name: str
    caption: str
    alt: str
    inline: str
    svg: str
    png: bytes

    @property
    def title(self) -> str:
        """The caption's first sentence."""
        return self.caption.partition(". ")[0].rstrip(".") + "."

    @property
    def legend(self) -> str:
        """The rest of the caption."""
        return self.caption.partition(". ")[2]

    def write(self, folder: Path) -> None:
        """``NAME.svg`` and ``NAME.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        yield


def new(height_in: float, rows: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with ``rows`` panels one below the other."""
    from matplotlib.figure import Figure as Figure_

    figure = Figure_(figsize=(WIDTH_IN, height_in), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False, **grid)
    return figure, [row[0] for row in panels]


def bare_y(axes: Axes, labels: list[str]) -> None:
    """Category labels on y, from the top, without ticks."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")


def distribution(
    axes: Axes,
    place: float,
    values: Array,
    colour: str,
    marker: str,
    *,
    logarithmic: bool = False,
) -> None:
    """Every value, a box with quartiles and median, and a violin of the density, in one row.

    Args:
        axes: where.
        place: row, on y.
        values: on x, shape (n,).
        colour: of violin and points.
        marker: of the points.
        logarithmic: whether the density is that of the logarithms.
    """
    import numpy as np
    from scipy.stats import gaussian_kde

    if values.size >= 5 and np.ptp(values) > 0:
        scaled = np.log(values) if logarithmic else values
        spread = 0.25 * np.ptp(scaled)
        grid = np.linspace(scaled.min() - spread, scaled.max() + spread, 80)
        density = gaussian_kde(scaled)(grid)
        half = 0.4 * density / density.max()
        across = np.exp(grid) if logarithmic else grid
        axes.fill_between(across, place - half, place + half, color=colour, alpha=0.18, linewidth=0)
    if values.size <= MOST_POINTS:
        # Points beside each other instead of random: the figure is the same every time.
        offsets = 0.3 * ((np.arange(values.size) * 0.618034) % 1 - 0.5)
        axes.plot(values, place + offsets, marker, color=colour, ms=3.8, alpha=0.75, mew=0)
    if values.size >= 3:
        axes.boxplot(
            [values], positions=[place], orientation="horizontal",
            widths=0.2, showfliers=False, manage_ticks=False,
            boxprops={"color": INK, "linewidth": 0.9}, whiskerprops={"color": INK, "linewidth": 0.9},
            capprops={"linewidth": 0}, medianprops={"color": INK, "linewidth": 2},
        )  # fmt: skip
    else:
        axes.plot([np.median(values)], [place], "|", color=INK, ms=14, mew=2)


def finish(figure: Figure, name: str, caption: str, alt: str, *, modelled: bool) -> Drawing:
    """Render a figure; a modelled one carries its label where it can't be cut off."""
    if modelled:
        for axes in figure.axes:
            axes.text(
                0.5, 0.5, MODELLED, transform=axes.transAxes, ha="center", va="center",
                fontsize=15, color=WARN, alpha=0.28, rotation=12, zorder=0.5, clip_on=True,
            )  # fmt: skip
        figure.suptitle(
            MODELLED.capitalize(), x=0.995, ha="right", fontsize=8.5, color=WARN, weight="bold"
        )
        caption, alt = f"{caption} Modelled, not measured.", f"Modelled, not measured. {alt}"
    # Laid out once: each file would lay it out again, to the same end.
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would have each file draw the figure twice
    raw = io.StringIO()
    figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    text = _slim(raw.getvalue())
    return Drawing(name, caption, alt, _inline(text, name, alt), _standalone(text), png.getvalue())


def _slim(svg: str) -> str:
    """Without prolog, metadata, and identifiers that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda m: m.group(0) if m.group(1) in used else "", svg)
    # A hundredth of a point is finer than any screen or printer.
    svg = re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    return re.sub(r">\s+<", "><", svg)


def _standalone(svg: str) -> str:
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg + "\n"


def _inline(svg: str, name: str, alt: str) -> str:
    """For the page: themed, named, without a size of its own."""
    for value, variable in palette.by_light_value().items():
        svg = svg.replace(value, f"var(--{variable})")
    svg = re.sub(r'((?:id="|url\(#|href="#))', rf"\1{name}-", svg)
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    label = escape(alt, quote=True)
    return re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg {box.group(0)} role="img" aria-label="{label}">',
        svg,
        count=1,
    )
