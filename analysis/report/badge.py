"""A report's verdict in a few words as a badge: an SVG file that loads nothing and needs no badge service."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from wattbench.analysis.model.escaping import one_line
from wattbench.analysis.presentation.palette import TONES
from wattbench.analysis.report import answer
from wattbench.analysis.report.study import Study

#: Tone of the verdict → its ground. All have a contrast of at least 4.5 : 1 to white.
_GROUNDS = {"decided": TONES["good"][0], "open": TONES["warn"][0], "none": TONES["bad"][0]}
_HEIGHT, _PADDING = 20, 7
#: Average width of a character at 11 px; `textLength` makes any font fill exactly this.
_CHARACTER = 6.4


def badge(done: Study) -> str:
    """The verdict as a badge; its title is the whole headline."""
    word, tone = answer.lead(done.conclusion)
    label = "energy, modelled" if done.mark else "energy"
    parts = ((label, TONES["ink"][0]), (one_line(word), _GROUNDS[tone]))
    widths = [round(len(text) * _CHARACTER) + 2 * _PADDING for text, _ in parts]
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg", "width": str(sum(widths)), "height": str(_HEIGHT),
            "role": "img", "aria-label": ": ".join(text for text, _ in parts),
        },
    )  # fmt: skip
    ET.SubElement(root, "title").text = one_line(done.conclusion.headline.sentence)
    left = 0
    for (text, ground), width in zip(parts, widths, strict=True):
        place = {"x": str(left), "width": str(width), "height": str(_HEIGHT), "fill": ground}
        ET.SubElement(root, "rect", place)
        ET.SubElement(
            root,
            "text",
            {
                "x": str(left + _PADDING), "y": "14", "fill": "#ffffff", "font-size": "11",
                "font-family": "Verdana,DejaVu Sans,sans-serif",
                "textLength": str(width - 2 * _PADDING), "lengthAdjust": "spacingAndGlyphs",
            },
        ).text = text  # fmt: skip
        left += width
    return ET.tostring(root, encoding="unicode") + "\n"
