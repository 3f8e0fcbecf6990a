"""The subcommands of ``python -m analysis``, one module each.

A module offers ``add_parser(subparsers)`` and ``run(args) -> int``: 0, or 1 when the analysis is
done and holds a found finding of severity error. A user's mistake is raised as a
:class:`wattbench.analysis.model.errors.UserError`.
"""

from __future__ import annotations

#: In the order of the help text. Modules import heavy libraries inside ``run``: the command line is
#: built from all of them.
COMMANDS: tuple[str, ...] = (
    "report",
    "audit",
    "compare",
    "power",
    "image",
    "findings",
)
