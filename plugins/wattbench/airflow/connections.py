"""Airflow connections → plain targets. The only place that reads a connection's fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from wattbench.config.hosts import HostConfig
    from wattbench.container.registry import Access
    from wattbench.remote_meters.client import Access as MeterAccess
    from wattbench.remote_meters.protocol import Reader, RemoteSettings
    from wattbench.storage.object_store import Store, StoreTarget
    from wattbench.worker.target import HostTarget


def _connection(conn_id: str, what: str) -> Connection:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    try:
        return BaseHook.get_connection(conn_id)
    except (AirflowNotFoundException, AirflowRuntimeError):
        raise ConfigError(
            f"{what}: Airflow has no connection {conn_id!r}; add it (Admin → Connections, or "
            f"AIRFLOW_CONN_{conn_id.upper()}) or name another in hosts.yaml"
        ) from None


def host_target(name: str, hosts: HostsConfig) -> HostTarget:
    """The SSH side of one host.

    Connection: type ``ssh``; extra ``private_key`` (PEM) or ``key_file``, and ``host_key``
    (``ssh-ed25519 AAAA…``) unless the host stands in the controller's ``known_hosts``.
    """
    from wattbench.worker.target import HostTarget

    host = hosts.hosts[name]
    conn = _connection(host.ssh_conn_id, f"host {name}")
    extra = conn.extra_dejson
    if not conn.host:
        raise ConfigError(f"host {name}: connection {host.ssh_conn_id!r} names no host; fill it in")
    return HostTarget(
        name=name,
        hostname=conn.host,
        port=conn.port or 22,
        username=conn.login or "root",
        private_key=extra.get("private_key"),
        key_filename=extra.get("key_file"),
        host_key=extra.get("host_key"),
        known_hosts_file=extra.get("known_hosts_file"),
        spool=host.spool,
        python=host.python,
    )


def open_store(hosts: HostsConfig, *, wait_s: float = 0.0, mendable: bool = False) -> Store:
    """The object store of ``hosts.yaml``.

    Args:
        hosts: its content.
        wait_s: longest outage that is waited for, s.
        mendable: refused keys and a missing bucket are an outage too, that a person mends meanwhile: of
            a run that has begun, not of one that begins.
    """
    from wattbench.storage.object_store import Store

    def read_again() -> StoreTarget:
        return store_target(load_hosts(config_dir()))

    return Store(store_target(hosts), patience_s=wait_s, renew=read_again if mendable else None)


def store_target(hosts: HostsConfig) -> StoreTarget:
    """Where the object store of ``hosts.yaml`` is.

    Connection: type ``aws``; login and password are the key pair; extra ``endpoint_url``,
    ``region_name`` and ``addressing_style`` (``path`` or ``virtual``).
    """
    from wattbench.storage.object_store import StoreTarget

    config = hosts.store
    conn = _connection(config.conn_id, "store")
    extra = conn.extra_dejson
    return StoreTarget(
        endpoint_url=extra.get("endpoint_url"),
        access_key=conn.login or "",
        secret_key=conn.password or "",
        region=extra.get("region_name", "us-east-1"),
        bucket=config.bucket,
        prefix=config.prefix,
        addressing_style=extra.get("addressing_style", "path"),
    )


def meter_readers(host: str, config: HostConfig) -> tuple[Reader, ...]:
    """A host's meters that the controller reads.

    Connection: login and password; extra ``auth`` (``basic``, ``digest``, ``bearer`` or ``query``) and
    ``ca_file``.

    Raises:
        ConfigError: a connection is missing, or can't be used.
    """
    from wattbench.remote_meters import reader_of

    return tuple(reader_of(one, _meter_access(host, one)) for one in config.remote_meters)


def _meter_access(host: str, meter: RemoteSettings) -> MeterAccess:
    from wattbench.remote_meters.client import WAYS, Access

    if meter.conn_id is None:
        return Access()
    what = f"meter {meter.name} of host {host}"
    conn = _connection(meter.conn_id, what)
    extra = conn.extra_dejson
    way, ca_file = str(extra.get("auth") or "basic"), extra.get("ca_file")
    if way not in WAYS:
        raise ConfigError(
            f"{what}: connection {meter.conn_id!r} has auth {way!r} in its extra; use one of "
            f"{', '.join(WAYS)}"
        )
    if ca_file and not Path(str(ca_file)).is_file():
        raise ConfigError(
            f"{what}: connection {meter.conn_id!r} names a ca_file that is not there; correct the path on "
            "the controller"
        )
    return Access(way, conn.login, conn.password, str(ca_file) if ca_file else None)


def registry_access(hosts: HostsConfig) -> dict[str, Access]:
    """How to reach each registry that hosts.yaml names, by ``host[:port]``."""
    from wattbench.container.registry import Access

    access = {}
    for registry, config in hosts.registries.items():
        conn = _connection(config.conn_id, f"registry {registry}") if config.conn_id else None
        access[registry] = Access(
            insecure=config.insecure,
            username=conn.login if conn else None,
            password=conn.password if conn else None,
        )
    return access
