"""``python -m wattbench.config_reference``: reference of all settings (docs/configuration.md), JSON schemas.

Types, limits and defaults are those of the models; what a key means is said by the ``Attributes``
of its model's docstring.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from wattbench.config import container_settings, experiment, factors, hosts, trigger, types
from wattbench.config.experiment import ExperimentFile
from wattbench.config.hosts import HostsConfig
from wattbench.config.mistakes import nearest
from wattbench.config.trigger import Selection
from wattbench.errors import ConfigError
from wattbench.remote_meters import http, prometheus
from wattbench.workloads import kinds

Schema = dict[str, Any]

_INTRODUCTION = """\
# Settings

All keys of the files in `config/`, as `python -m wattbench.config_reference` prints them. An unknown key, a
value out of its range and an unknown name are refused with one line: file, line, key, and what is expected.
`wattbench check` checks all files, `wattbench explain KEY` prints one entry of this page, and
`config/schema/*.json` lets editors complete and check while you type. Guides: [Add a host](hosts.md),
[Write an experiment](experiments.md), [Take an image apart](ablation.md), [Run every night](nightly.md).

Names of hosts, images, factors and experiments consist of small letters, digits and `-`, 40 characters at
most. Keys of numbers end with the unit: `_s` seconds, `_h` hours, `_ms` milliseconds, `_pct` percent, `_c`
degrees Celsius, `_w` watts, `_gb` 10⁹ bytes.
"""
_FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("hosts.yaml", HostsConfig),
    ("experiments/NAME.yaml", ExperimentFile),
    ("Trigger form", Selection),
)
#: Name of a JSON schema → its model.
SCHEMAS: dict[str, type[BaseModel]] = {"hosts": HostsConfig, "experiment": ExperimentFile}


def markdown() -> str:
    """The reference: one section a file, one table a group of keys."""
    parts = [_INTRODUCTION]
    for title, model in _FILES:
        whole = model.model_json_schema()
        definitions: Schema = whole.get("$defs", {})
        paths: dict[str, str] = {}
        for path, name in _groups("", whole, definitions):
            if name not in paths and path in paths.values():  # the same key of another kind
                path += f" ({_model(name).__module__.rpartition('.')[2]})"
            paths.setdefault(name, path)  # a group that stands at several places is described once
        parts.append(f"## {title}\n\n{_about(model)}\n\n{_table(model, paths, whole)}")
        for name, path in paths.items():
            group = _model(name)
            parts.append(
                f"### {path}\n\n{_about(group)}\n\n{_table(group, paths, definitions[name])}"
            )
    return "\n".join(parts)


def explain(key: str) -> str:
    """What a key means, with its values and default; of a group, its keys too.

    Args:
        key: a path such as ``protocol.rest.min_s``; names of hosts and images may stand in it. Empty: the
            top keys of both files.

    Raises:
        ConfigError: unknown; names the nearest known key.
    """
    if not key:
        parts = [f"{title}: {', '.join(model.model_fields)}" for title, model in _FILES[:2]]
        return "\n".join([*parts, "`wattbench explain KEY` explains one of them."])
    known: dict[str, str] = {}
    for title, model in _FILES[:2]:
        whole = model.model_json_schema()
        groups = [("", model, whole)]
        groups += [
            (path, _model(name), whole["$defs"][name])
            for path, name in _groups("", whole, whole.get("$defs", {}))
        ]
        paths = {name: path for path, name in _groups("", whole, whole.get("$defs", {}))}
        for place, group, schema in groups:
            path = place.partition(" (")[0]
            for row, node in schema["properties"].items():
                at = f"{path}.{row}".lstrip(".")
                default = (
                    "required" if row in schema.get("required", []) else f"default {_default(node)}"
                )
                value = re.sub(r"\[([^]]*)\]\(#[^)]*\)", r"keys below", _value(node, paths))
                known.setdefault(at, f"{title}: {at}: {value}; {default}\n{meanings(group)[row]}")
    wanted = key.split(".")
    for at in known:
        parts = at.replace("[]", "").split(".")
        if len(parts) == len(wanted) and all(
            a == b or a == "NAME" for a, b in zip(parts, wanted, strict=True)
        ):
            below = [
                k for k in known if k.rpartition(".")[0].replace("[]", "") in (at, f"{at}.NAME")
            ]
            inner = "\n".join(f"  {k}: {known[k].partition(chr(10))[2]}" for k in below)
            return "\n".join(filter(None, [known[at], inner])).replace("`", "")
    meant = nearest(key, known) or nearest(wanted[-1], {k.rpartition(".")[2] for k in known})
    hint = f"; did you mean {meant}?" if meant else ""
    raise ConfigError(f"{key!r} is not a key of hosts.yaml or of an experiment{hint}")


def json_schema(model: type[BaseModel]) -> Schema:
    """A model as JSON schema (draft 2020-12) for editors, with the meaning of each key."""
    schema = model.model_json_schema()
    for name, part in [(model.__name__, schema), *schema.get("$defs", {}).items()]:
        group = model if part is schema else _model(name)
        part["description"] = _about(group)
        for key, node in part.get("properties", {}).items():
            node.pop("title", None)
            node["description"] = meanings(group)[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schemas(folder: Path) -> None:
    """Write ``hosts.json`` and ``experiment.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in SCHEMAS.items():
        text = json.dumps(json_schema(model), indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


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
    own = (hosts, experiment, trigger, types, factors, container_settings, http, prometheus)
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
    for one in node.get("oneOf", []):  # kinds of workloads and meters
        kind = _model(_name(one)).model_fields["kind"]
        several = len(get_args(kind.annotation)) > 1
        yield path if several else f"{path} ({kind.default})", _name(one)
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
    """Print the reference; with ``--schemas DIR`` write the JSON schemas."""
    if sys.argv[1:2] == ["--schemas"] and len(sys.argv) == 3:
        write_schemas(Path(sys.argv[2]))
    else:
        sys.stdout.write(markdown())
