"""Importers: one module per layout of a campaign, and the registry that finds them.

An importer declares its layout, which files are its own (by path and first bytes) and how it reads a
campaign. Each module of this package with an ``IMPORTER`` is one; other distributions add theirs by an
entry point of group ``wattbench.importers`` that names an importer, its class, or a module with one. The
command's choices and the table in the documentation are made from this registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.meters.energibridge import SIZE_LIMIT
from wattbench.analysis.model import extensions

#: Entry points of other distributions.
GROUP = "wattbench.importers"

#: Roles of files that several importers use.
RAW, LOG, TABLE = "raw", "log", "table"

#: A file of this role makes its folder, with all below it, its importer's: nothing else is looked at.
WHOLE_FOLDER = "run"


@dataclass(frozen=True)
class Files:
    """A campaign's files by role, relative to its root, in order of their paths.

    Attributes:
        root: the campaign's folder.
        roles: role → paths.
        unread: path → why the file is not used.
    """

    root: Path
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    def of(self, role: str) -> Sequence[str]:
        """Paths of a role."""
        return self.roles.get(role, ())


@dataclass(frozen=True)
class Context:
    """What an importer gets beside the files.

    Attributes:
        name: the campaign's name in ``run_id``.
        mapping: the user's.
        progress: called with one line of progress.
        limit: bytes of a raw file beyond which it is not read.
    """

    name: str
    mapping: CampaignMapping
    progress: Callable[[str], None] = lambda _: None
    limit: int = SIZE_LIMIT


@runtime_checkable
class Importer(Protocol):
    """How one layout is recognised and read.

    Attributes:
        layout: its name in ``summary.json`` and of ``--layout``.
        recognised_by: what its files look like, for help and documentation.
        rank: importers of lower rank are asked first, for files as for the whole campaign.
        leads: roles of which one file is enough for this importer to read the campaign.
    """

    layout: str
    recognised_by: str
    rank: int
    leads: frozenset[str]

    def claims(self, path: str, head: bytes) -> str | None:
        """The role of a file, None if it is not of this layout.

        Args:
            path: relative to the campaign.
            head: the first bytes, unpacked.
        """

    def read(self, files: Files, context: Context) -> Campaign:
        """Import the campaign.

        Raises:
            InputError: nothing of it can be used.
        """


def installed() -> tuple[Importer, ...]:
    """All importers in order of rank; what can't be loaded is one warning that names it."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    found = [m.IMPORTER for m in modules if hasattr(m, "IMPORTER")]
    for name, added in extensions.load(GROUP):
        one = added() if isinstance(added, type) else getattr(added, "IMPORTER", added)
        if isinstance(one, Importer):
            found.append(one)
        else:
            extensions.log.warning(
                "%s %r is left out: it needs layout, recognised_by, rank, leads, claims() and read()",
                GROUP, name,
            )  # fmt: skip
    return tuple(sorted(found, key=lambda i: (i.rank, i.layout)))


def choose(importers: Sequence[Importer], files: Files) -> Importer | None:
    """The importer that reads a campaign: the first of which there is a leading file."""
    return next((i for i in importers if any(files.of(role) for role in i.leads)), None)
