"""Image digests beside the versions in the compose file (`make pin`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deploy.stack import show
from wattbench.analysis.model.errors import UserError

_IMAGE = re.compile(r"^(?P<before>\s*image: |ARG BASE=)(?P<ref>[^\s$@]+)(?:@\S+)?$", re.MULTILINE)


def pin(files: Sequence[Path]) -> int:
    """Writes the digest that each tag has now behind it.

    Returns:
        How many images were pinned.

    Raises:
        UserError: no registry answered; the files are as they were.
    """
    from wattbench.container.registry import resolve

    pinned, unknown = 0, {}

    def with_digest(found: re.Match[str]) -> str:
        nonlocal pinned
        try:
            digest = resolve(found["ref"], waits_s=()).digest
        except UserError as error:
            unknown[found["ref"]] = str(error)
            return found[0]
        pinned += 1
        return f"{found['before']}{found['ref']}@{digest}"

    for file in files:
        file.write_text(_IMAGE.sub(with_digest, file.read_text()))
    if unknown:
        first = next(iter(unknown.values()))
        problem = f"left as they are: {', '.join(unknown)} ({first})"
        if not pinned:
            raise UserError(f"pin: no registry answers, {problem}")
        show(problem)
    return pinned
