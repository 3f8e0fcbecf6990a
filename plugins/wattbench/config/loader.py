"""Reader of hosts.yaml and experiments/*.yaml; each mistake is one line with file, line, key and remedy."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from wattbench.config.experiment import Experiment, ExperimentFile
from wattbench.config.hosts import HostsConfig
from wattbench.config.mistakes import describe
from wattbench.config.types import NAME_LENGTH, NAME_PATTERN
from wattbench.config.yaml_document import place_of, read_yaml
from wattbench.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
SUFFIXES = (".yaml", ".yml")
#: DAGs that are not experiments.
RESERVED_NAMES = ("wattbench-retention",)
#: Airflow's default of core.max_map_length.
MAX_MAP_LENGTH = 1024


def config_dir() -> Path:
    """The folder with ``hosts.yaml`` and ``experiments/``.

    WATTBENCH_CONFIG, else ``config/`` of the checkout, else (an installed package) of the current
    directory.
    """
    given = os.environ.get("WATTBENCH_CONFIG")
    if given:
        return Path(given)
    plugins = Path(__file__).resolve().parents[2]
    return (plugins.parent if plugins.name == "plugins" else Path.cwd()) / "config"


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
    _check_name(path)
    experiment = read_experiment(path)
    _check_length(path, experiment)
    for name in experiment.hosts:
        if name not in hosts.hosts:
            raise ConfigError(
                f"{place_of(path)}: hosts: {name!r} is not in hosts.yaml "
                f"({', '.join(hosts.hosts)}); name one of them or add it there"
            )
        if experiment.device == "cuda" and not hosts.hosts[name].gpus:
            raise ConfigError(
                f"{place_of(path)}: device: cuda, but hosts.yaml gives {name!r} no gpus; "
                "list the GPU's UUID (nvidia-smi -L) under hosts." + name + ".gpus"
            )
    _check_load_host(path, experiment, hosts)
    return experiment


def _check_load_host(path: Path, experiment: Experiment, hosts: HostsConfig) -> None:
    """Refuse a load from a host that there is not, or that is the measured one by another name."""
    load_host = experiment.load_host
    if load_host is None:
        return
    key = f"{place_of(path)}: workload.load.from.host: {load_host!r}"
    if load_host not in hosts.hosts:
        raise ConfigError(
            f"{key} is not in hosts.yaml ({', '.join(hosts.hosts)}); name one of them or add it there"
        )
    connection = hosts.hosts[load_host].ssh_conn_id
    for name in experiment.hosts:
        if hosts.hosts[name].ssh_conn_id == connection:
            raise ConfigError(
                f"{key} has the connection {connection!r} of the measured host {name!r}; name another "
                "machine, or remove it to run the load beside the server"
            )


def read_experiment(path: Path) -> Experiment:
    """Read one experiment, with an image a variant; which hosts there are doesn't matter.

    Raises:
        ConfigError: not YAML, or not as the models say.
    """
    try:
        return _validated(ExperimentFile, path).expanded()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place_of(path)}: {first}") from None
    except ValueError as error:
        raise ConfigError(f"{place_of(path)}: {error}") from None


def experiment_paths(folder: Path) -> list[Path]:
    """Files that are meant as experiments, by name; also those whose name :func:`load_experiment` refuses.

    Folders, hidden files and files of other kinds beside the experiments are passed over.
    """
    try:
        there = sorted((folder / "experiments").iterdir())
    except OSError:
        return []
    return [
        path
        for path in there
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    ]


def _check_name(path: Path) -> None:
    if path.suffix != ".yaml":
        raise ConfigError(f"{place_of(path)}: experiments end with .yaml; rename it")
    if not re.fullmatch(NAME_PATTERN, path.stem) or len(path.stem) > NAME_LENGTH:
        raise ConfigError(
            f"{place_of(path)}: the file's name becomes the experiment's: small letters, digits and '-', "
            "40 at most; rename it"
        )
    if path.stem in RESERVED_NAMES:
        raise ConfigError(f"{place_of(path)}: {path.stem} is a DAG of wattbench itself; rename it")


def _check_length(path: Path, experiment: Experiment) -> None:
    """Refuse a plan that Airflow can't map."""
    trials = experiment.protocol.trials_of(len(experiment.images))
    limit = int(os.environ.get("AIRFLOW__CORE__MAX_MAP_LENGTH") or MAX_MAP_LENGTH)
    if trials > limit:
        raise ConfigError(
            f"{place_of(path)}: the plan holds {trials} trials per host, Airflow maps at most {limit}; "
            "raise core.max_map_length (AIRFLOW__CORE__MAX_MAP_LENGTH) or lower protocol.blocks"
        )


def _validated(model: type[M], path: Path) -> M:
    document = read_yaml(path)
    try:
        return model.model_validate(document.data, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(describe(error, model, document)) from None
