"""Damage to seeds: to bytes as storage and transfers do it, to JSON documents as programs do it."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_TOKENS: tuple[bytes, ...] = (
    b"", b"0", b"-1", b"NaN", b"inf", b"1e999", b"9" * 400, b"18446744073709551616", b",", b",,", b";", b"\t",
    b'"', b"'", b"\n", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"=1+1", b"\x1b[2J", b"{", b"[" * 200,
    b"null", b"true", b"- ", b": ", b"&a ", b"*a", b"<<: *a", b"2026-99-99", b"1:1:1:1",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3.5, 1e308, 10**30, "", "x", "NaN", "\x1b[2J", "=1+1", "2026-13-45", [], {}, [None],
    [[1]], {"a": None},
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four changes: bytes, cuts, repeats, odd tokens, lines in another order."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        end = min(len(changed), place + rng.choice((1, 4, 30, 300)))
        what = rng.randrange(6)
        if what == 0 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif what == 1:
            del changed[place:end]
        elif what == 2:
            changed[place:place] = changed[place:end] * rng.choice((1, 2, 20))
        elif what == 3:
            changed[place:end] = rng.choice(_TOKENS)
        elif what == 4:
            changed[place:place] = rng.choice(_TOKENS)
        else:
            lines = bytes(changed).splitlines(keepends=True)
            rng.shuffle(lines)
            changed = bytearray(b"".join(lines))
    return bytes(changed)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """A document with one to three values of another type, absent, or of another place."""
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        value = _changed(value, rng)
    return json.dumps(value).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    path: list[Any] = []
    node = value
    while isinstance(node, dict | list) and node and (not path or rng.random() < 0.85):
        path.append(rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node)))
        node = node[path[-1]]
    if not path:
        return copy.deepcopy(rng.choice(_VALUES))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.2:
        del parent[path[-1]]
    else:
        parent[path[-1]] = copy.deepcopy(rng.choice((*_VALUES, node, value)))
    return value
