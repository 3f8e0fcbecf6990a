"""What the agent makes of the first words of something that should be the workload."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from wattbench.worker.agent.probe import first_words

START = 'echo \'{"event": "start", "program": "x"}\''


def first_words_of(script: str) -> str | None:
    return first_words(["sh", "-c", script])


def test_the_first_event_is_enough_and_the_rest_is_not_waited_for() -> None:
    began = time.monotonic()
    assert first_words_of(f"echo some banner; {START}; exec sleep 60") is None
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo hello", "ended with 0 before any event of a workload; it said: hello"),
        ("echo no such option: --passes >&2; exit 2", "ended with 2 before any event of a workload; it said: no such"),
        ('echo \'{"event": "end"}\'; exit 1', 'ended with 1 before any event of a workload; it said: {"event": "end"}'),
        ("echo '[1]'; head -c 300000 /dev/zero; exit 3", "ended with 3 "),
        ("true", "it said: nothing"),
    ],
)  # fmt: skip
def test_anything_else_is_told_with_its_last_words(script: str, told: str) -> None:
    assert told in str(first_words_of(script))


def test_silence_has_an_end() -> None:
    told = first_words(["sh", "-c", "echo waiting for input; exec sleep 60"], 0.3)
    assert told == "printed no event of a workload within 0.3 s; it said: waiting for input"


def test_a_host_that_is_measuring_is_not_probed(leased: Any) -> None:
    spec = leased.sh("sleep 60")
    leased.call("start", spec)
    answer = leased.ask("probe", leased.spec([], trial="pull-pip"))
    assert answer["error"] == "busy"
    assert spec["id"] in json.dumps(answer)
