"""Models of an experiment's YAML: workload, images, protocol, analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from wattbench.config.container_settings import ContainerSettings
from wattbench.config.factors import Design, Factors, Layer, expand
from wattbench.config.types import (
    Clock,
    Image,
    Model,
    Name,
    PositiveInt,
    Seconds,
    TimeZone,
)
from wattbench.workloads import any_settings, workload_of
from wattbench.workloads.protocol import Place
from wattbench.workloads.settings import Settings

RESERVED_IMAGES = ("idle", "control")

if TYPE_CHECKING:
    AnyWorkload = Settings
else:
    AnyWorkload = any_settings()


# ── experiments/*.yaml ──────────────────────────────────────────────────────────────────────────


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
        workload: what every image computes; its keys depend on its kind.
        container: settings of all containers; an image may have its own.
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
            argv = workload_of(settings).argv(settings, self.place_of(name))
            if image.runtime == "process" and not argv:
                raise ValueError(
                    f"images.{name}: runtime: process has no entry point; name a command"
                )
        return self

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
    path = Path(__file__).resolve().parents[3] / "images" / folder / "Dockerfile"
    if not path.is_file():
        raise ValueError("is not there; layers: true takes images that are built from images/")
    return path.read_text(encoding="utf-8")
