"""Remote meters in the steps of a run: checked before it, read around a window, kept with the attempt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import Here, Shelf
from tests.support.wall_meter import Answers, Device, Load, serving, shelly
from wattbench.remote_meters import reader_of
from wattbench.run.stored_run import Run
from wattbench.steps.check_host import unread
from wattbench.steps.pull_energy import metered
from wattbench.steps.trial import read_around, remote_files
from wattbench.storage.object_store import compress
from wattbench.worker.ssh import ClockReading

STEADY = Device(Load(((0.0, 120.0),)))


class GzipShelf(Shelf):
    """As the real store: what is put compressed is read compressed."""

    def put_gzip(self, key: str, data: bytes) -> None:
        self.kept[key] = compress(data)


class HereWithClock(Here):
    """The agent on this machine, whose clock is the host's."""

    def clock(self) -> ClockReading:
        return ClockReading(0.0, 0.0)


def a_run(url: str) -> Run:
    plug = {
        "kind": "http", "name": "plug", "interval_ms": 200, "averaged_s": 0.2,
        "url": f"{url}/rpc/Switch.GetStatus", "energy": {"path": "aenergy.total", "unit": "Wh"},
    }  # fmt: skip
    config = {"ssh_conn_id": "x", "meter": plug}
    store: Any = GzipShelf()
    return Run(store, {"run_id": "run-1", "hosts": {"h1": {"config": config}}})  # type: ignore[typeddict-item]


def test_check_names_each_meter_that_yields_no_energy_and_what_to_do() -> None:
    html = Answers({"/rpc/Switch.GetStatus": lambda _: (200, "text/html", b"<html>")})
    with serving(html) as bad, serving(shelly(STEADY)) as good:
        readers = [
            reader_of(m) for url in (bad, good) for m in a_run(url).host_config("h1").remote_meters
        ]
        (problem,) = unread(readers)
    assert problem == {
        "code": "meter-failed", "severity": "hard",
        "message": "http meter plug answers a web page (HTML), not JSON",
        "action": "give the url of its data (docs/hosts.md has examples)",
    }  # fmt: skip


def test_raw_files_are_kept_beside_the_attempts_others_however_the_window_ended() -> None:
    host: Any = HereWithClock.__new__(HereWithClock)
    with serving(shelly(STEADY)) as url:
        run = a_run(url)
        readers = [reader_of(m) for m in run.host_config("h1").remote_meters]
        with pytest.raises(KeyboardInterrupt), read_around(run, host, "runs/run-1/k", readers):
            raise KeyboardInterrupt
        (first,) = remote_files(run, "runs/run-1/k", readers).values()
        with read_around(run, host, "runs/run-1/k", readers):
            pass
    (both,) = remote_files(run, "runs/run-1/k", readers).values()
    assert both.startswith(first)
    assert b'"sample"' in both[len(first) :]
    assert [*run.store.kept] == ["runs/run-1/k/http.jsonl.gz"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", [b"no gzip", compress(b"line\n" * 100)[:-9]])
def test_a_damaged_raw_file_is_left_out_so_that_the_attempt_can_be_collected(
    damage: bytes,
) -> None:
    run = a_run("http://127.0.0.1:9")
    run.store.put("runs/run-1/k/http.jsonl.gz", damage)
    assert remote_files(run, "runs/run-1/k", run.host_config("h1").remote_meters) == {}


@pytest.mark.slow
def test_a_pull_on_a_host_with_a_wall_plug_alone_has_the_walls_joules(tmp_path: Path) -> None:
    host: Any = HereWithClock(tmp_path / "spool")
    host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    with serving(shelly(STEADY)) as url:
        run = a_run(url)
        readers = [reader_of(m) for m in run.host_config("h1").remote_meters]
        with metered(run, host, "h1", "pip", readers) as energy:
            time.sleep(1.0)
    assert "why" not in energy
    assert energy["energy_scope"] == "wall"
    assert abs(energy["energy_j"] - 120.0 * energy["window_s"]) <= energy["energy_uncertainty_j"]
