"""Models of hosts.yaml: store, registries, hosts, meters, notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from wattbench.analysis.model import machine_state
from wattbench.config.mistakes import nearest
from wattbench.config.types import (
    Command,
    Model,
    Name,
)
from wattbench.remote_meters import READERS
from wattbench.remote_meters.protocol import MeterEntry, RemoteSettings
from wattbench.worker.agent import limits
from wattbench.worker.agent_bundle import meter_kinds

if TYPE_CHECKING:
    MeterKind = str
else:  # those of the agent, and of other distributions
    MeterKind = Literal[tuple(sorted(meter_kinds()))]

# ── hosts.yaml ──────────────────────────────────────────────────────────────────────────────────


class Retention(Model):
    """Retention of raw logs; records, tables, reports and manifests are never deleted.

    Attributes:
        days: Raw logs of runs older than this are deleted, days.
        max_gb: Then the oldest raw logs are deleted until all together are within this, 10⁹ bytes.
    """

    days: Annotated[float, Field(gt=0)] | None = None
    max_gb: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Retention:
        if self.days is None and self.max_gb is None:
            raise ValueError("retention names neither days nor max_gb; give one, or leave it out")
        return self


class StoreConfig(Model):
    """Object store of raw logs and reports; endpoint and credentials come from the Airflow connection.

    Attributes:
        conn_id: Airflow connection of type aws with endpoint, access key and secret.
        bucket: Bucket that holds all objects.
        prefix: Folder in the bucket; empty: the root of the bucket.
        retention: When raw logs are deleted; null: never.
        wait_s: Longest wait for a store that does not answer or refuses its keys; then the task fails.
    """

    conn_id: str = "wattbench_store"
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$")] = ""
    retention: Retention | None = None
    wait_s: Annotated[float, Field(ge=0, le=86_400)] = 1800.0


class RegistryConfig(Model):
    """Access to one image registry; the login comes from an Airflow connection.

    Attributes:
        insecure: Use plain HTTP, without TLS.
        conn_id: Airflow connection with login and password of the registry; null: anonymous.
    """

    insecure: bool = False
    conn_id: str | None = None


class MeterConfig(MeterEntry):
    """Energy meter that the agent reads on the host.

    ``command`` is any program with EnergiBridge's interface, for ``energibridge`` and ``modelled`` alike:
    the kind alone decides whether its joules count as measured.

    Attributes:
        kind: ``energibridge``: a program with EnergiBridge's interface; ``nvml``, ``powercap`` and
            ``hwmon``: read by the agent itself; ``modelled``: a program that models the energy, reported as
            modelled, never as measured.
        command: Program of the meter with its arguments, a list or one line; default:
            ``/usr/local/bin/energibridge``.
        interval_ms: Sampling interval, milliseconds.
    """

    kind: MeterKind = "energibridge"
    command: Command | None = None
    interval_ms: Annotated[int, Field(ge=1, le=600_000)] = limits.INTERVAL_MS

    @model_validator(mode="after")
    def _needs_a_command(self) -> MeterConfig:
        meter = meter_kinds()[self.kind]
        if meter.wraps and not (self.command or meter.default_command):
            raise ValueError(f"meter.command is missing; name the program of meter {self.kind}")
        return self

    @property
    def argv(self) -> list[str] | None:
        """The meter's command; None for meters that the agent reads itself."""
        meter = meter_kinds()[self.kind]
        return list(self.command or [str(meter.default_command)]) if meter.wraps else None

    @property
    def name(self) -> str:
        """What tables and findings call it."""
        return self.kind


def _branch_of(value: object) -> str | None:
    """The name of the model that a meter is; None: its kind is unknown."""
    if isinstance(value, MeterEntry):
        return type(value).__name__
    kind = value.get("kind", "energibridge") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind in READERS:
        return READERS[kind].Settings.__name__
    return MeterConfig.__name__ if kind in meter_kinds() or kind is None else None


def _any_meter() -> Any:
    """The type of a meter of any kind."""
    union: Any = Annotated[MeterConfig, Tag(MeterConfig.__name__)]
    for reader in READERS.values():
        settings: Any = reader.Settings
        union = union | Annotated[settings, Tag(settings.__name__)]
    kinds = sorted({*meter_kinds(), *READERS})
    return Annotated[
        union,
        Discriminator(
            _branch_of,
            custom_error_type="meter_kind",
            custom_error_message=f"kind is not one of {', '.join(kinds)}",
        ),
    ]


if TYPE_CHECKING:
    AnyMeter = MeterConfig | RemoteSettings
else:
    AnyMeter = _any_meter()


def _known_settings(value: dict[str, bool | int | float | str]) -> dict[str, Any]:
    for key, expected in value.items():
        item = machine_state.item_key(key)
        if item not in machine_state.ITEMS:
            meant = nearest(item, machine_state.ITEMS)
            hint = f"; did you mean {meant}?" if meant else ""
            raise ValueError(
                f"{key} is not a setting of a machine{hint} (docs/hosts.md lists them)"
            )
        if why := machine_state.misfit(key, expected):
            raise ValueError(why)
    return value


Expected = Annotated[dict[str, bool | int | float | str], AfterValidator(_known_settings)]


