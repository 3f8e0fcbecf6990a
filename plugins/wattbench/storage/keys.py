"""Syntax of object keys."""

from __future__ import annotations

import re

from wattbench.analysis.model.errors import InputError

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def checked_name(name: str, what: str = "name") -> str:
    """The name, if it may be one part of a key.

    Raises:
        InputError: it has other characters, is empty or too long.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r} can't name an object in the store; use letters, digits, '-', '.' "
            "and '_', at most 200, beginning with a letter or digit"
        )
    return name


def checked_key(key: str) -> str:
    """A ``/``-separated key, if every part of it is a name.

    Raises:
        InputError: a part is not a name.
    """
    for part in key.split("/"):
        checked_name(part, f"part of key {key!r}:")
    return key
