"""Models of hosts.yaml: store, registries, hosts, meters, notifications."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from wattbench.config.types import (
    Command,
    Model,
    Name,
)
from wattbench.worker.agent import limits

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
    interval_ms: Annotated[int, Field(ge=1, le=600_000)] = limits.INTERVAL_MS

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
    spool: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$")] = limits.DEFAULT_SPOOL
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
