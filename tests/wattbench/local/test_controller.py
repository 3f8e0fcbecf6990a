"""State folder of the embedded controller: what is refused, and what its sshd and images are."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wattbench.analysis.model.errors import UserError
from wattbench.cli.command_line import main
from wattbench.config.hosts import MeterConfig
from wattbench.config.loader import load_hosts
from wattbench.local import controller as controllers
from wattbench.local import docker_engine, images, this_machine
from wattbench.local.controller import Controller, default_path
from wattbench.local.sshd import ADDRESS, sshd_config
from wattbench.local.state_folder import StateFolder


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(StateFolder(tmp_path / "wattbench"))


def accept(controller: Controller) -> list[str]:
    said: list[str] = []
    controller._accept(said.append)
    return said


# ── the state folder ────────────────────────────────────────────────────────────────────────────


def test_the_state_folder_is_where_xdg_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "wattbench"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local/state/wattbench"


def test_a_new_folder_and_its_own_are_accepted(controller: Controller) -> None:
    assert not controller.exists
    assert accept(controller) == []
    assert controller.exists
    assert accept(controller) == []


def test_a_folder_of_another_layout_is_refused(controller: Controller) -> None:
    accept(controller)
    file = controller.state.path / "versions.json"
    for text in (json.dumps({"layout": 0}), "torn{"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"made by another version .*XDG_STATE_HOME"):
            accept(controller)


def test_a_folder_of_another_owner_is_left_alone(controller: Controller) -> None:
    controller.state.folder("pictures")
    with pytest.raises(UserError, match=r"holds something .*XDG_STATE_HOME"):
        accept(controller)
    assert [path.name for path in controller.state.path.iterdir()] == ["pictures"]


def test_another_version_starts_the_services_anew(controller: Controller) -> None:
    accept(controller)
    file = controller.state.path / "versions.json"
    file.write_text(file.read_text().replace('"apache-airflow": "', '"apache-airflow": "0.'))
    (said,) = accept(controller)
    assert "start anew" in said
    assert accept(controller) == []


def test_a_full_disk_is_refused_before_anything_starts(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(controller.state.path.parent)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(UserError, match=r"1\.0 GB free of 2\.1 GB needed; .*XDG_STATE_HOME"):
        accept(controller)


@pytest.mark.parametrize("name", ["with blank", "quote'", "per%cent"])
def test_a_path_that_settings_can_t_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="letters, digits"):
        accept(Controller(StateFolder(tmp_path / name)))


def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for words in (["measure", "a", "b"], ["up"]):
        assert main(words) == 2
        assert capsys.readouterr().err.endswith("pip install 'wattbench[airflow]'\n")
    assert list(elsewhere.iterdir()) == []


def test_an_experiment_that_is_refused_leaves_nothing(
    controller: Controller, tmp_path: Path
) -> None:
    controller.write_hosts(_hosts(controller))
    script = tmp_path / "bench.py"
    script.touch()
    with pytest.raises(UserError, match=r"measure-1\.yaml"):
        controller.add_experiment("measure-1", "hosts: [box]\nworkload: {}\n", [script])
    assert list((controller.config / "experiments").iterdir()) == []


def _hosts(controller: Controller) -> dict[str, Any]:
    from wattbench.config.hosts import HostConfig

    return {
        "box-modelled": HostConfig(
            ssh_conn_id="wattbench_box_modelled",
            meter=this_machine.modelled_meter(),
            spool=str(controller.state.path / "spool"),
        )
    }


def test_hosts_and_connections_are_those_that_wattbench_reads(controller: Controller) -> None:
    controller.write_hosts(_hosts(controller))
    assert load_hosts(controller.config).hosts == _hosts(controller)
    file = controller.state.path / "connections.json"
    assert file.stat().st_mode & 0o777 == 0o600
    found = json.loads(file.read_text())
    assert set(found) == {"wattbench_box_modelled", "wattbench_store"}
    assert found["wattbench_box_modelled"]["host"] == ADDRESS
    assert found["wattbench_box_modelled"]["extra"]["host_key"].startswith("ssh-ed25519 ")


# ── one at a time ───────────────────────────────────────────────────────────────────────────────


def _hold(path: Path, held: Any, done: Any) -> None:
    with StateFolder(path).lock("wattbench command"):
        held.set()
        done.wait()


def test_a_second_measurement_says_which_process_is_at_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(default_path(), held, done))
    first.start()
    try:
        assert held.wait(60)
        assert main(["measure", "a", "b", "--", "true"]) == 2
    finally:
        done.set()
        first.join(60)
    error = capsys.readouterr().err
    assert re.search(rf"another wattbench command is at work .*process {first.pid}\b", error)


# ── the command line ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["measure", "one", "--", "true"], "at least two images"),
        (["measure", "a", "b", "--unit", "document:", "--", "true"], "--unit"),
        (["measure", "a", "b", "--file", "/nowhere.py"], "is not a file"),
        (["measure", "a", "b", "--out", "/"], "--out /: exists"),
        (["measure", "a", "b", "--blocks", "0"], "protocol.blocks: 0: must be at least 1"),
        (["measure", "a", "b", "--unit", "document:processed"], "workload.unit.pattern: 'processed' has 0 groups"),
        (["measure", "a", "b", "--ready", "("], "workload.ready.pattern: '(' is not a regular expression"),
        (["measure", "a", "b", "--rest", "nan"], "protocol.rest.min_s: nan: must be a finite number"),
        (["measure", "a", "b", "--timeout", "0"], "protocol.timeout_s: 0: must be at least 10"),
        (["measure", "a", "b", "--env", "1A=2"], "images.a.env: '1A' is not a variable name"),
        (["measure", "a", "b", "--file", f"{__file__}:x"], "workload.files: 'x' is not an absolute path in the container"),
        (["measure", "a", "b", "--gpu", "0"], "--gpu: only --device cuda"),
        (["measure", "a", "b", "--", "true"], "DOCKER_HOST=unix:///nowhere/docker.sock"),
    ],
)  # fmt: skip
def test_what_can_t_be_measured_is_one_line_and_starts_nothing(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert reason in error
    assert not (elsewhere / "state/wattbench/run").exists()


def test_hosts_and_down_without_a_controller_say_so(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hosts"]) == 1
    assert "no controller on this machine yet" in capsys.readouterr().out
    assert main(["down", "--remove"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert list(elsewhere.iterdir()) == []


# ── the sshd ────────────────────────────────────────────────────────────────────────────────────


def test_the_sshd_listens_on_the_loopback_address_and_lets_in_one_user_by_key() -> None:
    text = sshd_config(21001, "me", Path("/s/ssh/host"), Path("/s/ssh/authorized_keys"))
    found = dict(line.split(" ", 1) for line in text.splitlines())
    assert len(found) == len(text.splitlines()), "a key that stands twice counts once only"
    assert found["ListenAddress"] == "127.0.0.1"
    assert found["Port"] == "21001"
    assert found["AllowUsers"] == '"me"'
    assert found["AuthenticationMethods"] == "publickey"
    off = ("PasswordAuthentication", "KbdInteractiveAuthentication", "AllowTcpForwarding", "PermitTTY",
           "AllowAgentForwarding", "AllowStreamLocalForwarding", "X11Forwarding", "PermitTunnel")  # fmt: skip
    assert {key: found[key] for key in off} == dict.fromkeys(off, "no")
    assert found["HostKey"] == '"/s/ssh/host"'
    assert found["AuthorizedKeysFile"] == '"/s/ssh/authorized_keys"'


def test_a_missing_sshd_names_its_package(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattbench.local.packages.PATH", "/nowhere")
    with pytest.raises(UserError, match="install the package openssh-server"):
        controller.sshd.ensure()


# ── this machine ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("Lab_GPU-3.example.org", "lab-gpu-3"),
        ("x" * 60, "x" * 31),
        ("---", "this-machine"),
        ("ä", "this-machine"),
    ],
)
def test_this_machine_has_a_name_that_hosts_yaml_takes(
    monkeypatch: pytest.MonkeyPatch, hostname: str, name: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    assert this_machine.host_name() == name


def test_the_stand_in_meter_is_there_and_is_called_modelled() -> None:
    meter = this_machine.modelled_meter()
    assert meter.kind == "modelled"
    assert meter.argv is not None
    assert Path(meter.argv[-1]).is_file()


def _machine(measured: str | None) -> this_machine.ThisMachine:
    return this_machine.ThisMachine(
        {}, "box-modelled", measured, ("powercap: no counter (sudo x)",)
    )


def test_a_machine_without_a_meter_is_refused_unless_modelled() -> None:
    assert _machine("box").host_for(modelled=False) == "box"
    assert _machine("box").host_for(modelled=True) == "box-modelled"
    assert _machine(None).host_for(modelled=True) == "box-modelled"
    with pytest.raises(UserError, match=r"no meter .*powercap: no counter \(sudo x\).*--modelled"):
        _machine(None).host_for(modelled=False)


GPUS: list[dict[str, Any]] = [{"index": 0, "uuid": "GPU-a"}, {"index": 1, "uuid": "GPU-b"}]


def test_a_gpu_is_chosen_only_where_it_is_clear_which() -> None:
    assert this_machine.choose_gpu(GPUS[:1], None) == "GPU-a"
    assert this_machine.choose_gpu(GPUS, "1") == "GPU-b"
    assert this_machine.choose_gpu(GPUS, "GPU-b") == "GPU-b"
    for gpus, wanted, reason in (
        (GPUS, None, "choose one with --gpu"), (GPUS, "2", "this machine has"), ([], None, "no NVIDIA GPU"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason):
            this_machine.choose_gpu(gpus, wanted)


class AskedHost:
    """Answers `facts` as an agent does, and keeps what it was asked."""

    def __init__(self, yields: str) -> None:
        self.yields, self.asked = yields, list[str]()

    def call(self, _verb: str, request: dict[str, Any], _timeout_s: float) -> dict[str, Any]:
        kind = MeterConfig.model_validate(request["meter"]).kind
        self.asked.append(kind)
        ok = kind == self.yields
        problem = {
            "code": "meter-failed", "severity": "hard", "message": "", "action": f"repair {kind}",
        }  # fmt: skip
        meter = {"ok": ok, "message": None if ok else f"{kind} is silent"}
        return {"meter": meter, "problems": [] if ok else [problem]}


@pytest.mark.parametrize(
    ("gpus", "yields", "asked"),
    [
        ([], "energibridge", ["energibridge"]),
        ([], "powercap", ["energibridge", "powercap"]),
        (["GPU-a"], "nvml", ["energibridge", "nvml"]),
        ([], "hwmon", ["energibridge", "powercap", "hwmon"]),
        (
            [],
            "nvml",
            ["energibridge", "powercap", "hwmon"],
        ),  # NVML says nothing about work on the CPU
    ],
)
def test_the_first_meter_that_yields_energy_is_taken(
    gpus: list[str], yields: str, asked: list[str]
) -> None:
    host: Any = AskedHost(yields)
    meter, refused = this_machine.find_meter(host, gpus)
    assert host.asked == asked
    assert (meter.kind if meter else None) == (yields if yields in asked else None)
    left = asked if meter is None else asked[:-1]
    assert refused == [f"{kind}: {kind} is silent (repair {kind})" for kind in left]


# ── images ──────────────────────────────────────────────────────────────────────────────────────

IMAGE_ID = "sha256:" + "ab12" * 16


@pytest.mark.parametrize(
    ("given", "name", "tag"),
    [
        ("acme/app:dev", "docker.io/acme/app", "dev"),
        ("app", "docker.io/library/app", "latest"),
        ("10.0.0.1:5000/app:1", "10.0.0.1-5000/app", "1"),
        ("Reg.Example/app:1", "reg.example/app", "1"),
        (f"app@{IMAGE_ID}", "docker.io/library/app", "ab12ab12ab12"),
        (IMAGE_ID, "by-id/ab12ab12ab12", "latest"),
        ("ab12ab12ab12", "by-id/ab12ab12ab12", "latest"),
    ],
)
def test_a_copy_keeps_the_name_of_its_image(given: str, name: str, tag: str) -> None:
    from wattbench.container.image_ref import ImageRef

    found = images._name_in("127.0.0.1:21000", given, IMAGE_ID)
    assert found == (f"127.0.0.1:21000/{name}", tag)
    ImageRef.parse(":".join(found))


def test_a_push_that_reports_an_error_or_no_digest_is_refused() -> None:
    assert images._pushed([{"status": "…"}, {"aux": {"Digest": IMAGE_ID}}], "app") == IMAGE_ID
    with pytest.raises(UserError, match=r"app: can't be copied .*no space"):
        images._pushed([{"error": "no space left"}], "app")
    with pytest.raises(UserError, match="app: Docker reports no digest"):
        images._pushed([], "app")


def test_only_names_of_copies_are_forgotten_and_no_image_with_them() -> None:
    from docker.errors import ImageNotFound

    removed: list[str] = []

    def remove(tag: str, noprune: bool) -> None:
        assert noprune
        if "gone" in tag:
            raise ImageNotFound("removed by another meanwhile")
        removed.append(tag)

    listed = [
        {"RepoTags": ["gone:dev", "127.0.0.1:1/gone:dev"]},
        {"RepoTags": ["app:dev", "127.0.0.1:1/app:dev"]},
        {"RepoTags": ["127.0.0.1:1/by-id/x:latest"]},  # its only name
        {"RepoTags": ["127.0.0.1:10/other:1", "other:1"]},
        {"RepoTags": None},
    ]
    client: Any = SimpleNamespace(
        api=SimpleNamespace(images=lambda: listed), images=SimpleNamespace(remove=remove)
    )
    assert images.forget_copies(client, "127.0.0.1:1") == 1
    assert removed == ["127.0.0.1:1/app:dev"]


class KnownImages:
    """Docker's answers about images that it has, and what it was asked to push."""

    def __init__(self, known: dict[str, dict[str, Any]]) -> None:
        self.known, self.pushed = known, list[str]()
        self.images = self

    def version(self) -> dict[str, str]:
        return {"Arch": "amd64"}

    def get(self, name: str) -> SimpleNamespace:
        from docker.errors import ImageNotFound

        for ref, attrs in self.known.items():
            if name in (ref, attrs["Id"]):
                return SimpleNamespace(attrs=attrs, tag=lambda *_: True)
        raise ImageNotFound(name)

    def push(self, name: str, tag: str, **_: Any) -> list[dict[str, Any]]:
        self.pushed.append(f"{name}:{tag}")
        return [{"aux": {"Digest": IMAGE_ID}}]


