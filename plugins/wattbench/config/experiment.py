"""Models of an experiment's YAML: workload, images, protocol, analysis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from wattbench.analysis.stats.costs import CarbonTable
from wattbench.analysis.storage.safe_files import UnsafeFileError, open_regular
from wattbench.config.container_settings import ContainerSettings
from wattbench.config.factors import Design, Factors, Layer, expand
from wattbench.config.types import (
    Clock,
    Image,
    Model,
    Name,
    PositiveInt,
    Schedule,
    Seconds,
    TimeZone,
)
from wattbench.workloads import any_settings, workload_of
from wattbench.workloads.protocol import HoldsModel, Place
from wattbench.workloads.settings import Serving, Settings, cpus_of

RESERVED_IMAGES = ("idle", "control")

if TYPE_CHECKING:
    AnyWorkload = Settings
else:
    AnyWorkload = any_settings()


# ── experiments/*.yaml ──────────────────────────────────────────────────────────────────────────


class BlocksRule(Model):
    """Early stopping: a host stops once the interval of every pair of images is narrow enough.

    Attributes:
        min: Blocks before stopping is considered.
        max: Blocks in the plan.
        precision_pct: Half-width of every pair's simultaneous interval at which the host stops, % of energy.
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
    """Load before the first trial, so that the host is at its working temperature for all trials.

    All cores are loaded; then, with ``device: cuda``, all GPUs of the host, by the built-in program. Each
    of the two takes its own time.

    Attributes:
        seconds: Minimum duration, seconds.
        until_steady: Continue until temperature and power are steady, on hosts that report them.
        max_s: Maximum duration, seconds.
    """

    seconds: Seconds = 60
    until_steady: bool = True
    max_s: Seconds = 600

    @property
    def limit_s(self) -> float:
        """Longest possible duration, seconds."""
        return max(self.seconds, self.max_s) if self.until_steady else self.seconds


class Tolerance(Model):
    """Distance from the recorded idle level within which a host counts as quiet.

    Attributes:
        cpu_pct: CPU use above the idle level, percentage points.
        temperature_c: Temperature above the idle level, degrees Celsius.
        power_w: Power above the idle level, watts.
    """

    cpu_pct: Annotated[float, Field(gt=0)] = 5.0
    temperature_c: Annotated[float, Field(gt=0)] = 3.0
    power_w: Annotated[float, Field(gt=0)] = 5.0


