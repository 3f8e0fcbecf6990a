"""Meters of a host in hosts.yaml: one or several, on the host or on the network."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.support.config_mistakes import refusal
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import load_hosts
from wattbench.worker.attempt_spec import metering

PLUG = {"kind": "http", "name": "plug-1", "url": "http://plug/", "power": {"path": "apower"}}
PDU = {"kind": "prometheus", "url": "http://p:9090", "energy": {"query": "e", "unit": "J"}}


def host(**keys: Any) -> HostConfig:
    return HostConfig.model_validate({"ssh_conn_id": "x", **keys})


def test_one_meter_means_a_list_of_one() -> None:
    for one in ({"kind": "powercap"}, PLUG, PDU):
        alone, listed = host(meter=one), host(meters=[one])
        assert alone.all_meters == listed.all_meters == (alone.meter,)


def test_the_first_meter_is_primary_unless_another_is_marked() -> None:
    rapl = {"kind": "energibridge"}
    assert host(meters=[rapl, PLUG]).meter.kind == "energibridge"
    marked = host(meters=[rapl, PLUG | {"primary": True}, PDU])
    assert [m.name for m in marked.all_meters] == ["plug-1", "energibridge", "prometheus"]
    assert metering(marked)["meter"] == "http"
    assert [m["primary"] for m in metering(marked)["meters"]] == [True, False, False]


def test_the_agent_gets_the_meter_that_runs_the_workload_and_remote_meters_never() -> None:
    config = host(meters=[PLUG, {"kind": "powercap"}, {"kind": "energibridge"}])
    assert config.agent_meter is not None
    assert config.agent_meter.kind == "energibridge"
    assert [m.kind for m in config.further_agent_meters] == ["powercap"]
    assert [m.name for m in config.remote_meters] == ["plug-1"]
    assert host(meter=PLUG).agent_meter is None


@pytest.mark.parametrize("keys", [{"meter": PDU}, {"meters": [PLUG, {"kind": "powercap"}]}, {}])
def test_a_stored_host_reads_back_as_it_was(keys: dict[str, Any]) -> None:
    config = host(**keys)
    assert HostConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"meter": {"kind": "plug"}}, "kind is not one of energibridge, http, hwmon"),
        ({"meters": [{"kind": "plug"}]}, "kind is not one of energibridge, http, hwmon"),
        ({"meters": [PLUG | {"pwoer": 1}]}, "unknown key; did you mean power?"),
        ({"meters": [PLUG | {"domain": "rack"}]}, "did you mean"),
        ({"meters": [PLUG, PLUG]}, "two meters are called plug-1; give one another name"),
        ({"meters": [{"kind": "powercap"}, {"kind": "powercap"}]}, "two meters are called powercap"),
        ({"meters": [PLUG | {"name": "nvml"}]}, "a meter has the name of the kind nvml"),
        ({"meters": [PLUG | {"primary": True}, PDU | {"primary": True}]}, "two meters are primary"),
        ({"meters": [{"kind": "energibridge"}, {"kind": "modelled", "command": "x"}]},
         "energibridge and modelled both run the workload; keep one"),
        ({"meter": {"kind": "nvml"}, "meters": [PLUG]}, "move meter into the list meters"),
        ({"meters": [PLUG | {"url": "http://u:p@plug/"}]}, "the URL holds a login; put it into an Airflow"),
    ],
)  # fmt: skip
def test_meters_that_can_t_be_are_one_line_with_place_and_next_action(
    tmp_path: Any, entry: dict[str, Any], why: str
) -> None:
    document = {"store": {"bucket": "wattbench"}, "hosts": {"a": {"ssh_conn_id": "x", **entry}}}
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump(document))
    message = refusal(load_hosts, tmp_path)
    assert why in message or (why == "did you mean" and "must be one of" in message), message
    assert "hosts.yaml line" in message
    assert "u:p" not in message