class HostConfig(Model):
    """One worker host.

    Attributes:
        ssh_conn_id: Airflow connection of type SSH with address, login, key, and the pinned host key.
        address: Address at which other hosts reach it, for a load from another host; null: that of the
            connection.
        gpus: UUIDs of the GPUs that trials use, from ``nvidia-smi -L``; all others must be idle.
        meter: Energy meter of the host; short for a list of one.
        meters: Energy meters of the host: the primary one, whose joules are the trials', and others that it
            is compared with.
        spool: Folder on the host for raw logs, until the store has verified copies.
        python: Python interpreter on the host, 3.9 or newer.
        controller: Folder of the pid files of a controller that runs on this host: its CPU time is
            recorded apart from that of other processes; null: the controller is another machine.
        expect: Settings that the machine must have, such as ``gpu.power_limit_w: 400`` or
            ``cpu.turbo: off``; a host that differs is refused with the command that sets it.
        unsteady_pct: Relative standard deviation of the control workload between runs above which the host
            is quarantined, %; null: never.
        wait_s: Longest wait for a host that can't be reached or is not ready (busy, disk full, no Docker);
            then the task fails. Seconds.
    """

    ssh_conn_id: Annotated[str, Field(min_length=1)]
    address: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]+$")] | None = None
    gpus: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]] = Field(default=[])
    meters: list[AnyMeter] = Field(default=[])
    meter: AnyMeter = MeterConfig()
    spool: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = limits.DEFAULT_SPOOL
    python: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$")] = "python3"
    controller: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] | None = None
    expect: Expected = Field(default={})
    unsteady_pct: Annotated[float, Field(gt=0, le=100)] | None = 1.0
    wait_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0

    @model_validator(mode="before")
    @classmethod
    def _primary_is_the_meter(cls, value: Any) -> Any:
        meters = value.get("meters") if isinstance(value, dict) else None
        if not isinstance(meters, list) or not meters or "meter" in value:
            return value
        marked = [m for m in meters if isinstance(m, dict) and m.get("primary") is True]
        return {**value, "meter": (marked or meters)[0]}

    @model_validator(mode="after")
    def _meters_go_together(self) -> HostConfig:
        if not self.meters:
            return self
        if self.meter not in self.meters:
            raise ValueError("meter and meters stand here; move meter into the list meters")
        names = [meter.name for meter in self.meters]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"two meters are called {min(twice)}; give one another name, or remove it"
            )
        if sum(meter.primary for meter in self.meters) > 1:
            raise ValueError("two meters are primary; mark one of them")
        if taken := {m.name for m in self.remote_meters} & set(meter_kinds()):
            raise ValueError(f"a meter has the name of the kind {min(taken)}; give it another name")
        wrapping = [m.kind for m in self._read_there if m.argv is not None]
        if len(wrapping) > 1:
            raise ValueError(f"{' and '.join(wrapping)} both run the workload; keep one of them")
        return self

    @property
    def all_meters(self) -> tuple[MeterConfig | RemoteSettings, ...]:
        """Every meter, the primary one first."""
        return (self.meter, *(m for m in self.meters if m != self.meter))

    @property
    def remote_meters(self) -> tuple[RemoteSettings, ...]:
        """Those that the controller reads."""
        return tuple(m for m in self.all_meters if isinstance(m, RemoteSettings))

    @property
    def _read_there(self) -> tuple[MeterConfig, ...]:
        return tuple(m for m in self.all_meters if isinstance(m, MeterConfig))

    @property
    def agent_meter(self) -> MeterConfig | None:
        """The agent's: that which runs the workload, else the first; None: the controller reads them all."""
        there = self._read_there
        return next((m for m in there if m.argv is not None), next(iter(there), None))

    @property
    def further_agent_meters(self) -> tuple[MeterConfig, ...]:
        """The agent's beside :attr:`agent_meter`."""
        return tuple(m for m in self._read_there if m is not self.agent_meter)


Event = Literal[
    "verdict-changed", "regression", "host-quarantined", "run-incomplete", "run-hangs"
]  # fmt: skip


class NotifyConfig(Model):
    """Who is notified of which events, through an Airflow notifier.

    Attributes:
        notifier: Import path of the notifier.
        arguments: Arguments of the notifier; their templates can use ``wattbench.title``, ``text``,
            ``event``, ``run_id`` and ``link``.
        events: Events that are reported; default: all.
    """

    notifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    arguments: dict[str, Any] = Field(default={})
    events: list[Event] = Field(default=list(get_args(Event)), min_length=1)


class HostsConfig(Model):
    """The content of ``hosts.yaml``.

    Attributes:
        store: The object store.
        hosts: The worker hosts, by name.
        registries: Registries that need a login or have no TLS, by address.
        notify: Who is notified of events; default: the log of the run's task ``notify``.
    """

    store: StoreConfig
    hosts: Annotated[dict[Name, HostConfig], Field(min_length=1)]
    registries: dict[str, RegistryConfig] = Field(default={})
    notify: list[NotifyConfig] = Field(
        default=[NotifyConfig(notifier="wattbench.notify.LogNotifier")]
    )