class Rest(Model):
    """Cool-down before each trial.

    Attributes:
        min_s: Minimum cool-down, seconds.
        max_s: Maximum cool-down, seconds; then the trial starts, and the readings that were not quiet are
            recorded.
        until_quiet: Between the two, wait until the host is back at its idle level.
        tolerance: Distance from the idle level that counts as quiet.
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


IdleState = Literal["container", "loaded"]


class IdleBaseline(Model):
    """Idle trials: energy of the host while nothing runs, in each image's container or without one.

    Attributes:
        seconds: Duration of an idle trial, seconds.
        every_blocks: Blocks per idle trial: 1 is every block, 5 every fifth.
        per: ``image``: in each image's container; ``host``: on the bare host, without a container.
        state: ``container``: nothing is loaded; ``loaded``: the built-in program has loaded its framework and
            model on the device, has inferred once, and waits. A list of both: trials of each; energy above
            idle is above the first one.
    """

    seconds: Annotated[float, Field(ge=1, le=86400)] = 180
    every_blocks: PositiveInt = 1
    per: Literal["image", "host"] = "image"
    state: IdleState | Annotated[list[IdleState], Field(min_length=2, max_length=2)] = "container"

    @property
    def states(self) -> tuple[IdleState, ...]:
        """All states, the one that energy above idle refers to first."""
        return tuple(self.state) if isinstance(self.state, list) else (self.state,)

    @model_validator(mode="after")
    def _loaded_in_an_image(self) -> IdleBaseline:
        if len(set(self.states)) < len(self.states):
            raise ValueError(
                f"state names {self.states[0]} twice; name it alone, or list container and loaded"
            )
        if "loaded" in self.states and self.per == "host":
            raise ValueError(
                "state: loaded needs an image's framework, per: host has no image; set per: image or "
                "state: container"
            )
        return self


class Control(Model):
    """Control workload: fixed work without an image, which tracks the host itself from run to run.

    Attributes:
        rounds: Amount of work: MiB hashed with SHA-256 on one core; 20,000 take 15 to 60 s.
        every_blocks: Blocks per control trial: 1 is every block, 5 every fifth.
    """

    rounds: Annotated[int, Field(ge=1)] = 20_000
    every_blocks: PositiveInt = 1


class Protocol(Model):
    """How trials are repeated and separated.

    Attributes:
        blocks: Measurements of each image on each host, or a rule for early stopping.
        order: ``random``: each block in a random order of its own; ``williams``: Williams squares, in which
            each image follows each other one equally often; idle and control trials begin the block.
        attempts: Maximum attempts per trial, for failures that may pass.
        warm_up: Load before the first trial.
        rest: Cool-down before each trial.
        idle_baseline: Idle trials, for energy above idle; null: none.
        control: Trials of the control workload, for the stability of the host; null: none.
        timeout_s: Maximum duration of a trial, seconds; a longer one is stopped and has failed.
        stop_without_comparison: Stop a host, and fail the run, where no two images can be compared: their
            pulls failed, or their trials of the first block are invalid for a reason that trying again
            repeats; false: measure what is left.
    """

    blocks: PositiveInt | BlocksRule = 30
    order: Literal["random", "williams"] = "random"
    attempts: Annotated[int, Field(ge=1, le=5)] = 2
    warm_up: WarmUp = WarmUp()
    rest: Rest = Rest()
    idle_baseline: IdleBaseline | None = IdleBaseline()
    control: Control | None = None
    timeout_s: Annotated[int, Field(ge=10, le=86400)] = 3600
    stop_without_comparison: bool = True

    @property
    def max_blocks(self) -> int:
        """The blocks that the plan holds."""
        return self.blocks if isinstance(self.blocks, int) else self.blocks.max

    def trials_of(self, images: int) -> int:
        """The trials per host in the plan of this number of images, idle and control trials included."""
        trials = self.max_blocks * images
        if self.idle_baseline is not None:
            idle_blocks = math.ceil(self.max_blocks / self.idle_baseline.every_blocks)
            places = images if self.idle_baseline.per == "image" else 1
            trials += idle_blocks * places * len(self.idle_baseline.states)
        if self.control is not None:
            trials += math.ceil(self.max_blocks / self.control.every_blocks)
        return trials


class CarbonFile(Model):
    """Carbon intensity over time, as read from a CSV file beside the experiment.

    Attributes:
        file: Name of the file.
        since_unix_s: Start of each row, Unix seconds.
        g_per_kwh: Intensity from then on, g CO2e per kWh.
    """

    file: str
    since_unix_s: list[float]
    g_per_kwh: list[float]


class Embodied(Model):
    """Emissions of making the hardware, for SCI (ISO/IEC 21031).

    Attributes:
        kg_co2e: Emissions of making all of it, kg CO2e.
        lifetime_years: Years over which they are spread.
        share: Share of the hardware that the work reserves.
    """

    kg_co2e: Annotated[float, Field(gt=0)]
    lifetime_years: Annotated[float, Field(gt=0, le=50)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


def _carbon(value: object, info: ValidationInfo) -> object:
    """A table's file by its content; of a stored run it has that already."""
    folder = (info.context or {}).get("folder")
    if not isinstance(value, str):
        return value
    if folder is None:
        raise ValueError("is the name of a file, and there is no folder to look in")
    root = Path(folder).resolve()
    path = (root / value).resolve()
    if not path.is_relative_to(root):
        raise ValueError("leaves the experiment's folder; copy the file into it")
    try:
        with open_regular(path) as file:
            text = file.read(CARBON_BYTES + 1).decode("utf-8")
    except (OSError, UnsafeFileError, UnicodeDecodeError):
        raise ValueError(f"is not a CSV file in {root.name}/; put it beside the YAML") from None
    if len(text) > CARBON_BYTES:
        raise ValueError(f"has more than {CARBON_BYTES >> 20} MiB; keep the time of the runs")
    table = CarbonTable.of_csv(text, value)
    return {
        "file": value,
        "since_unix_s": list(table.since_unix_s),
        "g_per_kwh": list(table.g_per_kwh),
    }


