"""Hosts and experiments: the one place that reads YAML.

Every mistake is one line: file, path inside it, the value, what is allowed and what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from wattbench.ablation import Design, Factors, Layer, expand
from wattbench.errors import ConfigError
from wattbench.fields import (
    NAME_LENGTH,
    NAME_PATTERN,
    Clock,
    Command,
    Framework,
    Image,
    Model,
    Name,
    PositiveInt,
    Seconds,
    TimeZone,
)

RESERVED_IMAGES = ("idle", "control")

M = TypeVar("M", bound=BaseModel)


# ── hosts.yaml ──────────────────────────────────────────────────────────────────────────────────


class Retention(Model):
    """How long raw logs are kept; records, tables, reports and manifests stay for good.

    Attributes:
        days: raw logs of older runs go.
        max_gb: then the oldest, until all raw logs together are within this.
    """

    days: Annotated[float, Field(gt=0)] | None = None
    max_gb: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Retention:
        if self.days is None and self.max_gb is None:
            raise ValueError("retention names neither days nor max_gb; give one, or leave it out")
        return self


class StoreConfig(Model):
    """Where raw logs and reports go; endpoint and credentials come from the Airflow connection.

    Attributes:
        conn_id: Airflow connection of type aws: endpoint, access key and secret.
        bucket: in which everything is kept.
        prefix: a folder in the bucket; empty: the bucket's root.
        retention: when raw logs expire; null: never.
    """

    conn_id: str = "wattbench_store"
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$")] = ""
    retention: Retention | None = None


class RegistryConfig(Model):
    """How to reach one image registry; the login comes from an Airflow connection.

    Attributes:
        insecure: plain HTTP, without TLS.
        conn_id: Airflow connection with the registry's login and password; none: anonymous.
    """

    insecure: bool = False
    conn_id: str | None = None


class MeterConfig(Model):
    """Where joules come from.

    ``command`` is any program with EnergiBridge's interface, for ``energibridge`` and ``modelled`` alike:
    the kind alone decides whether the joules are called a measurement.

    Attributes:
        kind: ``energibridge``: a program with EnergiBridge's interface; ``nvml``,
            ``powercap``: the agent reads them itself; ``modelled``: a program that models
            the energy, which is never called a measurement.
        command: the meter's program and its arguments, a list or one line;
            ``/usr/local/bin/energibridge`` if not given.
        interval_ms: time between two samples.
    """

    kind: Literal["energibridge", "nvml", "powercap", "modelled"] = "energibridge"
    command: Command | None = None
    interval_ms: Annotated[int, Field(ge=1, le=600_000)] = 200

    @model_validator(mode="after")
    def _needs_a_command(self) -> MeterConfig:
        if self.kind == "modelled" and self.command is None:
            raise ValueError("meter.command is missing; name the program that models the energy")
        return self

    @property
    def argv(self) -> list[str] | None:
        """The meter's command; None for meters that the agent reads itself."""
        if self.kind in ("nvml", "powercap"):
            return None
        return list(self.command or ["/usr/local/bin/energibridge"])


class HostConfig(Model):
    """One worker host.

    Attributes:
        ssh_conn_id: Airflow connection of type SSH: address, login, key, and the pinned
            host key.
        gpus: UUIDs as ``nvidia-smi -L`` tells them: trials get exactly these, the host's
            others must be idle.
        meter: where the host's joules come from.
        spool: folder on the host for raw logs, until the store has verified copies.
        python: the host's Python, 3.9 or newer.
        unsteady_pct: relative SD of the control workload from run to run beyond which the host
            is in quarantine; null: never.
    """

    ssh_conn_id: Annotated[str, Field(min_length=1)]
    gpus: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]] = Field(default=[])
    meter: MeterConfig = MeterConfig()
    spool: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = (
        "/var/spool/wattbench"
    )
    python: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$")] = "python3"
    unsteady_pct: Annotated[float, Field(gt=0, le=100)] | None = 1.0


Event = Literal[
    "verdict-changed", "regression", "host-quarantined", "run-incomplete", "run-hangs"
]  # fmt: skip


