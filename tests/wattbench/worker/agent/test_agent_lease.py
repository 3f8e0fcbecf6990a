from __future__ import annotations

import time
from pathlib import Path
from typing import Any

GATE = 'mkfifo "{0}/gate"; read x < "{0}/gate"'


def test_lease_is_exclusive_and_taking_one_s_own_again_extends_it(agent: Any) -> None:
    assert agent.call("lease") == {
        "ok": True, "held": False, "owner": None, "expires_unix_s": None, "active": None,
        "reclaimed": None,
    }  # fmt: skip
    first = agent.take("run-1", 600)
    assert (first["held"], first["owner"], first["reclaimed"]) == (True, "run-1", None)
    assert 590 < first["expires_unix_s"] - time.time() <= 600
    refused = agent.ask("lease", {"action": "take", "owner": "run-2"})
    assert (refused["error"], refused["owner"]) == ("leased", "run-1")
    assert refused["expires_unix_s"] == first["expires_unix_s"]
    # a shorter time never shortens what was promised
    assert agent.take("run-1", 5)["expires_unix_s"] == first["expires_unix_s"]
    assert agent.take("run-1", 900)["expires_unix_s"] > first["expires_unix_s"]


def test_released_lease_is_free_for_the_next(agent: Any) -> None:
    agent.take("run-1")
    others = agent.call("lease", {"action": "release", "owner": "run-2"})
    assert (others["held"], others["owner"]) == (True, "run-1")
    assert agent.call("lease", {"action": "release", "owner": "run-1"})["held"] is False
    assert agent.take("run-2")["owner"] == "run-2"


def test_start_needs_the_owner_s_lease(agent: Any) -> None:
    assert agent.ask("start", agent.sh("true"))["error"] == "no-lease"
    agent.take("run-2")
    assert agent.ask("start", agent.sh("true"))["error"] == "leased"
    assert agent.ask("quiet", {"owner": "run-1"})["error"] == "leased"


def test_start_extends_the_lease_beyond_the_attempt_s_deadline(agent: Any) -> None:
    agent.take("run-1", ttl_s=10)
    spec = agent.sh("true", timeout_s=3000)
    answer = agent.call("start", spec)
    lease = agent.call("lease")
    assert answer["deadline_unix_s"] > time.time() + 3000
    assert lease["expires_unix_s"] > answer["deadline_unix_s"] + 200
    agent.over(spec)


def test_expired_lease_is_reclaimed_and_its_owner_s_leavings_are_ended(agent: Any) -> None:
    agent.take("run-1", ttl_s=600)
    agent.call("warm", {"owner": "run-1", "action": "start", "seconds": 60, "sample_s": 0})
    agent.edit("lease.json", expires_mono_s=time.monotonic() - 1)
    answer = agent.take("run-2")
    assert answer["owner"] == "run-2"
    assert answer["reclaimed"]["owner"] == "run-1"
    assert answer["reclaimed"]["burner"] is True
    state = agent.call("warm", {"owner": "run-2", "sample_s": 0})
    assert state["running"] is False


def test_expired_lease_with_an_attempt_inside_its_deadline_is_not_reclaimed(
    agent: Any, tmp_path: Path
) -> None:
    agent.take("run-1")
    spec = agent.sh(GATE.format(tmp_path))
    agent.call("start", spec)
    agent.edit("lease.json", expires_mono_s=time.monotonic() - 1)
    refused = agent.ask("lease", {"action": "take", "owner": "run-2"})
    assert (refused["error"], refused["active"]) == ("leased", spec["id"])
    # past its deadline it is taken for stuck, and ended
    name = str(agent.attempt_folder(spec).relative_to(agent.spool) / "spec.json")
    agent.edit(name, deadline_unix_s=time.time() - 1)
    assert agent.take("run-2")["reclaimed"]["attempts"] == [spec["id"]]
    assert agent.call("status", {"id": spec["id"]})["report"]["state"] == "killed"


def test_lease_with_a_running_attempt_is_not_released(agent: Any, tmp_path: Path) -> None:
    agent.take("run-1")
    spec = agent.sh(GATE.format(tmp_path))
    agent.call("start", spec)
    assert agent.ask("lease", {"action": "release", "owner": "run-1"})["error"] == "busy"
    agent.call("cleanup", {"owner": "run-1"})
    assert agent.call("lease", {"action": "release", "owner": "run-1"})["held"] is False


def test_lease_outlives_a_reboot_by_the_wall_clock(agent: Any, tmp_path: Path) -> None:
    """After a reboot the monotonic clock starts anew: what it said then means nothing now."""
    agent.take("run-1", ttl_s=600)
    agent.edit("lease.json", boot="another boot", expires_mono_s=0.0)
    assert agent.call("lease")["held"] is True
    agent.edit("lease.json", expires_mono_s=1e12, expires_unix_s=time.time() - 1)
    assert agent.call("lease")["held"] is False
    assert agent.take("run-2")["reclaimed"]["owner"] == "run-1"


def test_clock_step_does_not_end_a_lease(agent: Any) -> None:
    agent.take("run-1", ttl_s=600)
    agent.edit("lease.json", expires_unix_s=time.time() - 3600)
    assert agent.call("lease")["held"] is True


def test_attempt_whose_report_was_written_by_no_one_frees_the_lease(agent: Any) -> None:
    """A spool whose attempt folder vanished (disk swapped, cleaned by hand) does not stay busy."""
    agent.take("run-1")
    agent.edit("lease.json", active="run-1/worker/009-gone/1")
    assert agent.call("lease")["active"] is None
    assert agent.run(agent.sh("true"))["state"] == "done"
