"""The sections of a report, one module per section: every module of this package is imported with it.

A new section is one file here, or one module of another distribution that its entry point of the group
``wattbench.report_sections`` names.
"""

from __future__ import annotations

from wattbench.analysis.model import extensions
from wattbench.analysis.report.registry import GROUP

extensions.import_modules(__name__, __path__, GROUP)
