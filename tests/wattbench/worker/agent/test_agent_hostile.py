"""Whatever a workload prints, and whatever lies in a spool: every verb answers, the host stays usable."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattbench.worker.agent import cli, documents, limits, streams
from wattbench.worker.agent.base import CorruptError, parse_json
from wattbench.worker.agent.documents import read_document
from wattbench.worker.agent.spool import Spool

pytestmark = pytest.mark.slow  # attempts in real time

#: Each of these once ended the supervisor, and after it every verb of every owner.
LINES = {
    "nested 1,000 deep": '{"a":' * 1000 + "1" + "}" * 1000,
    "lists nested 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "deep inside an event": '{"event": "x", "more": ' + "[" * 500 + "]" * 500 + "}",
    "a number of 5,000 digits": '{"event": ' + "9" * 5000 + "}",
    "half a surrogate": '{"event": "\\ud800"}',
    "no end of a text": '{"event": "' + "x" * (1 << 20),
}


def words(agent: Any, spec: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (agent.attempt_folder(spec) / "workload.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_of_output_never_stops_the_agent(leased: Any, tmp_path: Path, line: str) -> None:
    (tmp_path / "output").write_text('{"event": "start"}\n' + line + '\n{"event": "end"}\n')
    spec = leased.sh(f"cat {tmp_path}/output")
    report = leased.run(spec)
    assert (report["state"], report["rc"]) == ("done", 0)
    events = [event["event"] for event in words(leased, spec)]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert (leased.attempt_folder(spec) / "stdout.log").read_bytes() == (
        tmp_path / "output"
    ).read_bytes()
    assert leased.call("status", {"id": spec["id"]})["state"] == "over"
    assert leased.call("cleanup", {"owner": "run-1"})["attempts"] == []
    assert leased.call("forget", {"id": spec["id"]})["forgotten"] == [spec["id"]]
    assert leased.call("lease", {"action": "release", "owner": "run-1"})["held"] is False


# ── documents ───────────────────────────────────────────────────────────────────────────────────


def _text(content: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_text(content)

    return damage


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path / "inside").mkdir(parents=True)


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse


OURS = (
    "id", "run", "owner", "state", "active", "process", "supervisor", "session", "mono_s", "boot",
    "meter", "started", "ended", "expires_unix_s", "expires_mono_s", "files", "spec",
)  # fmt: skip
DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _text(""),
    "torn": _text('{"id": "run-1/wor'),
    "deep": _text('{"a":' * 5000 + "1" + "}" * 5000),
    "a list": _text("[1, 2]"),
    "of other types": _text(json.dumps({key: [7] for key in OURS})),
    "not a number": _text('{"owner": "run-1", "boot": "x", "expires_unix_s": NaN, "expires_mono_s": 1}'),
    "endless numbers": _text('{"owner": "run-1", "boot": "x", "expires_unix_s": 1e999, "expires_mono_s": 1}'),
    "not UTF-8": lambda path: (path.unlink(missing_ok=True), path.write_bytes(b"\xff\xfe\x00"))[0],
    "a folder": _folder,
    "a fifo": _fifo,
    "a link to an endless file": _endless,
    "a tebibyte": _huge,
}  # fmt: skip
DOCUMENTS = (
    "spec.json", "report.json", "supervisor.json", "command.json", "connections.jsonl", "stdout.log",
    "supervisor.lock", "workload.jsonl",
)  # fmt: skip


def here(agent: Any, verb: str, payload: dict[str, Any]) -> dict[str, Any]:
    """An answer without a process of its own."""
    answer = cli.answer_verb(verb, json.dumps({"spool": str(agent.spool), **payload}))
    return json.loads(json.dumps(answer))  # type: ignore[no-any-return]


def restore(path: Path, content: bytes | None) -> None:
    if path.is_dir():
        (path / "inside").rmdir()
        path.rmdir()
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_attempt_is_over_collectable_and_forgotten(
    leased: Any, damage: Callable[[Path], None]
) -> None:
    spec = leased.sh('echo \'{"event": "start"}\'')
    leased.run(spec)
    folder = leased.attempt_folder(spec)
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in DOCUMENTS:
        damage(folder / name)
        status = here(leased, "status", {"id": spec["id"]})
        assert (status["state"], status["id"]) == ("over", spec["id"]), name
        if name == "report.json":
            assert status["report"]["state"] == "corrupt"
            assert status["report"]["message"].startswith("report.json: ")
        assert here(leased, "start", spec)["over"] is True, "it is never run a second time"
        assert here(leased, "lease", {"action": "show"})["active"] is None
        assert here(leased, "list", {})["attempts"][0]["state"] == "over"
        here(leased, "warm", {"owner": "run-1", "sample_s": 0})
        restore(folder / name, whole.get(name))
    for name in DOCUMENTS:
        damage(folder / name)
    assert leased.call("wait", {"id": spec["id"], "timeout_s": 20})["over"] is True
    leased.call("cleanup", {"owner": "run-1"})
    assert leased.call("forget", {"run": "run-1"})["forgotten"]
    assert not folder.exists()


@pytest.mark.parametrize("how", ["torn", "deep", "of other types", "a fifo", "a tebibyte"])
def test_an_attempt_that_lost_its_supervisor_and_its_spec_is_corrupt(
    leased: Any, gone: Any, tmp_path: Path, how: str
) -> None:
    spec = leased.sh(
        f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600"
    )
    leased.call("start", spec)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(leased.supervisor(spec), signal.SIGKILL)
    DAMAGES[how](leased.attempt_folder(spec) / "spec.json")
    report = leased.call("status", {"id": spec["id"]})["report"]
    assert report["state"] == "corrupt"
    assert report["message"].startswith("spec.json: ")
    assert gone(int((tmp_path / "pid").read_text()))
    assert leased.call("lease", {"action": "release", "owner": "run-1"})["held"] is False


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_documents_of_the_spool_lock_no_run_out(
    leased: Any, damage: Callable[[Path], None]
) -> None:
    for name in ("lease.json", "warm.json", "busy.json"):
        damage(leased.spool / name)
    assert leased.call("lease", {"action": "show"})["held"] is False
    assert leased.take("run-1")["owner"] == "run-1"
    asked = {"owner": "run-1", "sample_s": 0}
    assert leased.call("quiet", asked)["rested_s"] >= 0
    assert leased.call("warm", asked | {"action": "start", "seconds": 30})["running"] is True
    assert leased.call("cleanup", {"owner": "run-1"})["burner"] is True
    assert leased.call("lease", {"action": "release", "owner": "run-1"})["held"] is False


def test_a_damaged_lease_does_not_free_a_host_that_measures(leased: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spec = leased.sh(f"mkfifo {gate}; read x < {gate}")
    leased.call("start", spec)
    (leased.spool / "lease.json").write_text("{")
    refused = leased.ask("lease", {"action": "take", "owner": "run-2"})
    assert (refused["error"], refused["owner"], refused["active"]) == (
        "leased",
        "run-1",
        spec["id"],
    )
    assert leased.call("cleanup", {"owner": "run-1"})["attempts"] == [spec["id"]]
    assert leased.take("run-2")["owner"] == "run-2"


def test_a_workload_that_forges_the_report_is_reported_by_the_supervisor(leased: Any) -> None:
    forged = json.dumps({"id": "x", "state": "done", "message": "best ever", "files": {}})
    for make in (f"echo '{forged}' > report.json", "mkdir -p report.json/x", "mkfifo report.json"):
        spec = leased.sh(f"{make}; exit 3", trial=f"00{len(make)}-x")
        report = leased.run(spec)
        assert (report["state"], report["id"], report["rc"]) == ("failed", spec["id"], 3)


def test_links_are_not_among_the_files_of_an_attempt(leased: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    spec = leased.sh(f"ln -s {tmp_path}/secret powercap.csv")
    report = leased.run(spec)
    assert "powercap.csv" not in report["files"]


@pytest.mark.parametrize(
    "request_",
    ['{"a":' * 5000, "[1]", '{"ttl_s": "x", "action": "take", "owner": "a"}', '{"ttl_s": NaN}', "\x00"],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(
    tmp_path: Path, program: Path, request_: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(program), "lease"], input=request_, capture_output=True, text=True,
        check=True, env=os.environ | {"WATTBENCH_SPOOL": str(tmp_path)},
    )  # fmt: skip
    assert json.loads(done.stdout)["error"] == "bad-request"


def test_a_disk_without_room_is_the_host_s_trouble_and_no_defect() -> None:
    answer, code = cli._unforeseen(
        OSError(errno.ENOSPC, "No space left on device", "/spool/lease.json")
    )
    assert (code, answer["error"]) == (0, "disk-full")
    assert "/spool/lease.json" in answer["message"]
    answer, code = cli._unforeseen(
        OSError(errno.EROFS, "Read-only file system", "/spool/lease.json")
    )
    assert (code, answer["error"]) == (0, "spool")
    with contextlib.redirect_stderr(None):
        answer, code = cli._unforeseen(ValueError("ours"))
    assert (code, answer["error"]) == (1, "internal")


def test_depth_is_counted_in_nesting_and_not_in_brackets() -> None:
    assert parse_json(json.dumps({"a": "[" * 500})) == {"a": "[" * 500}
    assert parse_json(json.dumps([[]] * 500)) == [[]] * 500
    deepest = "[" * limits.DEPTH + "]" * limits.DEPTH
    assert parse_json(deepest)
    with pytest.raises(ValueError, match="deeper than"):
        parse_json(f"[{deepest}]")


def test_a_document_is_absent_or_corrupt_or_has_the_given_types(tmp_path: Path) -> None:
    class Sample(documents.TypedDict):
        a: str
        b: float | None

    path = tmp_path / "a.json"
    assert read_document(str(path), Sample) is None
    for text, why in {
        "{}": "no a", '{"a": 1}': "a is not a text", '{"a": true}': "a is not a text",
        '{"a": "x", "b": "y"}': "b is not a number", '{"a": "x", "b": 1e300}': "b is out of range",
    }.items():  # fmt: skip
        path.write_text(text)
        with pytest.raises(CorruptError, match=f"^a.json: {why}$"):
            read_document(str(path), Sample)
    path.write_text('{"a": "x", "b": null}')
    assert read_document(str(path), Sample) == {"a": "x", "b": None}


def test_documents_of_the_spool_are_for_its_user_only(leased: Any) -> None:
    spec = leased.sh("true", env={"TOKEN": "hidden"})
    leased.run(spec)
    folder = leased.attempt_folder(spec)
    for name in ("spec.json", "report.json", "command.json", "supervisor.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert (leased.spool / "lease.json").stat().st_mode & 0o077 == 0
    assert not (folder / "environment").exists()


def test_a_container_s_variable_has_one_line(leased: Any) -> None:
    changes = {"runtime": "docker", "image": {"name": "x", "ref": "x"}}
    for env in ({"A": "1\nB=2"}, {"A B": "1"}, {"#A": "1"}, {"": "1"}, {"A=B": "1"}):
        answer = leased.ask("start", leased.spec(["x"], env=env, **changes))
        assert (answer["error"], answer["message"][:10]) == ("bad-request", "start: env")


# ── output ──────────────────────────────────────────────────────────────────────────────────────


def test_output_beyond_the_limit_is_counted_dropped_and_reported(leased: Any) -> None:
    spec = leased.sh(
        f'echo \'{{"event": "start"}}\'; head -c {8 << 20} /dev/zero; head -c {5 << 20} /dev/zero >&2'
    )
    report = leased.run(spec)
    assert (report["state"], report["rc"]) == ("done", 0)
    assert report["output"] == {
        "stdout_bytes": len('{"event": "start"}\n') + (8 << 20), "stderr_bytes": 5 << 20,
        "kept_bytes": 2 * limits.OUTPUT_BYTES, "cut": True, "error": None,
    }  # fmt: skip
    assert report["files"]["stdout.log"]["bytes"] == limits.OUTPUT_BYTES
    assert [event["event"] for event in words(leased, spec)] == ["start"]


def test_output_within_the_limit_is_kept_whole(leased: Any) -> None:
    report = leased.run(leased.sh("printf 'abc'; printf 'de' >&2"))
    assert report["output"] == {
        "stdout_bytes": 3, "stderr_bytes": 2, "kept_bytes": 5, "cut": False, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize("flood", ["cat /dev/zero", "yes '{\"a\":1}'"])
def test_a_flood_takes_no_memory(tmp_path: Path, program: Path, flood: str) -> None:
    (tmp_path / "spec.json").write_text("{}")
    wrapper = [sys.executable, str(program), "command", str(tmp_path), "--"]
    with (tmp_path / "stdout.log").open("wb") as out:
        subprocess.run(
            ["sh", "-c", 'ulimit -v 200000; exec "$@"', "sh", *wrapper, "sh", "-c", f"{flood} | head -c 400M"],
            stdout=out, check=True,
        )  # fmt: skip
    record = json.loads((tmp_path / "command.json").read_text())
    assert record["output"]["stdout_bytes"] == 400 << 20
    assert len(streams.event_lines(str(tmp_path / "stdout.log"))) < 2 * limits.OUTPUT_BYTES


def test_output_that_finds_no_room_is_a_full_spool(leased: Any) -> None:
    leased.meter = leased.make_meter("full", run='"$@" > /dev/full; rc=$?')
    report = leased.run(leased.sh("echo much"))
    assert report["state"] == "failed"
    assert report["message"].startswith(f"the spool {leased.spool} is full; free space on the host")
    assert report["output"]["error"] == "No space left on device"


# ── processes ───────────────────────────────────────────────────────────────────────────────────

#: Forks twice into a session of its own, without a trace of the attempt in its environment.
ESCAPE = (
    "import os, sys\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        os.execve('/bin/sh', ['sh', '-c', 'trap \"\" TERM; echo $$ > ' + sys.argv[1] + '; "
    "while :; do sleep 1; done'], {})\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read(): pass\n"
)


def test_a_process_that_forks_twice_is_found_ended_and_reported(
    leased: Any, tmp_path: Path, gone: Any
) -> None:
    spec = leased.spec([sys.executable, "-ISc", ESCAPE, str(tmp_path / "pid")])
    report = leased.run(spec)
    assert gone(int((tmp_path / "pid").read_text()))
    assert report["state"] == "failed"
    assert report["message"].startswith("the workload left processes running, which were ended: sh")
    assert "sh" in report["strays"]
    assert report["meter"]["outlived"] is False


def test_a_process_that_forks_twice_does_not_survive_the_timeout_either(
    leased: Any, tmp_path: Path, gone: Any
) -> None:
    script = ESCAPE + "import time; time.sleep(600)\n"
    spec = leased.spec([sys.executable, "-ISc", script, str(tmp_path / "pid")], timeout_s=3)
    report = leased.run(spec)
    assert report["state"] == "timeout"
    assert gone(int((tmp_path / "pid").read_text()))


# ── meters that hang ────────────────────────────────────────────────────────────────────────────


def test_a_meter_that_hangs_after_its_workload_is_distinguished_from_a_timeout(leased: Any) -> None:
    leased.meter = leased.make_meter("hangs", run='"$@" > "$out"; exec sleep 600')
    report = leased.run(leased.sh("true", timeout_s=600))
    assert report["state"] == "failed"
    assert report["message"].startswith(
        "the meter hung: it had not ended 10.2 s after its workload"
    )
    assert report["rc"] == 0
    window = report["command"]
    assert window["ended"]["mono_s"] > window["started"]["mono_s"]


def test_a_meter_that_hangs_before_its_workload_is_distinguished_from_a_timeout(
    leased: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased.meter = leased.make_meter("hangs", before="exec sleep 600")
    spec = leased.sh("true", timeout_s=600)
    leased.call("start", spec)
    report = leased.call("wait", {"id": spec["id"], "timeout_s": 120})["report"]
    assert report["state"] == "failed"
    assert report["message"].startswith("the meter hung: it did not start the workload")


def test_spool_of_an_unknown_shape_lists_nothing(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    (tmp_path / "trials" / "run" / "001-x").mkdir(parents=True)
    (tmp_path / "trials" / "run" / "001-x" / "1").write_text("a file")
    (tmp_path / "trials" / "stray").write_text("a file")
    assert spool.attempts() == []
