"""``python -m wattbench.config_reference``: every setting, as Markdown (docs/configuration.md).

Types, limits and defaults are those of the models; what a key means is said by the ``Attributes``
of its model's docstring.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from wattbench.config import container_settings, experiment, factors, hosts, trigger, types
from wattbench.config.experiment import ExperimentFile
from wattbench.config.hosts import HostsConfig
from wattbench.config.trigger import Selection
from wattbench.workloads import kinds

Schema = dict[str, Any]

_INTRODUCTION = """\
# Settings

Every key of the files in `config/`, as `python -m wattbench.config_reference` prints them. An unknown key, a
value out of its range or a name that doesn't exist is refused with one line that names file and path. How to
go about it: [Add a host](hosts.md), [Write an experiment](experiments.md),
[Take an image apart](ablation.md), [Run every night](nightly.md).

Names of hosts, images, factors and experiments: small letters, digits and `-`, 40 at most. Numbers end with
their unit: `_s` seconds, `_h` hours, `_ms` milliseconds, `_pct` percent, `_c` degrees Celsius, `_w` watts,
`_gb` 10⁹ bytes.
"""
_FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("hosts.yaml", HostsConfig),
    ("experiments/NAME.yaml", ExperimentFile),
    ("Trigger form", Selection),
)


def markdown() -> str:
    """The reference: one section a file, one table a group of keys."""
    parts = [_INTRODUCTION]
    for title, model in _FILES:
        whole = model.model_json_schema()
        definitions: Schema = whole.get("$defs", {})
        paths: dict[str, str] = {}
        for path, name in _groups("", whole, definitions):
            paths.setdefault(name, path)  # a group that stands at several places is described once
        parts.append(f"## {title}\n\n{_about(model)}\n\n{_table(model, paths, whole)}")
        for name, path in paths.items():
            group = _model(name)
            parts.append(
                f"### {path}\n\n{_about(group)}\n\n{_table(group, paths, definitions[name])}"
            )
    return "\n".join(parts)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and its bases say of its fields."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        _, _, text = (inspect.cleandoc(part.__doc__ or "")).partition("\nAttributes:\n")
        for name, meaning in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
            found[name] = re.sub(r"``", "`", " ".join(meaning.split()))
    return found


def _about(model: type[BaseModel]) -> str:
    """The docstring without its attributes."""
    text = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")[0]
    return text.replace("``", "`").strip()


def _model(name: str) -> type[BaseModel]:
    own = (hosts, experiment, trigger, types, factors, container_settings)
    for module in (*own, *(sys.modules[w.Settings.__module__] for w in kinds().values())):
        if model := getattr(module, name, None):
            return model  # type: ignore[no-any-return]
    raise KeyError(name)


def _table(model: type[BaseModel], paths: Mapping[str, str], schema: Schema) -> str:
    said = meanings(model)
    required = schema.get("required", [])
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, node in schema["properties"].items():
        default = "**required**" if key in required else _default(node)
        value = _value(node, paths)
        rows.append(f"| `{key}` | {value} | {default} | {said[key]} |")
    return "\n".join(rows) + "\n"


def _default(node: Schema) -> str:
    value = node.get("default")
    if value is None:
        return "`null`"
    if isinstance(value, (dict, list)) and value and any(_references(node, "")):
        return "its defaults"
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _value(node: Schema, paths: Mapping[str, str]) -> str:
    """What a key takes, in words."""
    if branches := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(_value(one, paths) for one in branches)
    if "$ref" in node:
        path = paths[_name(node)]
        return f"[{path}](#{_anchor(path)})"
    if "enum" in node or "const" in node:
        return ", ".join(f"`{one}`" for one in node.get("enum", [node.get("const")]))
    if node["type"] == "array":
        return f"list of {_value(node['items'], paths)}"
    if node["type"] == "object":
        content = _content(node)
        return f"name → {_value(content, paths) if content else 'anything'}"
    return {"string": "text", "null": "`null`", "boolean": "`true` or `false`"}.get(
        node["type"], _number(node)
    )


def _number(node: Schema) -> str:
    limits = [
        f"{sign} {node[key]:,}".replace(",", " ")
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if key in node
    ]  # fmt: skip
    kind = "whole number" if node["type"] == "integer" else "number"
    return " ".join([kind, ", ".join(limits)]).strip()


def _content(node: Schema) -> Schema | None:
    """What the values of a mapping are."""
    inner = next(iter(node.get("patternProperties", {}).values()), None)
    inner = inner or node.get("additionalProperties")
    return inner if isinstance(inner, dict) else None


def _groups(path: str, schema: Schema, definitions: Schema) -> Iterator[tuple[str, str]]:
    """The groups of keys below a group, with their models' names, outer ones first."""
    for key, node in schema["properties"].items():
        for inner, name in _references(node, f"{path}.{key}".lstrip(".")):
            yield inner, name
            yield from _groups(inner.partition(" (")[0], definitions[name], definitions)


def _references(node: Schema, path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in node:
        yield path, _name(node)
    for one in node.get("oneOf", []):  # kinds of workloads: each has a group of its own
        kind = _model(_name(one)).model_fields["kind"].default
        yield f"{path} ({kind})", _name(one)
    for one in node.get("anyOf", []):
        yield from _references(one, path)
    if node.get("type") == "array":
        yield from _references(node["items"], f"{path}[]")
    if content := _content(node):
        yield from _references(content, f"{path}.NAME")


def _anchor(path: str) -> str:
    return re.sub(r"[^\w\- ]", "", path.lower()).replace(" ", "-")


def _name(node: Schema) -> str:
    """The model that a reference names."""
    return str(node["$ref"].rpartition("/")[2])


def main() -> None:
    """Print the reference."""
    sys.stdout.write(markdown())
