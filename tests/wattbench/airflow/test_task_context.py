"""Patience with hosts: what may pass is waited for and reported, what lasts ends clearly."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from wattbench.airflow import task_context
from wattbench.config.hosts import HostsConfig
from wattbench.errors import HostError


class Clock:
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(task_context, "time", made)
    monkeypatch.setattr(task_context, "connected", lambda name: nullcontext(name))
    hosts = {"lab-a": {"ssh_conn_id": "x"}, "hasty": {"ssh_conn_id": "y", "wait_s": 12}}
    config = HostsConfig.model_validate({"store": {"bucket": "runs"}, "hosts": hosts})
    monkeypatch.setattr(task_context, "hosts_config", lambda: config)
    return made


@pytest.mark.parametrize("code", sorted(task_context.PASSING))
def test_what_passes_is_waited_for_with_growing_pauses_and_reported(
    clock: Clock, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    troubles = [HostError("lab-a: away", code=code)] * 4

    def work(_host: object) -> str:
        if troubles:
            raise troubles.pop()
        return "done"

    assert task_context.on_host("lab-a", work) == "done"
    assert clock.pauses == [5.0, 10.0, 20.0, 30.0]
    assert "trying again in 5 s (0 s of at most 300 s so far): lab-a: away" in caplog.text


@pytest.mark.parametrize(("name", "wait_s"), [("lab-a", 300), ("hasty", 12)])
def test_what_lasts_ends_within_the_host_s_wait_with_its_own_words(
    clock: Clock, name: str, wait_s: float
) -> None:
    def work(_host: object) -> None:
        raise HostError("lab-a: not reachable; check that it is up", code="unreachable")

    with pytest.raises(HostError, match="check that it is up"):
        task_context.on_host(name, work)
    assert clock.now <= wait_s
    assert clock.now + 2 * max(clock.pauses) > wait_s


def test_work_of_an_hour_that_breaks_off_is_begun_again(clock: Clock) -> None:
    troubles = [HostError("lab-a: the connection was lost", code="lost")]

    def work(_host: object) -> str:
        clock.now += 3600
        if troubles:
            raise troubles.pop()
        return "done"

    assert task_context.on_host("lab-a", work) == "done"
    assert clock.pauses == [5.0]


@pytest.mark.parametrize("code", ["host-key", "auth", "meter-failed", "leased", "ended"])
def test_what_will_not_pass_is_not_waited_for(clock: Clock, code: str) -> None:
    def work(_host: object) -> None:
        raise HostError("lab-a: no", code=code)

    with pytest.raises(HostError):
        task_context.on_host("lab-a", work)
    assert clock.pauses == []
