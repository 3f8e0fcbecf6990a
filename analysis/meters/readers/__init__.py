"""The meters, one module per kind: every module of this package is imported with it.

A new meter is one file here, or one module of another distribution that its entry point of the group
``wattbench.meters`` names.
"""

from __future__ import annotations

import importlib
import pkgutil

from wattbench.analysis.meters.registry import GROUP
from wattbench.analysis.model import extensions

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
for _ in extensions.load(GROUP):
    pass  # a module registers its meter when it is imported