class NotifyConfig(Model):
    """Whom to tell what, through one of Airflow's notifiers.

    Attributes:
        notifier: its import path.
        arguments: of the notifier; its templates know ``wattbench.title``, ``text``, ``event``,
            ``run_id`` and ``link``.
        events: of which it is told; all if not given.
    """

    notifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    arguments: dict[str, Any] = Field(default={})
    events: list[Event] = Field(default=list(get_args(Event)), min_length=1)


class HostsConfig(Model):
    """The content of ``hosts.yaml``.

    Attributes:
        store: the object store.
        hosts: the worker hosts, by name.
        registries: only registries that need a login or have no TLS, by address.
        notify: who is told of events; the log of the run's task ``notify`` if not given.
    """

    store: StoreConfig
    hosts: Annotated[dict[Name, HostConfig], Field(min_length=1)]
    registries: dict[str, RegistryConfig] = Field(default={})
    notify: list[NotifyConfig] = Field(
        default=[NotifyConfig(notifier="wattbench.notify.LogNotifier")]
    )


# ── experiments/*.yaml ──────────────────────────────────────────────────────────────────────────


class Pass(Model):
    """One steady phase: so many inferences at one resolution (pixels a side).

    Attributes:
        resolution: pixels a side of the input.
        iterations: so many inferences.
    """

    resolution: Annotated[int, Field(ge=32, le=8192)]
    iterations: PositiveInt


