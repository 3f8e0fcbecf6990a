"""``python -m analysis findings``: what every finding means, as Markdown (docs/findings.md)."""

from __future__ import annotations

import argparse
import sys

from wattbench.analysis.model.finding_codes import CODES, Severity

_INTRODUCTION = """\
# Findings

What can be wrong with a trial, a host, an image or a run, as `wattbench findings` prints it.
Codes are stable: some may be added, none is renamed.

A check ends as *found*, *not-found* or *undecidable*; the last is shown and never taken for fine. Each
finding carries its numbers, files and lines as evidence. The severity below is the usual one; a check may
lower or raise it and says why.

| severity | a found one |
| --- | --- |
| error | takes its subject out of the statistics; the command that found it ends with exit code 1 |
| warning | stands beside the number |
| info | was handled |

What `wattbench image` finds in an image has codes of its own: [image-audit.md](image-audit.md).
"""


def markdown() -> str:
    """The reference of all codes: a list by severity, then one section per code."""
    parts = [_INTRODUCTION]
    for severity in Severity:
        codes = [name for name, code in CODES.items() if code.severity is severity]
        links = ", ".join(f"[{name}](#{name})" for name in codes)
        parts.append(f"**{severity}**: {links}\n")
    for name, code in CODES.items():
        parts.append(
            f"## {name}\n\n{code.meaning} *Usually {_article(code.severity)} {code.severity}.*\n\n"
            f"* Why it matters: {code.why}\n* What to do: {code.action}\n"
        )
    return "\n".join(parts)


def _article(severity: Severity) -> str:
    return "a" if severity is Severity.WARNING else "an"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    subparsers.add_parser(
        "findings",
        help="what every finding means",
        description="Print the reference of all findings as Markdown.",
    )


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Print the reference."""
    sys.stdout.write(markdown())
    return 0
