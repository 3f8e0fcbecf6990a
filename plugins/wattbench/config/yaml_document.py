"""YAML reader for config files: unique keys, bounded size, line numbers for messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wattbench.analysis.storage.documents import YAML_BYTES, DocumentError, compose_yaml
from wattbench.analysis.storage.safe_files import UnsafeFileError, open_regular
from wattbench.errors import ConfigError

KeyPath = tuple[str | int, ...]
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class YamlDocument:
    """A mapping and where its keys stand.

    Attributes:
        place: the file, for messages.
        data: the content.
        lines: path of a key or list entry → its line, from 1.
    """

    place: str
    data: dict[Any, Any]
    lines: Mapping[KeyPath, int]

    def at(self, path: KeyPath) -> str:
        """``experiments/x.yaml line 12``: where the longest known part of a path stands."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(path[:length]):
                return f"{self.place} line {line}"
        return self.place


def read_yaml(path: Path) -> YamlDocument:
    """Read a file whose top level is a mapping.

    Raises:
        ConfigError: not a regular file, too large, too deep, not YAML, a key that stands twice or is not
            text, or not a mapping.
    """
    place = place_of(path)
    try:
        with open_regular(path) as file:
            node = compose_yaml(file.read(YAML_BYTES + 1), place)
    except OSError as error:
        raise ConfigError(f"{place}: can't be read: {error.strerror}; check the file") from None
    except (DocumentError, UnsafeFileError) as error:
        raise ConfigError(str(error)) from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{place}: is empty or not a mapping; see config/ for examples")
    lines: dict[KeyPath, int] = {}
    return YamlDocument(place, _Constructor(place, lines).mapping(node, ()), lines)


class _Constructor:
    """Nodes to plain values, noting the line of each."""

    def __init__(self, place: str, lines: dict[KeyPath, int]) -> None:
        self._place, self._lines = place, lines
        self._loader = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
            raise self._mistake(node, f"the tag {node.tag[:60]!r} is not a valid value")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, (*path, i)) for i, one in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            raise self._mistake(node, f"{node.value[:60]!r} is not a valid value") from None

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        first: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for source in self._sources(value_node):
                    merged = {**self.mapping(source, path), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._mistake(key_node, "a key is a list or mapping; write a plain word")
            key, line = self.value(key_node, ()), key_node.start_mark.line + 1
            if key in first:
                raise self._mistake(
                    key_node, f"{key!r} stands twice (also in line {first[key]}); remove one"
                )
            first[key] = self._lines[*path, key] = line
            own[key] = self.value(value_node, (*path, key))
        return merged | own

    def _sources(self, node: yaml.Node) -> Iterator[yaml.MappingNode]:
        """The mappings that a merge key names, the strongest first."""
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(one, yaml.MappingNode):
                raise self._mistake(one, "<< takes a mapping or a list of mappings")
            yield one

    def _mistake(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self._place} line {node.start_mark.line + 1}: {message}")


def place_of(path: Path) -> str:
    """A file as messages name it: ``experiments/nightly.yaml``."""
    return str(Path(path.parent.name) / path.name)