#: The largest table of carbon intensities that is read, bytes.
CARBON_BYTES = 4 << 20
Carbon = Annotated[
    Annotated[float, Field(ge=0)] | CarbonFile,
    BeforeValidator(_carbon, json_schema_input_type=float | str),
]
Endpoint = Literal["window", "steady"]


class Analysis(Model):
    """Settings of the statistics, and the figures that turn joules into money and carbon.

    Attributes:
        alpha: Probability of at least one false *less* or *more* in the run.
        correction: Correction for multiple pairs.
        equivalence_pct: Equivalence margin, ± % of energy: smaller differences count as none.
        price_per_kwh: Price of a kWh; null: no cost is reported.
        currency: Currency of the price, such as ``EUR``.
        carbon_g_per_kwh: Carbon intensity of the electricity, g CO2e per kWh: a number, or the name of a
            CSV file beside the experiment with the columns ``time`` and ``g_per_kwh``; null: no carbon is
            reported.
        pue: Power usage effectiveness of the building; null: joules are those at the meter.
        units_per_year: Load, in units of work per year; null: no yearly figures.
        embodied: Emissions of making the hardware; null: no SCI is reported.
        endpoint: What is compared: ``window``: joules of the whole window, ``steady``: of its steady phases;
            null: ``steady`` for servers, else ``window``.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["holm", "bonferroni"] = "holm"
    equivalence_pct: Annotated[float, Field(gt=0, le=50)] = 1.0
    price_per_kwh: Annotated[float, Field(gt=0)] | None = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,8}$")] | None = None
    carbon_g_per_kwh: Carbon | None = None
    pue: Annotated[float, Field(ge=1, le=10)] | None = None
    units_per_year: Annotated[float, Field(gt=0, le=1e18)] | None = None
    embodied: Embodied | None = None
    endpoint: Endpoint | None = None


class _Study(Model):
    """Keys that all forms of an experiment share.

    Attributes:
        description: Purpose of the experiment; shown in Airflow and in the report.
        schedule: Cron line of five fields, or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``,
            ``@quarterly``, ``@yearly``; null: runs start by the trigger only.
        finish_by: Time of day by which measuring ends: blocks that do not fit are left out; null: no limit.
        time_zone: Time zone of schedule and finish_by.
        alert_after_h: Hours after queueing at which an unfinished run is reported as hanging.
        seed: Seed of the random order of trials; null: derived from the run's id, so that each run has its
            own. It is recorded either way.
        hosts: Names from hosts.yaml.
        device: Device that the work must run on; a trial on any other is invalid.
        workload: The work that every image does; its keys depend on its kind.
        container: Settings of all containers; an image may have its own.
        images: The treatments, by name; ``idle`` and ``control`` are reserved.
        reference: The image that the others are compared with.
        protocol: How trials are repeated and separated.
        analysis: Settings of the statistics.
    """

    description: str = ""
    schedule: Schedule | None = None
    finish_by: Clock | None = None
    time_zone: TimeZone = "UTC"
    alert_after_h: Annotated[float, Field(gt=0, le=24 * 14)] = 24.0
    seed: int | str | None = None
    hosts: Annotated[list[Name], Field(min_length=1)]
    device: Literal["cpu", "cuda"] = "cpu"
    workload: AnyWorkload
    container: ContainerSettings = ContainerSettings()
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

    @model_validator(mode="after")
    def _workloads_fit(self) -> _Study:
        for name, image in self.images.items():
            try:
                settings = self.workload_of(name)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                key = ".".join(str(part) for part in first["loc"])
                short = key == "framework" and image.framework is not None
                path = f"images.{name}." + (key if short else f"workload.{key}")
                if first["type"] == "extra_forbidden":
                    allowed = ", ".join(type(self.workload).model_fields)
                    raise ValueError(f"{path}: unknown key; allowed: {allowed}") from None
                message = first["msg"].removeprefix("Value error, ")
                raise ValueError(f"{path}: {first['input']!r}: {message}") from None
            if serving := settings.serving():
                self._check_server(name, serving)
            argv = workload_of(settings).argv(settings, self.place_of(name))
            if image.runtime == "process" and not argv:
                raise ValueError(
                    f"images.{name}: runtime: process has no entry point; name a command"
                )
        return self

    @model_validator(mode="after")
    def _load_host_fits(self) -> _Study:
        found = {name: self._load_host_of(name) for name in self.images}
        wanted = found[self.reference]
        key = "workload.load.from.host"
        if other := next((name for name, host in found.items() if host != wanted), None):
            raise ValueError(
                f"images.{other}: {key}: the load comes from one place for all images; remove it there"
            )
        if wanted is None:
            return self
        if wanted in self.hosts:
            raise ValueError(
                f"{key}: {wanted!r} is measured in this experiment; name another host, or remove it to run "
                "the load beside the server"
            )
        if len(self.hosts) > 1:
            raise ValueError(
                f"{key}: one load host loads one measured host, and hosts has {len(self.hosts)}; write an "
                "experiment for each of them"
            )
        return self

    def _load_host_of(self, image: str) -> str | None:
        serving = self.workload_of(image).serving()
        return None if serving is None else serving.load_host

    @property
    def load_host(self) -> str | None:
        """The host that the load on servers comes from; None: the measured one, or there is no load."""
        return self._load_host_of(self.reference)

    @model_validator(mode="after")
    def _idle_state_fits(self) -> _Study:
        idle = self.protocol.idle_baseline
        if idle is None or "loaded" not in idle.states:
            return self
        for name in self.images:
            kind = self.workload_of(name).kind
            if not isinstance(workload_of(self.workload_of(name)), HoldsModel):
                raise ValueError(
                    f"protocol.idle_baseline.state: loaded: a workload of kind {kind} has no way to load "
                    "its model and wait; set state: container, or use the built-in program"
                )
        return self

    def _check_server(self, name: str, serving: Serving) -> None:
        """Refuse what a server's trial can't be."""
        if self.images[name].runtime == "process":
            raise ValueError(
                f"images.{name}: runtime: process: a server is measured in a container, on a network of "
                "its own; name its image with ref"
            )
        settings = self.container_of(name)
        if settings.network is not None:
            raise ValueError(
                f"images.{name}: container.network: a server and its load have a network of their own "
                "without a way out; remove it"
            )
        here = serving.cpus if serving.load_host is None else ()
        shared = set(cpus_of(settings.cpuset or "")) & set(here)
        if shared:
            raise ValueError(
                f"images.{name}: container.cpuset and workload.load.from.cpuset share CPU {min(shared)}; the "
                "generator would take time from the server: separate them"
            )
        if serving.least_s > self.protocol.timeout_s:
            raise ValueError(
                f"images.{name}: the steps of workload.load take {serving.least_s:g} s at least, more than "
                f"protocol.timeout_s = {self.protocol.timeout_s}; raise it"
            )

    @property
    def endpoint(self) -> Endpoint:
        """What is compared."""
        return self.analysis.endpoint or self.workload.endpoint

    def workload_of(self, image: str) -> Settings:
        """What an image computes; of no image (idle, control) the experiment's own workload."""
        known = self.images.get(image)
        if known is None or not known.changes:
            return self.workload
        return self.workload.changed(known.changes)

    def place_of(self, image: str) -> Place:
        """Where and how an image's workload starts."""
        found = self.images[image]
        command = None if found.command is None else tuple(found.command)
        return Place(found.runtime, self.device, command, found.python)

    def container_of(self, image: str) -> ContainerSettings:
        """The settings of an image's container."""
        return self.container.changed(self.images[image].container)


class ExperimentFile(_Study):
    """The content of one ``experiments/NAME.yaml``.

    Attributes:
        factors: Factor → level → its changes to the reference image.
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
        plain["analysis"]["endpoint"] = self.endpoint  # runs record what it came to
        return Experiment.model_validate(plain | vars(found))


class Experiment(_Study):
    """An experiment as it is executed: one image per variant, with the differences between them.

    Attributes:
        variants: Image → factor → level; factors that are not named are as in the reference.
        ladders: Image → its rungs, the base first, the image itself last.
    """

    variants: dict[Name, dict[Name, Name]] = Field(default={})
    ladders: dict[Name, list[Layer]] = Field(default={})


def _dockerfile(folder: str) -> str:
    """The text of an image's Dockerfile."""
    path = Path(__file__).parents[1] / "images" / folder / "Dockerfile"
    if not path.is_file():
        raise ValueError("is not there; layers: true takes images that are built from images/")
    return path.read_text(encoding="utf-8")
