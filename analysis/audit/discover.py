"""What lies in a campaign's folder: raw logs, text logs, tables, and what is none of these.

Nothing is skipped silently: what can't be used is named.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from wattbench.analysis.audit.mapping import Mapping
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import safe_files

_RAW_NAME = re.compile(r"energy_results_.*\.csv(?:\.gz)?$")
_LOG_NAME = re.compile(r"energy_logs_.*\.(?:txt|log)$|.*\.(?:txt|log)$")
_MEASUREMENTS_NAME = re.compile(r"energy_measurements_.*\.csv$")
_RUN_TABLE = "run_table.csv"
_PEEK = 4096
#: Files between two words of progress.
_EVERY = 1000
_DIGITS = re.compile(r"([0-9]+)")

_LOG_SIGNS = re.compile(
    rb"Energy consumption in joules|\busing \w+ device|\[sudo\] password|panicked at|Unable to find image",
    re.IGNORECASE,
)


@dataclass
class Found:
    """Files by kind, relative to the campaign's root, in order of their paths.

    Attributes:
        raw: EnergiBridge logs, or what lies where these are expected; as text, for there may be tens of
            thousands.
        logs: text logs.
        measurements: ``Run,Energy (J),Time (sec)`` tables of one folder.
        derived: published summary tables.
        run_tables: experiment-runner's tables.
        unread: path → why it is not used.
    """

    raw: list[str] = field(default_factory=list)
    logs: list[PurePosixPath] = field(default_factory=list)
    measurements: list[PurePosixPath] = field(default_factory=list)
    derived: list[PurePosixPath] = field(default_factory=list)
    run_tables: list[PurePosixPath] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to audit."""
        return not (self.raw or self.logs or self.derived or self.run_tables or self.measurements)


def discover(
    root: Path,
    mapping: Mapping,
    exclude: Path | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Found:
    """Sort a campaign's files.

    Args:
        root: the campaign's folder.
        mapping: the user's.
        exclude: a folder that is none of it, such as the one that results go to.
        told: is told the number of files seen, now and then.

    Raises:
        InputError: the root is no readable folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{root}: {what}; name the folder of a campaign")
    found = Found()
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for seen, (relative, path) in enumerate(_walk(root, found, exclude), start=1):
        if seen % _EVERY == 0:
            told(seen)
        kind, why = _kind(relative, path, mapping)
        if kind == "unread":
            found.unread[relative] = why
        else:
            kinds[kind].append(relative)
    for kind, files in kinds.items():
        ordered = sorted(files, key=_in_numbers)
        getattr(found, kind).extend(ordered if kind == "raw" else map(PurePosixPath, ordered))
    return found


def run_folders(root: Path) -> list[Path]:
    """Folders of wattbench's own runs at or below a folder."""
    if (root / "run.json").is_file():
        return [root]
    found = {p.parent for pattern in ("*/run.json", "runs/*/run.json") for p in root.glob(pattern)}
    return sorted(folder for folder in found if not safe_files.leaves(root, folder))


def _in_numbers(text: str) -> list[str | int]:
    """Sorts ``a_2`` before ``a_10``."""
    parts: list[str | int] = list(_DIGITS.split(text))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _walk(root: Path, found: Found, exclude: Path | None) -> Iterator[tuple[str, str]]:
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
                found.unread[name or "."] = "a link to a folder that was already read"
                continue
            seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if not name:
                raise InputError(
                    f"{root}: can't be read ({error.strerror}); check its permissions"
                ) from error
            found.unread[name] = f"can't be read: {error.strerror}"
            continue
        for entry in entries:
            # There may be tens of thousands: no Path for each.
            relative = f"{name}/{entry.name}" if name else entry.name
            if not _is_text(entry.name):
                found.unread[shown(relative)] = "its name is no UTF-8; rename it"
                continue
            kind, why = _inside(entry, base)
            if kind == "folder":
                todo.append(relative)
            elif kind == "file":
                yield relative, entry.path
            elif why:
                found.unread[relative] = why


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
        return "", "a broken link" if entry.is_symlink() else "no regular file"
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
    """A name with the bytes that are no UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _kind(text: str, path: str, mapping: Mapping) -> tuple[str, str]:
    """The attribute of :class:`Found` that a file belongs to, or ``unread`` and why."""
    name = text.rpartition("/")[2]
    if mapping.raw and _matches(text, mapping.raw.glob):
        return "raw", ""
    if mapping.logs and _matches(text, mapping.logs):
        return "logs", ""
    if mapping.derived.energy_j and _matches(text, mapping.derived.glob):
        return "derived", ""
    if name.startswith("."):
        return "unread", "a hidden file"
    if name == _RUN_TABLE:
        return "run_tables", ""
    if _MEASUREMENTS_NAME.fullmatch(name):
        return "measurements", ""
    if not mapping.raw and _RAW_NAME.fullmatch(name):
        return "raw", ""
    if not name.endswith((".csv", ".csv.gz", ".txt", ".log")):
        return "unread", "not a CSV and not a text log"
    return _by_content(PurePosixPath(text), Path(path), mapping)


def _matches(text: str, glob: str) -> bool:
    """Whether a relative path matches; ``**/`` also stands for no folder at all."""
    return fnmatch(text, glob) or (glob.startswith("**/") and fnmatch(text, glob[3:]))


def _by_content(relative: PurePosixPath, path: Path, mapping: Mapping) -> tuple[str, str]:
    try:
        with safe_files.open_regular(path) as file:
            head = file.read(_PEEK)
    except OSError as error:
        return "unread", f"can't be read: {error.strerror}"
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    line = text.splitlines()[0].strip() if text else b""
    cells = {cell.strip().strip(b'"') for cell in line.split(b",")}
    in_results = relative.parent.name == "results"
    if relative.name.endswith((".txt", ".log")):
        if _LOG_NAME.fullmatch(relative.name) and (
            relative.name.startswith("energy_logs_") or _LOG_SIGNS.search(head)
        ):
            return "logs", ""
        return "unread", "a text file that is no log of this kind" if head else "an empty file"
    if relative.name.endswith(".gz") or (
        {b"Delta", b"Time"} <= set(_cells(line)) and not mapping.raw
    ):
        return ("raw", "") if not mapping.raw else ("unread", "not among the mapping's raw files")
    if b"__run_id" in cells:
        return "run_tables", ""
    if any(b"Joules" in c or b"(J)" in c for c in cells) and any(
        c.lower() == b"run" for c in cells
    ):
        return "derived", ""
    if relative.name.endswith("_output.csv"):
        return "derived", ""
    if in_results and not mapping.raw:
        return "raw", ""
    return "unread", "a CSV without columns that are known" if head else "an empty file"


def _cells(line: bytes) -> list[bytes]:
    return [cell.strip().strip(b'"') for cell in re.split(rb"[,;\t|]", line)]
