"""Models of hosts.yaml: store, registries, hosts, meters, notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from wattbench.analysis.model import machine_state
from wattbench.config.mistakes import nearest
from wattbench.config.types import (
    Command,
    Model,
    Name,
)
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


class MeterConfig(Model):
    """Energy meter of a host.

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
        gpus: UUIDs of the GPUs that trials use, from ``nvidia-smi -L``; all others must be idle.
        meter: Energy meter of the host.
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
    gpus: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]] = Field(default=[])
    meter: MeterConfig = MeterConfig()
    spool: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = limits.DEFAULT_SPOOL
    python: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$")] = "python3"
    controller: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] | None = None
    expect: Expected = Field(default={})
    unsteady_pct: Annotated[float, Field(gt=0, le=100)] | None = 1.0
    wait_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0


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
