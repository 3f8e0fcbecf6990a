"""JSON and YAML documents from outside, read within limits on size, depth and expansion.

``json.loads`` and ``yaml.safe_load`` trust their input: deep nesting ends in ``RecursionError``, YAML
aliases and merge keys expand exponentially, ``NaN`` and integers of a million digits pass. Every document
that another program, host or registry wrote is read here instead, and ends as a value or as one error.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import yaml

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage.safe_files import open_regular

#: Largest JSON document: a run's manifest of 50,000 objects. Parsed, it needs up to 25 times as much.
JSON_BYTES: Final = 16 << 20
#: Largest YAML document written by people.
YAML_BYTES: Final = 1 << 20
#: Deepest nesting of objects and lists. The documents read here nest less than 12 deep.
DEPTH: Final = 64
#: Values of a YAML document once its aliases and merge keys are expanded.
_YAML_VALUES: Final = 200_000
#: Characters of a number or date; sexagesimal integers of YAML take quadratic time.
_SCALAR_CHARACTERS: Final = 64
_FLATTER: Final = "write it flatter"


class DocumentError(InputError):
    """A document that is too large, too deep, or not JSON or YAML."""


def parse_json(
    data: bytes, place: str, *, action: str = "write it again", limit: int = JSON_BYTES
) -> Any:
    """A JSON document's value.

    Args:
        data: the document.
        place: names it in messages.
        action: the next step, for messages.
        limit: largest size, bytes.

    Raises:
        DocumentError: larger than ``limit``, deeper than :data:`DEPTH`, a number that is not finite, or
            not JSON.
    """
    if len(data) > limit:
        raise DocumentError(f"{place}: over {limit / 1e6:.0f} MB, too large for JSON; {action}")
    try:
        value = json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise _too_deep(place, action) from None
    except ValueError as error:
        raise DocumentError(f"{place} is no JSON ({str(error)[:200]}); {action}") from error
    if _depth(value) > DEPTH:
        raise _too_deep(place, action)
    return value


def _too_deep(place: str, action: str) -> DocumentError:
    return DocumentError(f"{place}: nested more than {DEPTH} deep; {action}")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion; stops where :data:`DEPTH` is exceeded."""
    level, depth = [value], 0
    while depth <= DEPTH:
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
            if isinstance(below, dict | list)
        ]
        depth += 1
        if not level:
            break
    return depth


def read_yaml(path: Path) -> Any:
    """A YAML file's value.

    Raises:
        DocumentError: as :func:`parse_yaml`.
        UnsafeFileError: it is not a regular file.
        OSError: it can't be read.
    """
    with open_regular(path) as file:
        return parse_yaml(file.read(YAML_BYTES + 1), str(path))


def parse_yaml(data: bytes, place: str, *, limit: int = YAML_BYTES) -> Any:
    """A YAML document's value; JSON is YAML.

    Args:
        data: the document, UTF-8.
        place: names it in messages.
        limit: largest size, bytes.

    Raises:
        DocumentError: larger than ``limit``, deeper than :data:`DEPTH`, aliases that expand to more than
            200,000 values or contain themselves, or not YAML.
    """
    node = compose_yaml(data, place, limit=limit)
    if node is None:
        return None
    try:
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _not_yaml(place, error) from error


def compose_yaml(data: bytes, place: str, *, limit: int = YAML_BYTES) -> yaml.Node | None:
    """A YAML document's nodes, which know their lines; None of an empty document.

    Raises:
        DocumentError: see :func:`parse_yaml`.
    """
    if len(data) > limit:
        raise DocumentError(f"{place}: over {limit / 1e6:.0f} MB, too large for YAML; shorten it")
    try:
        loader = yaml.CSafeLoader(data.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
            if node is not None:
                _check_expansion(node, place)
            return node
        finally:
            loader.dispose()
    except RecursionError:
        raise _too_deep(place, _FLATTER) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _not_yaml(place, error) from error


def _not_yaml(place: str, error: Exception) -> DocumentError:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        place = f"{place} line {error.problem_mark.line + 1}"
        return DocumentError(f"{place}: not YAML: {error.problem}; correct it")
    return DocumentError(f"{place}: not YAML: {' '.join(str(error).split())[:300]}; correct it")


def _check_expansion(root: yaml.Node, place: str) -> None:
    """Refuse a graph of nodes whose expansion is too deep or too large; each node is visited once."""
    sizes: dict[int, tuple[int, int]] = {}  # node → (values, levels) of its expansion
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        key = id(node)
        if key in sizes:
            return sizes[key]
        if key in open_nodes:
            raise DocumentError(f"{place}: an alias contains itself; write the values out")
        if len(open_nodes) > DEPTH:
            raise _too_deep(place, _FLATTER)
        open_nodes.add(key)
        below = [measure(child) for child in _children(node)]
        open_nodes.discard(key)
        values = 1 + sum(size for size, _ in below)
        levels = 1 + max((depth for _, depth in below), default=0)
        if values > _YAML_VALUES:
            raise DocumentError(
                f"{place}: its aliases expand to more than {_YAML_VALUES:,} values; write them out"
            )
        if levels > DEPTH + 1:
            raise _too_deep(place, _FLATTER)
        sizes[key] = values, levels
        return sizes[key]

    measure(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    plain = node.tag.rpartition(":")[2]
    if plain in ("int", "float", "timestamp") and len(node.value) > _SCALAR_CHARACTERS:
        raise ValueError(f"line {node.start_mark.line + 1}: a {plain} of {len(node.value)} digits")
    return []
