"""Codes of findings: meaning, consequence, remedy, and the registry of all codes.

A code is declared once, beside the check that finds it (``analysis/checks/rules``); the registry imports
these modules when it is first read.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    FOUND = "found"
    NOT_FOUND = "not-found"
    UNDECIDABLE = "undecidable"


class Severity(StrEnum):
    """What a found finding does to its subject."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Code:
    """What a finding's code means.

    Attributes:
        name: stable; written to findings.json.
        severity: the usual severity; a check may lower or raise it with a reason in its evidence.
        meaning: one sentence, what was seen.
        why: why it matters for the energy numbers.
        action: what to do next.
        place: position on pages, ascending. Of several errors of a trial the first is its reason.
        shared: (imports) reported once where every trial that can be judged has it.
        source: (images) supports ``why``.
    """

    name: str
    severity: Severity
    meaning: str
    why: str
    action: str
    place: int = 1000
    shared: bool = False
    source: str = ""


class Codes(Mapping[str, Code]):
    """Codes by name, in the order of pages. Codes may be added; none is renamed.

    Args:
        declared_in: module whose import declares them all.
    """

    def __init__(self, declared_in: str) -> None:
        self._declared_in = declared_in
        self._codes: dict[str, Code] = {}
        self._complete = False

    def declare(self, code: Code) -> Code:
        """Add a code.

        Raises:
            ValueError: another one has its name.
        """
        if self._codes.setdefault(code.name, code) != code:
            raise ValueError(f"finding code {code.name!r} is declared twice")
        return code

    def adopt(self, name: str, severity: Severity) -> None:
        """Add a code that a stored document names and no installed check declares."""
        if name not in self:
            text = "Found by a check that is not installed here."
            self.declare(Code(name, severity, text, text, "Read the finding's message."))

    def _all(self) -> dict[str, Code]:
        if not self._complete:
            self._complete = True  # first: the modules that are imported read the registry too
            importlib.import_module(self._declared_in)
        return self._codes

    def __getitem__(self, name: str) -> Code:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all(), key=lambda n: (self._codes[n].place, n)))

    def __len__(self) -> int:
        return len(self._all())


#: Of trials, hosts and runs.
CODES = Codes("wattbench.analysis.checks.rules")
#: Of images.
IMAGE_CODES = Codes("wattbench.analysis.image.finding_codes")


def code_named(name: str) -> Code:
    """The code of an image, trial, host or run.

    Raises:
        KeyError: none is declared under this name.
    """
    return IMAGE_CODES[name] if name in IMAGE_CODES else CODES[name]