def test_an_image_is_named_as_its_registry_has_it_and_copied_only_where_none_has(
    registry: Any,
) -> None:
    pushed = registry.push_image("team/app", "1", {"a": b"1"})
    name = f"{registry.address}/team/app"
    by_digest = f"{name}@{pushed['digest']}"
    attrs = {"Id": pushed["config_digest"], "RepoDigests": [by_digest], "Size": 1e6}
    built = {"Id": IMAGE_ID, "RepoDigests": [], "Size": 1e6}
    moved = {"Id": IMAGE_ID, "RepoDigests": [by_digest], "Size": 1e6}
    client: Any = KnownImages(
        {f"{name}:1": attrs, "renamed:1": attrs, "built:dev": built, f"{name}:2": moved}
    )
    naming = images.ImageNaming(client, lambda: "127.0.0.1:21000", print)
    assert naming.by_digest(f"{name}:1") == by_digest
    assert client.pushed == []
    own = "127.0.0.1:21000"
    # Another registry on this machine may be gone tomorrow, and a digest may be of other bytes.
    for text, copy in (
        ("renamed:1", f"{own}/docker.io/library/renamed:1"),
        ("built:dev", f"{own}/docker.io/library/built:dev"),
        (f"{name}:2", f"{own}/{name.replace(':', '-')}:2"),
    ):
        assert naming.by_digest(text) == f"{copy}@{IMAGE_ID}"
        assert client.pushed.pop() == copy
    unknown = f"{registry.address}/team/nothing:1"
    with pytest.raises(UserError, match=r"does not know it.*and this machine's Docker has no"):
        naming.by_digest(unknown)


def test_a_docker_that_this_user_may_not_use_names_the_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(docker_engine, "connect", lambda _: None)
    monkeypatch.setattr(docker_engine, "SOCKET", tmp_path / "docker.sock")
    with pytest.raises(UserError, match="no Docker daemon answers"):
        docker_engine.require()
    (tmp_path / "docker.sock").touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="usermod -aG docker"):
        docker_engine.require()


def test_nothing_of_a_controller_runs_before_it_is_brought_up(controller: Controller) -> None:
    assert not controller.is_up
    assert controller.services() == []
    assert controllers.LAYOUT == 1
