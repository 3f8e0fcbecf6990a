"""Treatments and run numbers from paths: folders at any depth, else file names.

Parts of a path that count runs or hold dates are not a treatment. What is left and differs between files
is; where the last folder's name is the same for several treatments, the folders above it are named too, so
that nothing that differs in its path is pooled.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wattbench.analysis.audit.mapping import Mapping as CampaignMapping

#: Folders that hold the files of the treatment that the folder above them is named after.
_HOLDERS = frozenset({"results", "logs"})

_WORD = (
    r"run|runs|trial|rep|repeat|repetition|iter|iteration|it|measurement|measure|sample|test|exp|experiment"
    r"|session|attempt|r|n|no"
)
_IS_WORD = re.compile(_WORD, re.IGNORECASE)
_LONG_WORD = r"run|trial|rep|repetition|iteration|iter|measurement|sample|attempt"
#: A part of a path that counts runs, or is a date or time.
_COUNTING = re.compile(
    rf"(?:(?:{_WORD})[ _.\-]*)*\d+(?:[ _.\-:T]+\d+)*Z?(?:[ _.\-]*(?:{_WORD})[ _.\-]*\d+)*",
    re.IGNORECASE,
)
#: A run's number in a name, the surest first; of several the last one counts.
_RUN_IN_NAME = (
    re.compile(rf"(?<![A-Za-z0-9])(?:{_WORD})[ _.\-]*(\d+)(?![A-Za-z0-9])", re.IGNORECASE),
    re.compile(rf"(?<![A-Za-z])(?:{_LONG_WORD})[ _.\-]*(\d+)", re.IGNORECASE),
    re.compile(r"(?<![A-Za-z0-9])(\d+)$"),
    re.compile(r"(?<![A-Za-z0-9])(\d+)(?![A-Za-z0-9])"),
    re.compile(r"(\d+)$"),
)
_LAST_NUMBER = _RUN_IN_NAME[-1]
#: Where a word that counts runs is glued to the treatment before or after it.
_GLUED = (
    re.compile(rf"(?<![A-Za-z])((?:{_LONG_WORD})\d+)(?=[A-Za-z])", re.IGNORECASE),
    re.compile(r"(?<=[A-Za-z0-9])(?=(?:Run|Trial|Rep|Iter|Iteration)\d+(?![A-Za-z0-9]))"),
)
_SUFFIXES = re.compile(r"(?:\.(?:csv|tsv|txt|log|out|json|jsonl|gz))+$", re.IGNORECASE)
_TOKENS = re.compile(r"[ _.\-]+")
_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d"
    r"(?:[T _\-.]*[0-2]\d[-_.:h]?[0-5]\d(?:[-_.:m]?[0-5]\d(?:[.,]\d+)?)?)?Z?(?!\d)"
)
_HEX = re.compile(r"(?=.*\d)[0-9a-f]{8,}", re.IGNORECASE)
_IDLE = re.compile(r"(?:^|(?P<before>.+?)[ _\-/])idle(?:[ _\-/](?P<after>.+))?$", re.IGNORECASE)

#: Treatments that are named after files without numbers, at most.
_FEW = 20


@dataclass(frozen=True)
class Label:
    """A treatment: its image, and whether it is measured idle."""

    image: str
    kind: str


@dataclass(frozen=True)
class Treatments:
    """Treatments inferred from paths.

    Attributes:
        of: path → treatment.
        said: what was inferred and how to override it, one sentence each.
    """

    of: Mapping[str, Label]
    said: tuple[str, ...] = ()


def folder_of(path: str) -> str:
    """The folder that is named after a file's treatment; empty for the campaign's own."""
    parent = path.rpartition("/")[0]
    above, _, name = parent.rpartition("/")
    return above if name in _HOLDERS else parent


def stem_of(path: str) -> str:
    """A file's name without the suffixes of its format."""
    return _SUFFIXES.sub("", path.rpartition("/")[2])


@functools.lru_cache(maxsize=1 << 16)
def run_of(path: str) -> int | None:
    """The run's number: in the file's name, else in a folder that counts runs."""
    stem = _DATE.sub("", stem_of(path)).rstrip(" _.-")
    found = next((numbers[-1] for p in _RUN_IN_NAME if (numbers := p.findall(stem))), None)
    if found is None:
        for part in reversed(path.split("/")[:-1]):
            if part not in _HOLDERS:
                match = _LAST_NUMBER.search(part) if _COUNTING.fullmatch(part) else None
                found = match and match.group(1)
                break
    return int(found[-15:]) if found else None


def label_of(name: str) -> Label:
    """A treatment by its name: ``x_idle``, ``x/idle`` and ``idle_x`` are image x, measured idle.

    One that is called idle alone is compared like the others.
    """
    match = _IDLE.match(name)
    image = match and (match["before"] or match["after"])
    return Label(image, "idle") if image else Label(name, "workload")


def infer(paths: Sequence[str], root_name: str) -> Treatments:
    """The treatment of each file.

    Args:
        paths: relative to the campaign.
        root_name: of its folder: the treatment where the paths show no other.
    """
    if not paths:
        return Treatments({})
    folders, how = _of_folders({folder_of(p) for p in paths}, paths, root_name)
    in_folder: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        in_folder[folders[folder_of(path)]].append(path)
    names: dict[str, str] = {}
    by_name: list[str] = []
    for folder, mine in in_folder.items():
        stems = _of_names(mine)
        if stems:
            by_name += dict.fromkeys(stems.values())
        for path in mine:
            stem = stems.get(path)
            alone = len(in_folder) == 1
            names[path] = folder if stem is None else stem if alone else f"{folder}/{stem}"
    said = []
    if how:
        said.append(how)
    if by_name:
        said.append(
            f"treatments come from the names of the files: {_few(by_name)}; "
            "a pattern `raw: {image: …}` in a --mapping file overrides this"
        )
    labels = {name: label_of(name) for name in set(names.values())}
    return Treatments({path: labels[name] for path, name in names.items()}, tuple(said))


