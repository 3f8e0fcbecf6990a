"""Airflow connections as Airflow itself keeps them, and what becomes of them."""

from __future__ import annotations

import json

import pytest

from wattbench.airflow.connections import registry_access
from wattbench.config.hosts import HostsConfig
from wattbench.errors import ConfigError


def hosts(**registries: object) -> HostsConfig:
    meter = {"kind": "energibridge"}
    return HostsConfig.model_validate(
        {
            "store": {"bucket": "wattbench"},
            "hosts": {"h1": {"ssh_conn_id": "h1", "meter": meter}},
            "registries": {name.replace("_", "."): entry for name, entry in registries.items()},
        }
    )


def test_a_registry_s_login_comes_from_its_connection_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    login = {"conn_type": "http", "login": "ann", "password": "s3cret"}
    monkeypatch.setenv("AIRFLOW_CONN_GHCR", json.dumps(login))
    access = registry_access(hosts(ghcr_io={"conn_id": "ghcr"}, lab_local={"insecure": True}))
    assert (access["ghcr.io"].username, access["ghcr.io"].password) == ("ann", "s3cret")
    assert "s3cret" not in repr(access)
    assert (access["lab.local"].insecure, access["lab.local"].username) == (True, None)


def test_a_connection_that_is_absent_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"registry ghcr\.io: Airflow has no connection 'absent'"):
        registry_access(hosts(ghcr_io={"conn_id": "absent"}))
