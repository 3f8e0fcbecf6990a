"""The meters, one module per kind: every module of this package is imported with it.

A new meter is one file here, or one module of another distribution that its entry point of the group
``wattbench.meters`` names.
"""

from __future__ import annotations

from wattbench.analysis.meters.registry import GROUP
from wattbench.analysis.model import extensions

extensions.import_modules(__name__, __path__, GROUP)
