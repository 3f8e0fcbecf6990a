"""The sections of a report, one module per section: every module of this package is imported with it.

A new section is one file here, or one module of another distribution that its entry point of the group
``wattbench.report_sections`` names.
"""

from __future__ import annotations

import importlib
import pkgutil

from wattbench.analysis.model import extensions
from wattbench.analysis.report.registry import GROUP

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
for _ in extensions.load(GROUP):
    pass  # a module registers its section when it is imported