def owners(
    paths: Sequence[str], root: Path, mapping: CampaignMapping
) -> tuple[dict[str, Label], tuple[str, ...]]:
    """The treatment of each file, by the mapping where it names one; and what was inferred.

    Args:
        paths: relative to the campaign.
        root: the campaign's folder.
        mapping: the user's.
    """
    root = root.resolve()
    found = infer(paths, (root.parent if root.name == "results" else root).name)
    raw = mapping.raw
    labels: dict[str, Label] = {}
    for path, label in found.of.items():
        image, kind = label.image, label.kind
        if raw and raw.image and (match := re.search(raw.image, path)):
            named = label_of(match.group(1))
            image, kind = named.image, named.kind
        if raw and raw.idle:
            kind = "idle" if re.search(raw.idle, path) else "workload"
        labels[path] = Label(mapping.images.get(image, image), kind)
    return labels, () if raw and raw.image else found.said


def _of_folders(
    folders: set[str], paths: Sequence[str], root_name: str
) -> tuple[dict[str, str], str | None]:
    """Folder → treatment, and what is said of it where it is not simply the last folder's name."""
    parts = {f: PurePosixPath(f).parts for f in folders}
    kept = {f: tuple(p for p in ps if not _COUNTING.fullmatch(p)) for f, ps in parts.items()}
    each = Counter(folder_of(p) for p in paths)
    # Folders that are named by numbers alone and hold several files each are treatments, not runs.
    if len(set(kept.values())) == 1 and len(folders) > 1 and max(each.values()) > 1:
        kept = parts
    distinct = set(kept.values())
    shared = _shared(distinct)
    tails = {k: k[shared:] or k[-1:] for k in distinct}
    lasts = Counter(k[-1] if k else root_name for k in distinct)
    if len(distinct) == 1 or max(lasts.values()) == 1:
        named = {f: (k[-1] if k else root_name) for f, k in kept.items()}
        if any(kept[f] != parts[f] for f in folders) and len(distinct) > 1:
            return named, _folders_say(named, "folders")
        return named, None
    # Several folders share the last name: what differs above it distinguishes them.
    common = _shared({t[::-1] for t in tails.values()})
    cut = {k: t[: len(t) - common] or t for k, t in tails.items()}
    labels = {k: "/".join(t) or root_name for k, t in cut.items()}
    named = {f: labels[k] for f, k in kept.items()}
    return named, _folders_say(named, "folders above those that share a name")


def _folders_say(named: Mapping[str, str], what: str) -> str:
    return (
        f"treatments come from the {what}: {_few(dict.fromkeys(named.values()))}; "
        "a pattern `raw: {image: …}` in a --mapping file overrides this"
    )


def _few(names: Sequence[str] | Mapping[str, object]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more


def _shared(parts: set[tuple[str, ...]]) -> int:
    """Leading parts that all have in common; the last part of none is among them."""
    shortest = min((len(p) for p in parts), default=0)
    count = 0
    while count < shortest - 1 and len({p[count] for p in parts}) == 1:
        count += 1
    return count


def _of_names(paths: Sequence[str]) -> dict[str, str]:
    """Path → treatment where the names of one folder's files show several; else empty."""
    stems = {path: _words(stem_of(path)) for path in paths}
    counts = Counter(stems.values())
    several = {stem for stem, n in counts.items() if n > 1 and stem}
    if len(several) < 2 and (bare := _without_numbers(stems)):
        stems, several = bare, set(bare.values())
    elif len(several) < 2:
        plain = not any(re.search(r"\d", stem_of(p)) for p in paths)
        if not (plain and 1 < len(counts) == len(paths) <= _FEW and all(counts)):
            return {}
        several = set(counts)
    shared = _shared(several)
    return {
        path: "_".join(stem[shared:] or stem) for path, stem in stems.items() if stem in several
    }


def _without_numbers(stems: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Names without the number glued to their end, where the same numbers come back: ``a1 a2 b1 b2``."""
    bare: dict[str, tuple[str, ...]] = {}
    numbers: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for path, stem in stems.items():
        match = re.fullmatch(r"(.*[A-Za-z])(\d+)", stem[-1]) if stem else None
        if match is None:
            return {}
        bare[path] = (*stem[:-1], match[1])
        numbers[bare[path]].add(match[2])
    groups = list(numbers.values())
    alike = len(groups) > 1 and all(len(g) > 1 and 2 * len(g & groups[0]) >= len(g) for g in groups)
    return bare if alike else {}


def _words(stem: str) -> tuple[str, ...]:
    """A name's parts without those that count runs, dates and identifiers."""
    stem = _GLUED[1].sub("_", _GLUED[0].sub(r"\1_", _DATE.sub("", stem)))
    tokens = [t for t in _TOKENS.split(stem) if t]
    kept: list[str] = []
    for place, token in enumerate(tokens):
        after_word = place > 0 and _IS_WORD.fullmatch(tokens[place - 1])
        last = not any(t.isdigit() for t in tokens[place + 1 :])
        if token.isdigit() and (after_word or last or len(token) >= 6):
            if after_word and kept and kept[-1] == tokens[place - 1]:
                kept.pop()
            continue
        if _COUNTING.fullmatch(token) and not token.isdigit():
            continue
        if _HEX.fullmatch(token):
            continue
        kept.append(token)
    # A counting word at an end counts nothing any more.
    while kept and _IS_WORD.fullmatch(kept[-1]) and len(kept) > 1:
        kept.pop()
    return tuple(kept)
