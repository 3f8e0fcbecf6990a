"""The registry of report sections: what stands on the page below the first screen, and in which order.

A section is a class with the decorator :func:`section`. Modules of ``analysis/report/sections`` are
imported when the registry is first read, and so are the entry points of the group
``wattbench.report_sections``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from wattbench.analysis.model import extensions
from wattbench.analysis.presentation import html
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.study import Study

#: Entry points that add sections: modules that register them when they are imported.
GROUP = "wattbench.report_sections"

TEMPLATES = Path(__file__).with_name("templates")


class Section:
    """One section of the page. Without a template of its own: heading, sentences, figures, tables.

    Attributes:
        name: its anchor on the page; unique.
        title: its heading, and its entry in the list of sections.
        place: position on the page, ascending.
        template: of the page part; a file of ``analysis/report/templates``.
    """

    name = ""
    title = ""
    place = 1000
    template = "section.html.j2"

    def sentences(self, study: Study) -> Sequence[str]:
        """Paragraphs below the heading."""
        del study
        return ()

    def tables(self, study: Study) -> Iterable[Table]:
        """Tables, also written to ``tables/`` as CSV and LaTeX; their names are unique.

        Args:
            study: the run, without any tables.
        """
        del study
        return ()

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """Figures, also written to ``figures/`` as SVG and PNG; None: there is nothing to draw.

        Args:
            study: the run, with the tables of all sections.
            artist: draws in the run's colours.
        """
        del study, artist
        return ()

    def links(self, study: Study) -> Sequence[tuple[str, str]]:
        """(anchor, text) of its entries in the list of sections."""
        del study
        return [(self.name, self.title)]

    def anchors(self, study: Study) -> set[str]:
        """Anchors that it has for the subjects of findings."""
        del study
        return set()

    def context(self, study: Study) -> Mapping[str, object]:
        """What its template uses beside the run, the section's own tables and figures, and colours."""
        return {"name": self.name, "title": self.title, "sentences": self.sentences(study)}

    def html(self, study: Study, figures: Mapping[str, Drawing], *, is_first: bool) -> str:
        """Its part of the page; empty: it has nothing to show.

        Args:
            study: the run, with the tables of all sections.
            figures: its own, by name.
            is_first: no other section stands above it.
        """
        return html.fragment(
            self.template,
            {
                "data": study.data,
                "c": study.conclusion,
                "level": f"{100 * (1 - study.conclusion.settings.alpha):g}",
                "tables": study.parts[self.name],
                "figures": figures,
                "looks": study.looks,
                "mark": study.mark.strip(),
                "is_first": is_first,
            }
            | dict(self.context(study)),
            TEMPLATES,
        ).strip("\n")


_SECTIONS: dict[str, Section] = {}
_S = TypeVar("_S", bound=type[Section])


def section(cls: _S) -> _S:
    """Register a section.

    Raises:
        ValueError: it has no name, or another one has it.
    """
    if not cls.name or cls.name in _SECTIONS:
        raise ValueError(f"report section {cls.name!r} has no name, or that of another one")
    _SECTIONS[cls.name] = cls()
    return cls


def sections() -> tuple[Section, ...]:
    """Every section, in the order of the page."""
    extensions.import_modules("wattbench.analysis.report.sections", GROUP)
    return tuple(sorted(_SECTIONS.values(), key=lambda s: (s.place, s.name)))
