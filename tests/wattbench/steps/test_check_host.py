"""What a host's check could not find out, for the reader of many hosts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.stored_runs import experiment, prepared
from wattbench.errors import HostError
from wattbench.steps import check_host, verdict
from wattbench.storage.object_store import Store


def facts(*unknown: str) -> dict[str, Any]:
    rows = [{"severity": "unknown", "message": text} for text in unknown]
    return {"probes": [*rows, {"severity": "soft", "message": "the CPU governor is powersave"}]}


def test_what_is_unknown_on_several_hosts_is_said_once() -> None:
    found = check_host.unknown_on(
        [("a", facts("no governor", "no turbo")), ("b", facts("no governor")), ("c", facts())]
    )
    assert found == {"no governor": ["a", "b"], "no turbo": ["a"]}


EXPECT = {"gpu.power_limit_w": 400, "cpu.turbo": False, "cpu.smt": True}


def machine(**changes: Any) -> dict[str, Any]:
    return {
        "machine": {"gpu[0].power_limit_w": 400.0, "cpu.turbo": False, "cpu.smt": True} | changes
    }


def test_a_host_whose_settings_are_as_expected_has_no_problem() -> None:
    assert check_host.unexpected(machine(), EXPECT, ["GPU-a"]) == []


def test_a_setting_that_differs_refuses_the_host_with_the_command_that_sets_it() -> None:
    found = check_host.unexpected(machine(**{"gpu[0].power_limit_w": 300.0}), EXPECT, ["GPU-a"])
    assert found == [
        {
            "code": "unexpected-state", "severity": "hard",
            "message": "gpu[0].power_limit_w is 300, expected is 400",
            "action": "sudo nvidia-smi -i 0 -pl 400",
        }
    ]  # fmt: skip


def test_a_setting_that_the_host_does_not_report_refuses_it() -> None:
    (found,) = check_host.unexpected({}, {"cpu.smt": False}, [])
    assert found["message"] == "cpu.smt is not reported, expected is off"


def test_gpus_that_no_trial_gets_need_not_be_as_expected() -> None:
    assert check_host.unexpected(machine(**{"gpu[0].power_limit_w": 300.0}), EXPECT, []) == []


def test_why_a_check_failed_is_kept_with_the_run_and_in_its_account(store: Store) -> None:
    run = prepared(store, experiment())
    with pytest.raises(HostError), check_host.kept_refusal(run, "lab-a"):
        raise HostError("lab-a: no route to 10.0.0.7", code="unreachable")
    assert (run.host_document("lab-a") or {}).get("reason") == "lab-a: no route to 10.0.0.7"
    assert verdict.account(run).sentence().endswith("7 more: lab-a: no route to 10.0.0.7")
