"""Experiment of one `wattbench measure`: what was asked for on the command line, as an experiment's YAML."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from wattbench.config.experiment import Experiment
from wattbench.config.mistakes import describe
from wattbench.config.types import NAME_LENGTH, NAME_PATTERN
from wattbench.config.yaml_document import YamlDocument
from wattbench.errors import ConfigError

#: Folder in a container where `--file` puts a script.
FILES_IN_CONTAINER = "/bench"


@dataclass(frozen=True)
class Measurement:
    """What a person wants to know.

    Attributes:
        images: name → reference as given, the reference image first.
        command: run in every image; empty: each image's own entry point.
        host: this machine's name.
        modelled: whether the energy is modelled.
        device: `cpu` or `cuda`.
        blocks: measurements of each image.
        unit: what the energy is divided by, as `workload.unit`; None: the window's joules only.
        same_work: pattern of what all images must print alike.
        ready: pattern of the line that ends the phase `start`.
        env: variables of all containers.
        files: path in the container → file on this machine.
        rest_s: least rest before a trial, s.
        timeout_s: longest trial, s.
    """

    images: Mapping[str, str]
    command: Sequence[str]
    host: str
    modelled: bool = False
    device: str = "cpu"
    blocks: int = 10
    unit: Mapping[str, str | float] | None = None
    same_work: str | None = None
    ready: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    rest_s: float = 2.0
    timeout_s: int = 3600

    @property
    def name(self) -> str:
        """Of the experiment: the same question has the same name, so that its runs can be compared."""
        ordered = {"images": list(self.images.items())}  # the reference is the first
        asked = json.dumps(asdict(self) | ordered, sort_keys=True, default=str)
        return f"measure-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"

    def workload(self) -> dict[str, object]:
        """The experiment's workload."""
        workload: dict[str, object] = {"kind": "command", "command": list(self.command) or None}
        if self.files:
            folder = self.name
            workload["files"] = {path: f"{folder}/{file.name}" for path, file in self.files.items()}
        if self.unit is not None:
            workload["unit"] = dict(self.unit)
        if self.same_work is not None:
            workload["same_work"] = {"pattern": self.same_work}
        if self.ready is not None:
            workload["ready"] = {"pattern": self.ready}
        return workload

    def document(self, refs: Mapping[str, str]) -> dict[str, object]:
        """The experiment.

        Args:
            refs: image → its reference by digest.
        """
        env = {"env": dict(self.env)} if self.env else {}
        what = shlex.join(self.command) or "each image's own entry point"
        modelled = " Energy is modelled, not measured." if self.modelled else ""
        return {
            "description": f"{what}, in {' and '.join(self.images)}.{modelled}",
            "hosts": [self.host],
            "device": self.device,
            "workload": self.workload(),
            "images": {name: {"ref": refs[name], **env} for name in self.images},
            "reference": next(iter(self.images)),
            "protocol": {
                "blocks": self.blocks,
                "warm_up": {"seconds": 20, "until_steady": False},
                "rest": {"min_s": self.rest_s, "max_s": max(60.0, self.rest_s)},
                # Once, on the bare host: an image needs no waiting process for it.
                "idle_baseline": {"seconds": 5, "every_blocks": self.blocks, "per": "host"},
                "timeout_s": self.timeout_s,
            },
        }

    def check(self) -> None:
        """Refuse what no experiment can say, before anything is started for it.

        Raises:
            ConfigError: with the key that an option stands for.
        """
        asked = replace(self, files={}, host="this-machine")
        document = asked.document(dict.fromkeys(self.images, "image"))
        files = {path: {"name": file.name, "sha256": "0" * 64} for path, file in self.files.items()}
        try:
            Experiment.model_validate(document | {"workload": asked.workload() | {"files": files}})
        except ValidationError as error:
            read = YamlDocument("measure", document, {})
            raise ConfigError(describe(error, Experiment, read)) from None

    def text(self, refs: Mapping[str, str]) -> str:
        """The experiment as YAML."""
        given = "".join(f"#   {name}: {ref}\n" for name, ref in self.images.items())
        return (
            "# Written by wattbench measure; `wattbench explain KEY` says what a key means.\n"
            f"# Images as they were named:\n{given}"
            + yaml.safe_dump(self.document(refs), sort_keys=False, allow_unicode=True, width=110)
        )


def image_names(given: Sequence[str]) -> dict[str, str]:
    """Names of images for the report, from `REF` or `NAME=REF`.

    Raises:
        ConfigError: fewer than two images, or a name that is not one or stands twice.
    """
    if len(given) < 2:
        raise ConfigError("name at least two images to compare, the reference first")
    found: dict[str, str] = {}
    for text in given:
        name, equals, ref = text.partition("=")
        if equals:
            if not re.fullmatch(NAME_PATTERN, name) or len(name) > NAME_LENGTH or not ref:
                raise ConfigError(
                    f"{text!r}: write NAME=REF; a name has small letters, digits and '-'"
                )
            if name in found:
                raise ConfigError(f"{text!r}: the name {name!r} stands twice; choose another")
            found[name] = ref
        else:
            found[_free_name(_name_of(text), found)] = text
    return found


def _name_of(ref: str) -> str:
    """`ghcr.io/acme/app:1.4` → `app-1-4`; `python:3.12-slim` → `python-3-12-slim`."""
    last = ref.partition("@")[0].rpartition("/")[2].removesuffix(":latest")
    name = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")
    return name[: NAME_LENGTH - 3].strip("-") or "image"


def _free_name(name: str, taken: Mapping[str, str]) -> str:
    if name in ("idle", "control"):
        name = f"{name}-image"
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def parse_unit(text: str) -> dict[str, str | float]:
    r"""`--unit`: `document` (event lines), `document:500` (a fixed count), `document:processed (\d+)`.

    Raises:
        ConfigError: nothing stands after the colon.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return {"name": name}
    if not rest:
        raise ConfigError(f"--unit {text!r}: write NAME:NUMBER, or NAME:PATTERN with one group")
    if re.fullmatch(r"\d+(\.\d+)?", rest):
        return {"name": name, "count": float(rest)}
    return {"name": name, "pattern": rest}


def parse_file(text: str) -> tuple[str, Path]:
    """`--file`: `bench.py` (is /bench/bench.py in the containers) or `bench.py:/opt/bench.py`.

    Raises:
        ConfigError: there is no such file.
    """
    source, colon, target = text.partition(":")
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"--file {text!r}: {path} is not a file; correct the path")
    return (target if colon else f"{FILES_IN_CONTAINER}/{path.name}"), path


def files_of(given: Sequence[str]) -> dict[str, Path]:
    """Files by their paths in the containers, from those of `--file`.

    Raises:
        ConfigError: one is not there, or two have the same path or the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        target, path = parse_file(text)
        if target in found:
            raise ConfigError(f"--file {text!r}: {target} is {found[target]} already; remove one")
        # Beside the experiment, and so for whoever reads it, a file has its own name alone.
        for other in found.values():
            if other.name == path.name and other != path:
                raise ConfigError(f"--file {text!r}: {other} has the same name; rename one of them")
        found[target] = path
    return found


def parse_env(text: str) -> tuple[str, str]:
    """`--env`: `KEY=VALUE`.

    Raises:
        ConfigError: it is something else.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--env {text!r}: write KEY=VALUE")
    return key, value
