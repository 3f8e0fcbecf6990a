from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # attempts in real time

#: A workload that prints its pid and then blocks until the test opens the other end of a fifo.
BLOCK = (
    'echo $$ > "{0}/pid.new"; mv "{0}/pid.new" "{0}/pid"; mkfifo "{0}/gate"; read x < "{0}/gate"'
)


def blocking(folder: Path) -> str:
    return BLOCK.format(folder)


def open_gate(folder: Path) -> None:
    """Let the workload go on. Where none waits any more this fails, and does not block in turn."""
    deadline = time.monotonic() + 10
    while True:
        try:
            gate = os.open(folder / "gate", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "no workload waits at its gate"
            time.sleep(0.01)
            continue
        os.write(gate, b"go\n")
        os.close(gate)
        return


def started_pid(folder: Path) -> int:
    """The workload's pid, once it runs."""
    deadline = time.monotonic() + 20
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline, "the workload did not start"
        time.sleep(0.01)
    return int((folder / "pid").read_text())


def test_attempt_reports_its_window_its_files_and_its_workload_s_words(leased: Any) -> None:
    script = (
        r"""echo '{"event": "start", "unix_s": 1}'; printf 'noise \377\n'; echo '[1]'; """
        r"""echo '{torn'; printf '{"event": "end", "name": "\377"}\n'; echo oops >&2"""
    )
    spec = leased.sh(script)
    report = leased.run(spec)

    assert (report["state"], report["rc"], report["meter"]["rc"]) == ("done", 0, 0)
    assert report["schema"] == 1
    assert report["id"] == "run-1/worker/001-pip/1"
    assert report["rest"] == {"rested_s": 3.0}
    assert report["meter"]["version"] == "tiny 1.0"
    assert report["meter"]["outlived"] is False
    window = report["command"]
    assert 0 < window["ended"]["mono_s"] - window["started"]["mono_s"] < 20
    before, after = report["edges"]["before"], report["edges"]["after"]
    assert before["mono_s"] < window["started"]["mono_s"]
    assert window["ended"]["mono_s"] < after["mono_s"]
    folder = leased.attempt_folder(spec)
    events = [json.loads(line) for line in (folder / "workload.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "end"]
    assert (folder / "stderr.log").read_text() == "oops\n"
    assert set(report["files"]) >= {"energibridge.csv", "stdout.log", "stderr.log", "command.json"}
    for name, facts in report["files"].items():
        data = (folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    listed = leased.call("list", {"run": "run-1"})["attempts"]
    assert [(a["id"], a["state"], a["outcome"]) for a in listed] == [(spec["id"], "over", "done")]
    assert listed[0]["files"] == report["files"]


def test_second_start_attaches_and_the_workload_runs_once(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(f"echo ran >> {tmp_path}/count; {blocking(tmp_path)}")
    assert leased.call("start", spec)["state"] == "started"
    started_pid(tmp_path)
    again = leased.call("start", spec)
    assert (again["state"], again["active"], again["over"]) == ("attached", spec["id"], False)
    assert leased.call("status")["state"] == "running"
    open_gate(tmp_path)
    report = leased.over(spec)
    after = leased.call("start", spec)
    assert (after["state"], after["over"], after["report"]) == ("attached", True, report)
    assert (tmp_path / "count").read_text() == "ran\n"
    assert [c["verb"] for c in report["connections"]][:3] == ["start", "start", "status"]


def test_of_many_starts_at_once_one_starts(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(f"echo ran >> {tmp_path}/count")
    answers = [leased.answer(p) for p in [leased.popen("start", spec) for _ in range(4)]]
    assert sorted(a["state"] for a in answers) == ["attached"] * 3 + ["started"]
    leased.over(spec)
    assert (tmp_path / "count").read_text() == "ran\n"


def test_nothing_touches_the_host_inside_the_window(leased: Any) -> None:
    spec = leased.sh("sleep 0.3") | {"lead_s": 20}
    leased.call("start", spec)
    report = leased.over(spec)  # its wait opens the window: no lead of 20 s is waited out
    opened = report["command"]["started"]["unix_s"]
    assert [c["verb"] for c in report["connections"]] == ["start", "wait"]
    assert all(c["unix_s"] < opened for c in report["connections"])
    assert opened - report["connections"][0]["unix_s"] < 15


def test_wait_and_supervisor_sleep_in_the_kernel(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    waiting = leased.popen("wait", {"id": spec["id"], "timeout_s": 50})
    started_pid(tmp_path)

    def wakeups(pid: int) -> list[str]:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return [line for line in status if "ctxt_switches" in line]

    watched = (leased.supervisor(spec), waiting.pid)
    deadline, asleep = time.monotonic() + 20, False
    while not asleep and time.monotonic() < deadline:  # a second without one wake-up of either
        first = [wakeups(pid) for pid in watched]
        time.sleep(1)
        asleep = first == [wakeups(pid) for pid in watched]
    assert asleep
    open_gate(tmp_path)
    assert leased.answer(waiting)["report"]["state"] == "done"


def test_wait_gives_up_in_time_and_leaves_the_attempt_alone(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    assert leased.call("wait", {"id": spec["id"], "timeout_s": 0.1})["over"] is False
    started_pid(tmp_path)
    open_gate(tmp_path)
    assert leased.over(spec)["state"] == "done"


def test_supervisor_ends_workload_and_its_runaway_children_after_the_timeout(
    leased: Any, tmp_path: Path, gone: Any
) -> None:
    script = f"setsid sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/child; sleep 600' & sleep 600"
    spec = leased.sh(script, timeout_s=1)
    report = leased.run(spec)
    assert (report["state"], report["message"]) == ("timeout", "stopped after timeout_s = 1 s")
    assert report["command"]["rc"] == 128 + signal.SIGTERM
    assert gone(int((tmp_path / "child").read_text()))
    # the workload ended first, so the meter could write its last row
    csv = (leased.attempt_folder(spec) / "energibridge.csv").read_text()
    assert csv.endswith("1,2,11\n")


@pytest.mark.parametrize("verb", ["status", "wait", "list", "start", "cleanup", "lease"])
def test_attempt_of_a_killed_supervisor_is_ended_and_reported_as_lost(
    leased: Any, tmp_path: Path, gone: Any, verb: str
) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    workload = started_pid(tmp_path)
    os.kill(leased.supervisor(spec), signal.SIGKILL)
    payloads = {
        "status": {"id": spec["id"]}, "wait": {"id": spec["id"]}, "list": {"run": "run-1"},
        "start": spec, "cleanup": {"owner": "run-1"}, "lease": {"action": "show"},
    }  # fmt: skip
    leased.call(verb, payloads[verb])
    report = json.loads((leased.attempt_folder(spec) / "report.json").read_text())
    assert (report["state"], report["message"]) == ("lost", "the supervisor was killed")
    assert report["meter"]["outlived"] is True
    assert gone(workload)


def test_attempt_that_a_reboot_cut_short_says_so(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    started_pid(tmp_path)
    os.kill(leased.supervisor(spec), signal.SIGKILL)
    proc = tmp_path / "booted" / "proc"
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "stat").write_text("1 (a) b) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n")
    leased.environment["WATTBENCH_SYSROOT"] = str(tmp_path / "booted")
    report = leased.call("status", {"id": spec["id"]})["report"]
    assert (report["state"], report["message"]) == ("lost", "the host restarted")
    assert report["boot"]["before"] != report["boot"]["after"]
    assert report["boot"]["after"].endswith("/4711")


def test_meter_that_panics_in_midway_leaves_no_orphan(
    leased: Any, tmp_path: Path, gone: Any
) -> None:
    leased.meter = leased.make_meter(
        "panics",
        run=f'"$@" > "$out" & while [ ! -e {tmp_path}/pid ]; do sleep 0.02; done; '
        "printf \"thread 'main' panicked at src/main.rs:7:9:\\nMSR gone\\n\" >&2; exit 101",
    )
    report = leased.run(leased.sh(blocking(tmp_path)))
    assert report["state"] == "failed"
    assert report["meter"]["outlived"] is True
    assert report["message"] == (
        "the meter ended with 101 before its workload: "
        "thread 'main' panicked at src/main.rs:7:9: MSR gone"
    )
    assert gone(int((tmp_path / "pid").read_text()))


def test_meter_that_never_starts_the_workload_is_quoted(leased: Any) -> None:
    leased.meter = leased.make_meter("denied", before="echo 'MSR: permission denied' >&2; exit 101")
    report = leased.run(leased.sh("true"))
    assert report["state"] == "failed"
    assert report["command"] is None
    assert report["message"] == (
        "the meter ended with 101 before the workload started: MSR: permission denied"
    )


def test_meter_that_is_not_there_is_named(leased: Any, tmp_path: Path) -> None:
    leased.meter = str(tmp_path / "nowhere")
    report = leased.run(leased.sh("true"))
    assert report["state"] == "failed"
    assert f"{tmp_path}/nowhere: No such file or directory" in report["message"]


@pytest.mark.parametrize(
    ("script", "rc"), [("echo broken >&2; exit 3", 3), ("echo broken >&2; kill -9 $$", 137)]
)
def test_failed_workload_keeps_its_exit_code_and_last_words(
    leased: Any, script: str, rc: int
) -> None:
    report = leased.run(leased.sh(script))
    assert (report["state"], report["rc"]) == ("failed", rc)
    assert report["message"] == f"the workload ended with {rc}: broken"


def test_command_that_does_not_exist_fails_with_its_name(leased: Any) -> None:
    report = leased.run(leased.spec(["/no/such/program"]))
    assert (report["state"], report["rc"]) == ("failed", 127)
    assert "/no/such/program" in report["message"]


def test_full_disk_is_refused_before_anything_starts(leased: Any) -> None:
    spec = leased.sh("true", min_free_bytes=10**18)
    answer = leased.ask("start", spec)
    assert (answer["ok"], answer["error"]) == (False, "disk-full")
    assert str(leased.spool) in answer["message"]
    assert not leased.attempt_folder(spec).exists()
    assert leased.call("lease")["active"] is None


def test_other_attempt_is_refused_while_one_runs(leased: Any, tmp_path: Path) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    other = leased.sh("true", trial="002-apt")
    answer = leased.ask("start", other)
    assert (answer["error"], answer["active"]) == ("busy", spec["id"])
    assert leased.ask("forget", {"id": spec["id"]})["error"] == "busy"
    started_pid(tmp_path)
    open_gate(tmp_path)
    leased.over(spec)
    assert leased.run(other)["state"] == "done"


def test_cleanup_stops_the_owner_s_attempt_and_the_host_is_free(
    leased: Any, tmp_path: Path, gone: Any
) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    workload = started_pid(tmp_path)
    assert leased.call("cleanup", {"owner": "another"})["attempts"] == []
    assert leased.call("cleanup", {"run": "run-1"})["attempts"] == [spec["id"]]
    assert gone(workload)
    report = leased.over(spec)
    assert (report["state"], report["message"]) == ("killed", "stopped by cleanup")
    assert leased.call("lease")["active"] is None


def test_forgotten_attempts_leave_nothing_behind(leased: Any) -> None:
    spec = leased.sh("true")
    leased.run(spec)
    assert leased.call("forget", {"id": spec["id"]})["forgotten"] == [spec["id"]]
    assert leased.call("forget", {"id": spec["id"]})["forgotten"] == []
    assert list((leased.spool / "trials").iterdir()) == []
    assert leased.call("status", {"id": spec["id"]})["state"] == "unknown"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../etc/passwd/1"},
        {"run": "..", "id": "../worker/001-pip/1"},
        {"runtime": "podman"},
        {"meter": {"kind": "wattmeter"}},
        {"command": []},
        {"runtime": "docker"},
    ],
)
def test_malformed_spec_is_refused(leased: Any, change: dict[str, Any]) -> None:
    answer = leased.ask("start", leased.sh("true") | change)
    assert (answer["ok"], answer["error"]) == (False, "bad-request")
    assert list((leased.spool / "trials").iterdir()) == []


def test_spool_shared_by_two_hosts_is_refused(leased: Any) -> None:
    leased.run(leased.sh("true"))
    answer = leased.ask("start", leased.sh("true", host="other"))
    assert answer["error"] == "conflict"


def test_garbage_on_stdin_is_answered_in_json(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(program), "status"], input="{nonsense", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["error"] == "bad-request"


def test_control_workload_does_fixed_work(leased: Any) -> None:
    spec = leased.spec(["burn", "--rounds", "7"], kind="control")
    report = leased.run(spec)
    assert report["state"] == "done"
    lines = (leased.attempt_folder(spec) / "workload.jsonl").read_text().splitlines()
    events = {e["event"]: e for e in map(json.loads, lines)}
    assert (events["result"]["images"], events["end"]["images"]) == (7, 7)
    digest = b""
    for _ in range(7):
        digest = hashlib.sha256(digest + bytes(1 << 20)).digest()
    assert events["result"]["fingerprint"] == list(digest[:8])
    window = report["command"]
    assert window["started"]["mono_s"] < events["start"]["mono_s"]
    assert events["end"]["mono_s"] < window["ended"]["mono_s"]


def test_wrapper_passes_sigterm_on_and_returns_the_workload_s_code(
    tmp_path: Path, program: Path
) -> None:
    (tmp_path / "spec.json").write_text("{}")
    script = f"trap 'exit 7' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    wrapper = subprocess.Popen(
        [sys.executable, str(program), "command", str(tmp_path), "--", "sh", "-c", script]
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "command.json").exists() or not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert json.loads((tmp_path / "command.json").read_text())["ended"] is None
    wrapper.terminate()
    assert wrapper.wait(20) == 7
    record = json.loads((tmp_path / "command.json").read_text())
    assert record["rc"] == 7
    assert record["ended"]["mono_s"] > record["started"]["mono_s"]


def test_an_attempt_of_the_same_id_in_another_spool_is_left_alone(
    leased: Any, tmp_path: Path
) -> None:
    spec = leased.sh(blocking(tmp_path))
    leased.call("start", spec)
    started_pid(tmp_path)
    (tmp_path / "other").mkdir()
    other = type(leased)(tmp_path / "other", leased.program)
    other.take()
    assert other.run(other.sh("true"))["state"] == "done"  # its end cleans up what is its own
    assert other.spec(["true"])["id"] == spec["id"]
    open_gate(tmp_path)
    assert leased.over(spec)["state"] == "done"