class Workload(Model):
    """What every image computes.

    Attributes:
        program: the model that is run: ``resnet50`` or ``vit-tiny``.
        framework: with what it is run; an image may have its own.
        precision: of the arithmetic.
        batch: inputs an inference.
        passes: the steady phases, one a resolution, in this order.
    """

    program: Name = "resnet50"
    framework: Framework = "torch"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    batch: PositiveInt = 1
    passes: Annotated[list[Pass], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_pass_a_resolution(self) -> Workload:
        seen = [p.resolution for p in self.passes]
        if len(set(seen)) < len(seen):
            raise ValueError(f"passes name a resolution twice: {seen}; join them")
        return self


class BlocksRule(Model):
    """Stop a host early once every pair's interval is narrow enough.

    Attributes:
        min: never fewer blocks than these.
        max: the plan holds so many.
        precision_pct: stop once every pair's simultaneous interval has at most this
            half-width.
    """

    min: Annotated[int, Field(ge=10)]
    max: PositiveInt
    precision_pct: Annotated[float, Field(gt=0, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> BlocksRule:
        if self.min > self.max:
            raise ValueError(f"blocks.min {self.min} exceeds blocks.max {self.max}; lower it")
        return self


class WarmUp(Model):
    """Load before the first trial, so that all trials meet a warm host.

    Attributes:
        seconds: at least so long.
        until_steady: then until temperature and power stand still, where the host tells them.
        max_s: at most so long.
    """

    seconds: Seconds = 60
    until_steady: bool = True
    max_s: Seconds = 600

    @property
    def limit_s(self) -> float:
        """The longest that it may take."""
        return max(self.seconds, self.max_s) if self.until_steady else self.seconds


class Tolerance(Model):
    """How near to the recorded idle level a host counts as quiet.

    Attributes:
        cpu_pct: points of CPU use above it.
        temperature_c: degrees above it.
        power_w: watts above it.
    """

    cpu_pct: Annotated[float, Field(gt=0)] = 5.0
    temperature_c: Annotated[float, Field(gt=0)] = 3.0
    power_w: Annotated[float, Field(gt=0)] = 5.0


class Rest(Model):
    """The pause before each trial.

    Attributes:
        min_s: at least so long.
        max_s: at most so long: then the trial starts, and what was not quiet is recorded.
        until_quiet: between the two: until the host is back at its idle level.
        tolerance: what counts as back.
    """

    min_s: Seconds = 60
    max_s: Seconds = 600
    until_quiet: bool = True
    tolerance: Tolerance = Tolerance()

    @model_validator(mode="after")
    def _ordered(self) -> Rest:
        if self.min_s > self.max_s:
            raise ValueError(f"rest.min_s {self.min_s:g} exceeds rest.max_s {self.max_s:g}")
        return self


class IdleBaseline(Model):
    """Trials that only wait: in each image's container, or once without one (``per: host``).

    Attributes:
        seconds: how long an idle trial lasts.
        every_blocks: one in so many blocks.
        per: ``image``: in each image's container; ``host``: on the bare host.
    """

    seconds: Annotated[float, Field(ge=1, le=86400)] = 180
    every_blocks: PositiveInt = 1
    per: Literal["image", "host"] = "image"


class Control(Model):
    """A fixed piece of work that belongs to no image: it tracks the host itself.

    Attributes:
        rounds: MiB to hash with SHA-256, on one core; 20,000 take some 15 to 60 s.
        every_blocks: one in so many blocks.
    """

    rounds: Annotated[int, Field(ge=1)] = 20_000
    every_blocks: PositiveInt = 1


class Protocol(Model):
    """How trials are repeated and kept apart.

    Attributes:
        blocks: how often each image is measured on each host; or a rule that stops early.
        attempts: so often is a trial tried that failed for a reason that may pass.
        warm_up: before the first trial.
        rest: before each trial.
        idle_baseline: trials in which nothing runs, for energy above idle; null: none.
        control: trials of a fixed piece of work, for the host's own steadiness; null: none.
        timeout_s: a trial that lasts longer is stopped and has failed.
    """

    blocks: PositiveInt | BlocksRule = 30
    attempts: Annotated[int, Field(ge=1, le=5)] = 2
    warm_up: WarmUp = WarmUp()
    rest: Rest = Rest()
    idle_baseline: IdleBaseline | None = IdleBaseline()
    control: Control | None = None
    timeout_s: Annotated[int, Field(ge=10, le=86400)] = 3600

    @property
    def max_blocks(self) -> int:
        """The blocks that the plan holds."""
        return self.blocks if isinstance(self.blocks, int) else self.blocks.max


class Analysis(Model):
    """How the verdict is reached.

    Attributes:
        alpha: chance of any false *less* or *more* in the whole run.
        correction: for several pairs.
        equivalence_pct: a difference within ± this counts as none.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["holm", "bonferroni"] = "holm"
    equivalence_pct: Annotated[float, Field(gt=0, le=50)] = 1.0


class _Study(Model):
    """What every form of an experiment has.

    Attributes:
        description: what it is about; shown in Airflow and in the report.
        schedule: cron line; null: only by the trigger.
        finish_by: time of day by which measuring is over: blocks that do not fit are left out;
            null: no limit.
        time_zone: of schedule and finish_by.
        alert_after_h: a run that is not over so long after it was queued is told as hanging.
        seed: draws the order of trials; null: from the run's id, so every run has its own,
            and it is recorded.
        hosts: names from hosts.yaml.
        device: where the work must run; a trial on anything else is invalid.
        workload: what every image computes.
        images: the treatments, by name; ``idle`` and ``control`` are reserved.
        reference: the image that the others are compared with.
        protocol: how trials are repeated and kept apart.
        analysis: how the verdict is reached.
    """

    description: str = ""
    schedule: str | None = None
    finish_by: Clock | None = None
    time_zone: TimeZone = "UTC"
    alert_after_h: Annotated[float, Field(gt=0, le=24 * 14)] = 24.0
    seed: int | str | None = None
    hosts: Annotated[list[Name], Field(min_length=1)]
    device: Literal["cpu", "cuda"] = "cpu"
    workload: Workload
    images: Annotated[dict[Name, Image], Field(min_length=1)]
    reference: Name
    protocol: Protocol = Protocol()
    analysis: Analysis = Analysis()

    @model_validator(mode="after")
    def _names_agree(self) -> _Study:
        names = ", ".join(self.images)
        for reserved in RESERVED_IMAGES:
            if reserved in self.images:
                raise ValueError(f"images: {reserved!r} is a reserved name; choose another")
        if self.reference not in self.images:
            raise ValueError(
                f"reference: {self.reference!r} is not among images ({names}); name one of them or add it"
            )
        if len(set(self.hosts)) < len(self.hosts):
            raise ValueError(f"hosts: a name stands twice in {self.hosts}; remove one")
        return self


class ExperimentFile(_Study):
    """The content of one ``experiments/NAME.yaml``.

    Attributes:
        factors: factor → level → what it changes in the reference image.
        design: ``one-factor``: one factor at a time; ``factorial``: all combinations.
    """

    factors: Factors | None = None
    design: Design = "one-factor"

    @model_validator(mode="after")
    def _design_of_factors(self) -> ExperimentFile:
        if self.design == "factorial" and len(self.factors or {}) < 2:
            raise ValueError("design: factorial needs at least two factors; declare them")
        return self

    def expanded(self) -> Experiment:
        """The experiment with an image a variant.

        Raises:
            ValueError: a factor or a ladder can't be what it says.
        """
        found = expand(self.images, self.reference, self.factors or {}, self.design, _dockerfile)
        plain = self.model_dump(exclude={"factors", "design", "images"})
        return Experiment.model_validate(plain | vars(found))


class Experiment(_Study):
    """An experiment as it is run: an image a variant, and what each of them differs in.

    Attributes:
        variants: image → factor → level; what is not named is as in the reference.
        ladders: image → its rungs, the base first, itself last.
    """

    variants: dict[Name, dict[Name, Name]] = Field(default={})
    ladders: dict[Name, list[Layer]] = Field(default={})


def _dockerfile(folder: str) -> str:
    """The text of an image's Dockerfile."""
    path = Path(__file__).resolve().parents[2] / "images" / folder / "Dockerfile"
    if not path.is_file():
        raise ValueError("is not there; layers: true takes images that are built from images/")
    return path.read_text(encoding="utf-8")


class Selection(Model):
    """What the trigger form may change about one run. None: as the experiment says.

    Attributes:
        hosts: measure on these; the others are skipped.
        images: compare these; the reference must stay.
        blocks: so many, instead of the experiment's.
        seed: draws the order of trials.
        finish_by: instead of the experiment's; ``never``: no limit.
    """

    hosts: list[str] | None = None
    images: list[str] | None = None
    blocks: PositiveInt | None = None
    seed: int | str | None = None
    finish_by: Clock | Literal["never"] | None = None


def select(
    experiment: Experiment, selection: Selection
) -> tuple[Experiment, dict[str, str], dict[str, str]]:
    """The experiment as one run will execute it.

    Returns:
        The narrowed experiment, and why each left-out host and image is skipped.

    Raises:
        ConfigError: the form names something unknown, or leaves nothing to compare.
    """
    hosts = _chosen("hosts", experiment.hosts, selection.hosts)
    images = _chosen("images", list(experiment.images), selection.images)
    if experiment.reference not in images:
        raise ConfigError(
            f"trigger form: images leave out the reference {experiment.reference!r}; "
            "select it too, since every image is compared with it"
        )
    protocol = experiment.protocol
    if selection.blocks is not None:
        protocol = protocol.model_copy(update={"blocks": selection.blocks})
    narrowed = experiment.model_copy(
        update={
            "hosts": hosts,
            "images": {k: v for k, v in experiment.images.items() if k in images},
            "protocol": protocol,
            "seed": experiment.seed if selection.seed is None else selection.seed,
            "finish_by": _finish_by(experiment.finish_by, selection.finish_by),
        }
    )
    reason = "left out in the trigger form"
    return (
        narrowed,
        {h: reason for h in experiment.hosts if h not in hosts},
        {i: reason for i in experiment.images if i not in images},
    )


def _finish_by(own: str | None, wanted: str | None) -> str | None:
    return own if wanted is None else None if wanted == "never" else wanted


def _chosen(what: str, known: list[str], wanted: list[str] | None) -> list[str]:
    if wanted is None:
        return list(known)
    if unknown := [w for w in wanted if w not in known]:
        raise ConfigError(
            f"trigger form: {what}: {unknown[0]!r} is not in the experiment ({', '.join(known)})"
        )
    if not wanted:
        raise ConfigError(
            f"trigger form: {what} is empty; select at least one of {', '.join(known)}"
        )
    return [k for k in known if k in wanted]


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
    return Path(given) if given else Path(__file__).resolve().parents[2] / "config"


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
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{_short(path)}: {_one_line(error, model)}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the mistakes, and how many more there are."""
    mistakes = error.errors(include_url=False)
    # In a union each branch complains; the longest path belongs to the branch that was meant.
    first = max(mistakes, key=lambda m: len(m["loc"])) if _same_root(mistakes) else mistakes[0]
    # pydantic names a union's branches in the path; they mean nothing to a user.
    parts = [str(p) for p in first["loc"]]
    path = ".".join(p for p in parts if not re.search(r"[^\w-]|^BlocksRule$|^constrained-", p))
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
