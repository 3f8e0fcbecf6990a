"""Reads hosts.yaml and experiments/*.yaml; each mistake is one line with file, key and remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from wattbench.config.experiment import Experiment, ExperimentFile
from wattbench.config.hosts import HostsConfig
from wattbench.config.types import (
    NAME_LENGTH,
    NAME_PATTERN,
)
from wattbench.errors import ConfigError
from wattbench.workloads import kinds

M = TypeVar("M", bound=BaseModel)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key which stands twice (plain YAML silently keeps the last)."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in keys:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} stands twice (lines {keys[key]} and {line}); remove one"
            )
        keys[key] = line
    return dict(loader.construct_mapping(node, deep=True))


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def config_dir() -> Path:
    """The folder with ``hosts.yaml`` and ``experiments/``: WATTBENCH_CONFIG, else the repository's."""
    given = os.environ.get("WATTBENCH_CONFIG")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "config"


def load_hosts(folder: Path) -> HostsConfig:
    """Read ``hosts.yaml``.

    Raises:
        ConfigError: missing, not YAML, or not as the models say.
    """
    path = folder / "hosts.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing; copy hosts.example.yaml beside it and name your hosts"
        )
    return _validated(HostsConfig, path)


def load_experiment(path: Path, hosts: HostsConfig) -> Experiment:
    """Read one experiment and hold it against the hosts.

    Raises:
        ConfigError: not YAML, not as the models say, or naming a host that can't run it.
    """
    if not re.fullmatch(NAME_PATTERN, path.stem) or len(path.stem) > NAME_LENGTH:
        raise ConfigError(
            f"{_short(path)}: the file's name becomes the experiment's: small letters, digits and '-', "
            "40 at most; rename it"
        )
    experiment = read_experiment(path)
    for name in experiment.hosts:
        if name not in hosts.hosts:
            raise ConfigError(
                f"{_short(path)}: hosts: {name!r} is not in hosts.yaml "
                f"({', '.join(hosts.hosts)}); name one of them or add it there"
            )
        if experiment.device == "cuda" and not hosts.hosts[name].gpus:
            raise ConfigError(
                f"{_short(path)}: device: cuda, but hosts.yaml gives {name!r} no gpus; "
                "list the GPU's UUID (nvidia-smi -L) under hosts." + name + ".gpus"
            )
    return experiment


def read_experiment(path: Path) -> Experiment:
    """Read one experiment, with an image a variant; which hosts there are doesn't matter.

    Raises:
        ConfigError: not YAML, or not as the models say.
    """
    try:
        return _validated(ExperimentFile, path).expanded()
    except ValidationError as error:
        raise ConfigError(f"{_short(path)}: {_one_line(error, ExperimentFile)}") from None
    except ValueError as error:
        raise ConfigError(f"{_short(path)}: {error}") from None


def experiment_paths(folder: Path) -> list[Path]:
    """The experiments' files, by name."""
    return sorted((folder / "experiments").glob("*.yaml"))


def _short(path: Path) -> str:
    return str(Path(path.parent.name) / path.name)


def _validated(model: type[M], path: Path) -> M:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{_short(path)}: not YAML: {' '.join(str(error).split())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_short(path)}: can't be read: {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{_short(path)}: is empty or no mapping; see config/ for examples")
    try:
        return model.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(f"{_short(path)}: {_one_line(error, model)}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the mistakes, and how many more there are."""
    mistakes = error.errors(include_url=False)
    # In a union each branch complains; the longest path belongs to the branch that was meant.
    first = max(mistakes, key=lambda m: len(m["loc"])) if _same_root(mistakes) else mistakes[0]
    # pydantic names a union's branches in the path; they mean nothing to a user.
    parts = [str(p) for p in first["loc"]]
    if len(parts) > 1 and parts[0] == "workload" and parts[1] in kinds():
        del parts[1]
    path = ".".join(p for p in parts if not re.search(r"[^\w/.-]|^BlocksRule$|^constrained-", p))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        parent = _model_at(model, first["loc"][:-1])
        allowed = f"; allowed: {', '.join(parent.model_fields)}" if parent else ""
        message = f"unknown key{allowed}"
    elif first["type"] == "missing":
        message = "is missing; add it"
    elif (
        not isinstance(first["input"], (dict, list, BaseModel))
        and repr(first["input"]) not in message
    ):
        message = f"{first['input']!r}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{path}: {message}{more}" if path else f"{message}{more}"


def _same_root(mistakes: Iterable[Mapping[str, Any]]) -> bool:
    return len({m["loc"][:2] for m in mistakes}) == 1


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model whose keys a path's end belongs to, as far as it can be told."""
    current: type[BaseModel] | None = model
    if len(loc) > 1 and loc[0] == "workload" and (kind := kinds().get(str(loc[1]))):
        current, loc = kind.Settings, loc[2:]
    for part in loc:
        if current is None:
            return None
        field = current.model_fields.get(str(part))
        if field is None:
            continue
        current = next(iter(_models_in(field.annotation)), None)
    return current


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
