"""Files of a campaign's folder: the role that an importer claims for each, and the unclaimed ones.

Nothing is skipped silently: what can't be used is named.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from wattbench.analysis.audit.importers import LOG, RAW, TABLE, WHOLE_FOLDER, Files, Importer
from wattbench.analysis.audit.mapping import Mapping
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import safe_files
from wattbench.analysis.storage.encodings import as_utf8, is_utf16

#: First bytes of a file that importers see.
HEAD_BYTES = 4096

#: Files between two lines of progress.
_EVERY = 1000
_DIGITS = re.compile(r"([0-9]+)")

OTHER_KIND = "not a CSV and not a text log"
HIDDEN = "a hidden file"

#: Names of files that may hold measurements; others are not opened.
_TEXTS = (".csv", ".csv.gz", ".tsv", ".txt", ".log", ".out", ".json", ".jsonl", ".ndjson", ".gz")


def discover(
    root: Path,
    importers: Sequence[Importer],
    mapping: Mapping,
    exclude: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Files:
    """Sort a campaign's files.

    Args:
        root: the campaign's folder.
        importers: asked in their order.
        mapping: the user's.
        exclude: a folder that is none of it, such as the one that results go to.
        progress: called now and then with the number of files seen.

    Raises:
        InputError: the root is not a readable folder.
    """
    if not root.exists():
        raise InputError(f"{root}: does not exist; name the folder of a campaign")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; name the folder of a campaign")
    unread: dict[str, str] = {}
    roles: defaultdict[str, list[str]] = defaultdict(list)
    taken: tuple[str, ...] = ()
    for seen, (relative, path) in enumerate(_walk(root, unread, exclude), start=1):
        if seen % _EVERY == 0:
            progress(seen)
        if relative.startswith(taken):
            continue
        role, why = _role(relative, path, importers, mapping)
        if role is None:
            unread[relative] = why
        else:
            roles[role].append(relative)
        if role == WHOLE_FOLDER:
            taken += (relative.removesuffix(relative.rpartition("/")[2]),)
    kept = {
        role: sorted(
            (p for p in paths if role == WHOLE_FOLDER or not p.startswith(taken)), key=_in_numbers
        )
        for role, paths in roles.items()
    }
    return Files(root, kept, {p: why for p, why in unread.items() if not p.startswith(taken)})


def _in_numbers(text: str) -> list[str | int]:
    """Sorts ``a_2`` before ``a_10``."""
    parts: list[str | int] = list(_DIGITS.split(text))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _walk(root: Path, unread: dict[str, str], exclude: Path | None) -> Iterator[tuple[str, str]]:
    """All regular files, relative and as opened; a link to a folder that was seen is not followed."""
    seen: set[tuple[int, int]] = set()
    base = os.path.realpath(root)
    away = _identity(exclude.stat()) if exclude is not None and exclude.is_dir() else None
    todo = [""]
    while todo:
        name = todo.pop()
        folder = root / name
        try:
            identity = _identity(folder.stat())
            if identity == away:
                continue
            if identity in seen:
                unread[name or "."] = "a link to a folder that was already read"
                continue
            seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if not name:
                raise InputError(
                    f"{root}: can't be read ({error.strerror}); check its permissions"
                ) from error
            unread[name] = f"can't be read: {error.strerror}"
            continue
        for entry in entries:
            # There may be tens of thousands: no Path for each.
            relative = f"{name}/{entry.name}" if name else entry.name
            if not _is_text(entry.name):
                unread[shown(relative)] = "its name is not UTF-8; rename it"
                continue
            kind, why = _inside(entry, base)
            if kind == "folder":
                todo.append(relative)
            elif kind == "file":
                yield relative, entry.path
            elif why:
                unread[relative] = why


def _inside(entry: os.DirEntry[str], base: str) -> tuple[str, str]:
    """``folder``, ``file``, or neither with the reason; of a hidden folder without one."""
    try:
        if entry.is_symlink() and safe_files.leaves(base, entry.path):
            broken = not Path(entry.path).exists()
            return "", "a broken link" if broken else "a link that leaves the campaign's folder"
        if entry.is_dir():
            return ("", "") if entry.name.startswith(".") else ("folder", "")
        if entry.is_file():
            return "file", ""
        return "", "a broken link" if entry.is_symlink() else "not a regular file"
    except OSError as error:
        return "", f"can't be read: {error.strerror}"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_text(name: str) -> bool:
    """Whether a file's name can be written to a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A name with the bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _role(
    relative: str, path: str, importers: Sequence[Importer], mapping: Mapping
) -> tuple[str | None, str]:
    """The role of a file, or None and why it has none."""
    if mapping.raw and _matches(relative, mapping.raw.glob):
        return RAW, ""
    if mapping.logs and _matches(relative, mapping.logs):
        return LOG, ""
    if mapping.derived.energy_j and _matches(relative, mapping.derived.glob):
        return TABLE, ""
    name = relative.rpartition("/")[2]
    if name.startswith("."):
        return None, HIDDEN
    if not name.endswith(_TEXTS):
        return None, OTHER_KIND
    try:
        head = _head(path)
    except OSError as error:
        return None, f"can't be read: {error.strerror}"
    role = next((r for i in importers if (r := i.claims(relative, head))), None)
    if role == RAW and mapping.raw:
        return None, "not among the mapping's raw files"
    if role is not None:
        return role, ""
    if not head:
        return None, "an empty file"
    if name.endswith((".json", ".jsonl", ".ndjson", ".out", ".tsv", ".gz")):
        return None, OTHER_KIND
    if name.endswith((".txt", ".log")):
        return None, "a text file that is not a log of a known kind"
    return None, "a CSV without columns that are known"


def _head(path: str) -> bytes:
    """The first bytes of a file, unpacked."""
    with safe_files.open_regular(path) as file:
        head = file.read(HEAD_BYTES)
        if path.endswith((".txt", ".log", ".out")) and len(head) == HEAD_BYTES:
            # A meter writes its summary after all that the command printed.
            file.seek(max(HEAD_BYTES, (file.seek(0, os.SEEK_END) - HEAD_BYTES) & ~1))
            mark = head[:2] if is_utf16(head) else b""
            return as_utf8(head) + b"\n" + as_utf8(mark + file.read(HEAD_BYTES))
    if path.endswith(".gz") and head:
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        with contextlib.suppress(zlib.error):
            return as_utf8(unpack.decompress(head, HEAD_BYTES))
        return b""
    return as_utf8(head)


def _matches(text: str, glob: str) -> bool:
    """Whether a relative path matches; ``**/`` also stands for no folder at all."""
    return fnmatch(text, glob) or (glob.startswith("**/") and fnmatch(text, glob[3:]))
