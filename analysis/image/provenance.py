"""Everything that is known of one image: where it comes from, what it holds, what of it is waste."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypedDict

from wattbench.analysis.image import archive, bytecode, inventory, waste
from wattbench.analysis.image import settings as variables
from wattbench.analysis.image.bytecode import Compiled
from wattbench.analysis.image.documents import Settings
from wattbench.analysis.image.inventory import Inventory
from wattbench.analysis.image.layers import Kind
from wattbench.analysis.image.overlay import Hidden, Overlay
from wattbench.analysis.image.waste import LeftBehind, Waste

SCHEMA_VERSION = 1
#: Folders of ``PYTHONPATH`` that are looked at.
_ROOTS = 100
#: What Docker writes before a step's own words; build arguments stand in front of a RUN.
_SHELL = re.compile(r"^(\|\d+ .*?)?/bin/sh -c (#\(nop\)\s*)?", re.DOTALL)


class HistoryStep(TypedDict):
    """A step that made the image; ``empty``: it changed only its config."""

    created_by: str
    size_bytes: int
    comment: str
    empty: bool


@dataclass(frozen=True)
class LayerFacts:
    """One layer. ``number`` from 1, the base first; sizes in bytes.

    Attributes:
        number: place.
        diff_id: digest of the uncompressed layer.
        command: what made it, from the image's history.
        files: regular files stored.
        size_bytes: their content.
        packed_bytes: compressed size, where the source has it compressed.
        hidden_bytes: of its content, what later layers (or itself) hide.
    """

    number: int
    diff_id: str
    command: str
    files: int
    size_bytes: int
    packed_bytes: int | None
    hidden_bytes: int


@dataclass(frozen=True)
class Image:
    """An image, described."""

    source: str
    id: str
    digest: str | None
    tags: tuple[str, ...]
    created: str | None
    platform: str
    settings: Settings
    history: tuple[HistoryStep, ...]
    layers: tuple[LayerFacts, ...]
    inventory: Inventory
    hidden: tuple[Hidden, ...]
    left_behind: tuple[LeftBehind, ...]
    waste: Waste
    compiled: tuple[Compiled, ...]

    @property
    def name(self) -> str:
        """Short, for people."""
        if self.tags:
            return self.tags[0]
        path = PurePosixPath(self.source)
        return path.name or self.source

    @property
    def size_bytes(self) -> int:
        """Unpacked, as Docker counts: all layers' content."""
        return self.waste.stored

    @property
    def packed_bytes(self) -> int | None:
        """Compressed, where every layer is."""
        sizes = [layer.packed_bytes for layer in self.layers]
        return (
            sum(size for size in sizes if size is not None) if sizes and None not in sizes else None
        )

    @property
    def env(self) -> dict[str, str]:
        """Environment variables."""
        return self.settings.variables

    @property
    def user(self) -> str:
        """As configured; empty is root."""
        return self.settings.user or ""

    @property
    def labels(self) -> dict[str, str]:
        """Labels."""
        return dict(self.settings.labels)

    def to_dict(self) -> dict[str, object]:
        """``image.json``: JSON-ready. The first keys are those that a pull records of an image on a host."""
        start = self.inventory.start
        return {
            "schema": SCHEMA_VERSION,
            "source": self.source,
            "id": self.id,
            "digests": [self.digest] if self.digest else [],
            "tags": list(self.tags),
            "created": self.created,
            "platform": self.platform,
            "size_bytes": self.size_bytes,
            "size_bytes_compressed": self.packed_bytes,
            "env": self.env,
            "env_that_matters": variables.that_matter(self.env),
            "entrypoint": self.settings.entrypoint,
            "cmd": self.settings.command,
            "user": self.user,
            "workdir": self.settings.working_dir or "",
            "labels": self.labels,
            "layer_diff_ids": [layer.diff_id for layer in self.layers],
            "history": [dict(one) for one in self.history],
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "waste": dataclasses.asdict(self.waste)
            | {"total": self.waste.total, "share_pct": round(self.waste.share_pct, 3)},
            "hidden": [
                dataclasses.asdict(one) | {"layer": one.layer + 1, "by": one.by + 1}
                for one in sorted(self.hidden, key=lambda one: (-one.size, one.path))[:100]
            ],
            "left_behind": [
                dataclasses.asdict(one) | {"layers": [n + 1 for n in one.layers]}
                for one in self.left_behind
            ],
            "system": dict(self.inventory.system),
            "machines": dict(self.inventory.machines),
            "start": dataclasses.asdict(start),
            "pythons": [dataclasses.asdict(one) for one in self.inventory.pythons],
            "torch": [
                dataclasses.asdict(one) | {"cuda_arch_list": one.gpu.names() if one.gpu else None}
                for one in self.inventory.torches
            ],
            "libraries": [dataclasses.asdict(one) for one in self.inventory.libraries],
            "bytecode": [dataclasses.asdict(one) for one in self.compiled],
            "packages": [dataclasses.asdict(one) for one in self.inventory.packages],
        }


def describe(stored: archive.Stored) -> Image:
    """Lay the layers over each other and look through what a container sees."""
    settings = stored.config.settings
    overlay = Overlay(stored.layers)
    held = inventory.take(overlay, settings)
    minors = {one.minor for one in held.pythons}
    left = waste.left_behind(overlay, {f"cpython-{minor.replace('.', '')}" for minor in minors})
    roots = settings.variables.get("PYTHONPATH", "").split(":")[:_ROOTS]
    lost: defaultdict[int, int] = defaultdict(int)
    for one in overlay.hidden:
        lost[one.layer] += one.size
    history = _history(stored)
    commands = [str(one["created_by"]) for one in history if not one["empty"]]
    return Image(
        source=stored.source,
        id=stored.config_digest,
        digest=stored.digest,
        tags=stored.tags,
        created=stored.config.created,
        platform=stored.config.platform,
        settings=settings,
        history=history,
        layers=tuple(
            LayerFacts(
                number=layer.index + 1,
                diff_id=layer.diff_id,
                command=commands[layer.index] if layer.index < len(commands) else "",
                files=len({id(e) for e in layer.entries.values() if e.kind is Kind.FILE})
                + len(layer.replaced),
                size_bytes=layer.size_bytes,
                packed_bytes=layer.packed_bytes,
                hidden_bytes=lost[layer.index],
            )
            for layer in stored.layers
        ),
        inventory=held,
        hidden=overlay.hidden,
        left_behind=left,
        waste=Waste(
            stored=sum(layer.size_bytes for layer in stored.layers),
            hidden=sum(one.size for one in overlay.hidden),
            left_behind=sum(one.size for one in left),
        ),
        compiled=bytecode.examine(overlay, minors, [*roots, *held.start.folders]),
    )


def _history(stored: archive.Stored) -> tuple[HistoryStep, ...]:
    """Steps that made the image, the base first; empty ones changed only its config."""
    sizes = iter([layer.size_bytes for layer in stored.layers])
    steps: list[HistoryStep] = []
    for one in stored.config.history:
        empty = bool(one.empty_layer)
        steps.append(
            {
                "created_by": _SHELL.sub("", one.created_by or "").strip(),
                "size_bytes": 0 if empty else next(sizes, 0),
                "comment": one.comment or "",
                "empty": empty,
            }
        )
    return tuple(steps)
