"""The checks, one module per family: every module of this package is imported with it.

A new check is one file here, or one module of another distribution that its entry point of the group
``wattbench.checks`` names.
"""

from __future__ import annotations

from wattbench.analysis.checks.registry import GROUP
from wattbench.analysis.model import extensions

extensions.import_modules(__name__, GROUP)
