"""What the agent makes of the first words of something that should be the workload."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from wattbench import agent as module

START = 'echo \'{"event": "start", "program": "x"}\''


@pytest.fixture
def spool(tmp_path: Path) -> module.Spool:
    return module.Spool(str(tmp_path / "spool"))


def heard(script: str, spool: module.Spool) -> str | None:
    return module._first_words(["sh", "-c", script], spool)


def test_the_first_event_is_enough_and_the_rest_is_not_waited_for(spool: module.Spool) -> None:
    began = time.monotonic()
    assert heard(f"echo some banner; {START}; exec sleep 60", spool) is None
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo hello", "ended with 0 before any workload spoke; it said: hello"),
        ("echo no such option: --passes >&2; exit 2", "ended with 2 before any workload spoke; it said: no such"),
        ('echo \'{"event": "end"}\'; exit 1', 'ended with 1 before any workload spoke; it said: {"event": "end"}'),
        ("echo '[1]'; head -c 300000 /dev/zero; exit 3", "ended with 3 "),
        ("true", "it said: nothing"),
    ],
)  # fmt: skip
def test_anything_else_is_told_with_its_last_words(
    spool: module.Spool, script: str, told: str
) -> None:
    assert told in str(heard(script, spool))


def test_silence_has_an_end(spool: module.Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.3)
    told = heard("echo waiting for input; exec sleep 60", spool)
    assert told == "was silent about any workload for 0.3 s; it said: waiting for input"


def test_a_host_that_is_measuring_is_not_probed(leased: Any) -> None:
    spec = leased.sh("sleep 60")
    leased.call("start", spec)
    answer = leased.ask("probe", leased.spec([], trial="pull-pip"))
    assert answer["error"] == "busy"
    assert spec["id"] in json.dumps(answer)
