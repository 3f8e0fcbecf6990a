"""The audit of images whose faults were planted: each is found, with its numbers, and absent where it is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import html5lib
import pytest
import yaml

from tests.support.image_tarballs import (
    PYTHON_START,
    LayerTar,
    docker_save,
    elf,
    fatbin,
    pyc,
    python_base,
    torch_layer,
)
from wattbench.analysis.__main__ import main
from wattbench.analysis.image import archive, checks
from wattbench.analysis.image.checks import Wants
from wattbench.analysis.image.diff import compare
from wattbench.analysis.image.provenance import Image, describe
from wattbench.analysis.model.finding_codes import IMAGE_CODES, Severity, Verdict
from wattbench.analysis.model.findings import Effect, Finding

FOUND, NOT_FOUND, UNDECIDABLE = Verdict.FOUND, Verdict.NOT_FOUND, Verdict.UNDECIDABLE
MB = 1_000_000


def image(tmp_path: Path, *layers: LayerTar, **settings: Any) -> Image:
    path = docker_save(tmp_path / "image.tar", list(layers), **(PYTHON_START | settings))
    return describe(archive.read(str(path)))


def outcomes(of: Image, code: str, wants: Wants | None = None, **wanted: Any) -> list[Finding]:
    return [f for f in checks.run(of, wants or Wants(**wanted), {}) if f.code == code]


def outcome(of: Image, code: str, **wanted: Any) -> Finding:
    (one,) = outcomes(of, code, **wanted)
    return one


def test_waste_is_found_to_the_byte_and_by_kind(tmp_path: Path) -> None:
    made = image(
        tmp_path,
        python_base()
        .file("var/lib/apt/lists/main", b"l" * (2 * MB))
        .file("var/cache/apt/pkgcache.bin", b"c" * 300),
        LayerTar().file("opt/big", b"b" * (3 * MB)).file("root/.cache/pip/http/x", b"p" * 700),
        LayerTar().delete("opt/big"),
        LayerTar().file("root/.cache/pip/http/x", b"p" * 700),
    )
    assert (made.waste.hidden, made.waste.left_behind) == (3 * MB + 700, 2 * MB + 300 + 700)
    assert {one.kind: one.size for one in made.left_behind} == {
        "apt package lists": 2 * MB,
        "apt archives": 300,
        "pip cache": 700,
    }
    waste = outcome(made, "wasted-bytes")
    assert (waste.verdict, waste.severity) == (FOUND, Severity.WARNING)
    assert waste.evidence["largest"][0] == {
        "path": "/opt/big",
        "bytes": 3 * MB,
        "layer": 2,
        "by_layer": 3,
        "how": "deleted",
    }
    (lists,) = outcomes(made, "package-cache")
    assert (lists.evidence["bytes"], lists.evidence["layers"]) == (2 * MB, [1])
    assert [layer.hidden_bytes for layer in made.layers] == [0, 3 * MB + 700, 0, 0]


@pytest.mark.parametrize(
    ("limits", "severity"),
    [
        ({"max_waste_mb": 4.0}, "error"),
        ({"max_waste_mb": 6.0}, "warning"),
        ({"max_waste_pct": 90.0}, "error"),
        ({"max_waste_pct": 100.0}, "warning"),
    ],
)
def test_a_broken_limit_makes_waste_an_error(
    limits: dict[str, float], severity: str, tmp_path: Path
) -> None:
    made = image(tmp_path, LayerTar().file("x", b"x" * (5 * MB)), LayerTar().delete("x"))
    assert outcome(made, "wasted-bytes", **limits).severity == severity


def test_a_cache_that_shares_its_bytes_with_what_is_used_is_no_waste(tmp_path: Path) -> None:
    base = (
        python_base()
        .file("opt/conda/pkgs/a/lib.so", b"x" * 900)
        .hardlink("opt/conda/lib/lib.so", "opt/conda/pkgs/a/lib.so")
    )
    made = image(tmp_path, base.file("opt/conda/pkgs/b.conda", b"y" * 50))
    assert {one.kind: one.size for one in made.left_behind} == {"conda packages": 50}


def test_bytecode_of_a_python_that_is_not_there_or_of_no_source_is_left_behind(
    tmp_path: Path,
) -> None:
    base = (
        python_base()
        .file("app/m.py", "x=1\n", mtime=5)
        .file("app/__pycache__/m.cpython-311.pyc", pyc(5, 4))
    )
    base.file("app/__pycache__/m.cpython-310.pyc", pyc(5, 4)).file(
        "app/__pycache__/gone.cpython-311.pyc", pyc(5, 4)
    )
    (unused,) = image(tmp_path, base).left_behind
    assert (unused.kind, unused.files, unused.size) == ("unused bytecode", 2, 40)


def modules(state: str) -> LayerTar:
    """Forty modules of 5 kB: with bytecode, without, of another time, or checked by hash."""
    layer = LayerTar()
    for n in range(40):
        root = "usr/lib/python3/dist-packages/pkg"
        layer.file(f"{root}/m{n}.py", b"#" * 5000, mtime=100)
        if state != "missing":
            stamp, flags = {"compiled": (100, 0), "stale": (99, 0), "by hash": (99, 3)}[state]
            layer.file(f"{root}/__pycache__/m{n}.cpython-311.pyc", pyc(stamp, 5000, flags))
    return layer


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("missing", FOUND), ("stale", FOUND), ("compiled", NOT_FOUND), ("by hash", NOT_FOUND)],
)
def test_bytecode_that_is_absent_or_does_not_fit_is_found(
    state: str, verdict: Verdict, tmp_path: Path
) -> None:
    made = image(tmp_path, python_base(), modules(state), Env=["PYTHONDONTWRITEBYTECODE=1"])
    found = outcome(made, "bytecode-missing")
    assert found.verdict == verdict
    if verdict == FOUND:
        key = "missing" if state == "missing" else "stale"
        assert (found.evidence[key], found.evidence[f"{key}_bytes"]) == (40, 200_000)
        assert found.message.endswith("and PYTHONDONTWRITEBYTECODE is set")


def test_bytecode_removed_by_a_later_layer_is_missing(tmp_path: Path) -> None:
    gone = LayerTar().delete("usr/lib/python3/dist-packages/pkg/__pycache__")
    assert (
        outcome(
            image(tmp_path, python_base(), modules("compiled"), gone), "bytecode-missing"
        ).verdict
        == FOUND
    )


@pytest.mark.parametrize(
    ("value", "cores", "verdict"),
    [
        ("16", 2, FOUND),
        ("16", 16, NOT_FOUND),
        ("16", None, UNDECIDABLE),
        ("1", 8, FOUND),
        ("1", None, FOUND),
        ("1", 1, NOT_FOUND),
        ("4,2", 8, NOT_FOUND),
        ("all", 8, FOUND),
        ("0", 8, FOUND),
    ],
)
def test_a_number_of_threads_is_held_against_the_cores(
    value: str, cores: int | None, verdict: Verdict, tmp_path: Path
) -> None:
    made = image(tmp_path, python_base(), Env=[f"OMP_NUM_THREADS={value}"])
    assert outcome(made, "thread-setting", cores=cores).verdict == verdict


def test_settings_that_cost_are_found_with_a_source_of_their_own(tmp_path: Path) -> None:
    env = [
        "OMP_WAIT_POLICY=ACTIVE",
        "CUDA_LAUNCH_BLOCKING=1",
        "ONEDNN_MAX_CPU_ISA=SSE41",
        "PYTHONDEVMODE=",
        "MKL_VERBOSE=0",
        "ATEN_CPU_CAPABILITY=avx512",
    ]
    found = outcomes(image(tmp_path, python_base(), Env=env), "costly-setting")
    assert {f.evidence["variable"] for f in found} == {
        "OMP_WAIT_POLICY",
        "CUDA_LAUNCH_BLOCKING",
        "ONEDNN_MAX_CPU_ISA",
    }
    assert len({f.source for f in found}) == 3


def test_a_cpu_build_fails_a_gpu_job_only(tmp_path: Path) -> None:
    cpu = image(tmp_path, python_base(), torch_layer())
    assert outcome(cpu, "cpu-build-on-gpu", device="cuda").is_found_error
    assert outcome(cpu, "cpu-build-on-gpu", device="cpu").verdict == NOT_FOUND
    assert outcome(cpu, "cpu-build-on-gpu").verdict == UNDECIDABLE
    gpu = image(tmp_path, python_base(), torch_layer(cuda="12.6", library=b"z" * 2000))
    assert outcome(gpu, "cpu-build-on-gpu", device="cuda").verdict == NOT_FOUND
    unused = outcome(gpu, "cuda-unused", device="cpu")
    assert (unused.verdict, unused.evidence["bytes"]) == (FOUND, 2000)


@pytest.mark.parametrize(
    ("gpu", "verdict", "severity"),
    [
        (90, NOT_FOUND, "error"),
        (86, NOT_FOUND, "error"),
        (100, FOUND, "warning"),
        (75, FOUND, "error"),
        (None, UNDECIDABLE, "error"),
    ],
)
def test_a_gpu_is_held_against_the_machine_code_that_is_really_there(
    gpu: int | None, verdict: Verdict, severity: str, tmp_path: Path
) -> None:
    library = b"\x7fELF" + bytes(900) + fatbin([(2, 80, 100), (2, 90, 100), (1, 90, 40)])
    made = image(tmp_path, python_base(), torch_layer(cuda="12.6", library=library))
    found = outcome(made, "gpu-arch", gpu=gpu)
    assert (found.verdict, found.severity) == (verdict, severity)
    assert found.evidence["arch_list"] == ["sm_80", "sm_90", "compute_90"]


def test_gpu_code_that_can_not_be_read_is_undecidable(tmp_path: Path) -> None:
    made = image(tmp_path, python_base(), torch_layer(cuda="12.6", library=b"opaque" * 50))
    assert outcome(made, "gpu-arch", gpu=90).verdict == UNDECIDABLE


def test_debug_builds_of_torch_and_python_are_found(tmp_path: Path) -> None:
    assert outcome(
        image(tmp_path, python_base(), torch_layer(debug=True)), "debug-build"
    ).is_found_error
    pydebug = python_base().file(
        "usr/lib/python3.11/lib-dynload/_x.cpython-311d-x86_64-linux-gnu.so", b"x"
    )
    assert outcome(image(tmp_path, pydebug), "debug-build").verdict == FOUND
    assert (
        outcome(image(tmp_path, python_base(), torch_layer()), "debug-build").verdict == NOT_FOUND
    )


def test_copies_of_torch_and_of_libraries_are_found_with_what_they_cost(tmp_path: Path) -> None:
    one = LayerTar().file("usr/local/cuda/lib64/libcublas.so.12", b"c" * (3 * MB))
    two = (
        LayerTar()
        .file("opt/v/nvidia/cublas/lib/libcublas.so.12", b"c" * (3 * MB))
        .symlink("opt/v/libcublas.so", "nvidia/cublas/lib/libcublas.so.12")
    )
    made = image(
        tmp_path, python_base(), one, two, torch_layer(), torch_layer("opt/other", version="2.7.0")
    )
    twice = outcome(made, "duplicate-libraries")
    assert (twice.evidence["spare_bytes"], twice.evidence["equal"]) == (3 * MB, True)
    copies = outcome(made, "torch-copies")
    assert (copies.verdict, len(copies.evidence["copies"])) == (FOUND, 2)


def test_what_a_container_starts_is_followed_to_its_program(tmp_path: Path) -> None:
    base = python_base()
    assert image(tmp_path, base).inventory.start.program == "/usr/bin/python3.11"
    for settings, verdict in (
        ({"Entrypoint": ["/opt/absent"]}, FOUND),
        ({"Entrypoint": ["bash"]}, FOUND),
        ({"Entrypoint": None}, UNDECIDABLE),
        ({"Entrypoint": ["/entry.sh"], "Cmd": ["python3"]}, UNDECIDABLE),
        ({"Entrypoint": ["/bin/sh", "-c", "exec python3 -m app"]}, FOUND),  # no shell in the image
        ({"Entrypoint": ["/bin/python3.11"]}, NOT_FOUND),
        ({"Entrypoint": ["bin/python3"], "WorkingDir": "/usr"}, NOT_FOUND),
    ):
        made = image(tmp_path, python_base().file("entry.sh", "#!/bin/sh\n"), **settings)
        assert outcome(made, "entry-point").verdict == verdict, settings
    none = image(tmp_path, LayerTar().file("bin/app", elf(62)), Entrypoint=["/bin/app"])
    assert "no Python" in outcome(none, "entry-point").message
    assert outcome(none, "bytecode-missing").verdict == UNDECIDABLE


def test_another_architecture_is_found_by_the_config_and_by_the_programs(tmp_path: Path) -> None:
    arm = image(tmp_path, python_base(183), architecture="arm64")
    assert outcome(arm, "platform-mismatch", platform="linux/amd64").is_found_error
    assert outcome(arm, "platform-mismatch", platform="linux/arm64").verdict == NOT_FOUND
    liar = image(tmp_path, python_base(183), architecture="amd64")
    assert outcome(liar, "platform-mismatch", platform="linux/amd64").evidence == {
        "machines": {"arm64": 1}
    }


def test_provenance_names_system_packages_and_torch(tmp_path: Path) -> None:
    conda = LayerTar().file("opt/conda/conda-meta/numpy-base-2.1.0-py311h_0.json", "{}")
    made = image(
        tmp_path,
        python_base(),
        torch_layer(cuda="12.6", library=fatbin([(2, 90, 8)])),
        conda,
        Labels={"a": "b"},
    )
    assert {(p.manager, p.name, p.version) for p in made.inventory.packages} == {
        ("dpkg", "libc6", "2.36-9"),
        ("pip", "torch", "2.6.0"),
        ("conda", "numpy-base", "2.1.0"),
    }
    assert made.inventory.system["PRETTY_NAME"] == "Testing GNU/Linux 1"
    (torch,) = made.inventory.torches
    assert (torch.version, torch.cuda, torch.debug, torch.mkl) == ("2.6.0", "12.6", False, True)
    document = made.to_dict()
    pulled = {
        "id",
        "digests",
        "tags",
        "created",
        "platform",
        "size_bytes",
        "env",
        "entrypoint",
        "cmd",
        "user",
        "workdir",
        "labels",
        "layer_diff_ids",
        "history",
    }
    assert pulled <= set(document)
    assert document["torch"][0]["cuda_arch_list"] == ["sm_90"]


def test_root_is_a_note_and_fails_only_where_asked(tmp_path: Path) -> None:
    made = image(tmp_path, python_base(), User="0:0")
    assert outcome(made, "runs-as-root").severity == Severity.INFO
    assert outcome(made, "runs-as-root", fail_on=frozenset({"runs-as-root"})).is_found_error
    assert outcome(made, "runs-as-root", fail_on=frozenset({"info"})).is_found_error


def test_every_code_is_checked_and_every_check_has_a_verdict_and_a_source(tmp_path: Path) -> None:
    findings = checks.run(image(tmp_path, python_base()), Wants(), {})
    assert {f.code for f in findings} == set(IMAGE_CODES) == {code for code, _ in checks.CHECKS}
    assert all(f.to_dict()["source"].startswith("https://") for f in findings)


def test_two_images_differ_in_what_was_changed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    a = image(tmp_path, python_base(), torch_layer(), Env=["A=1"])
    b = image(
        tmp_path / "b",
        python_base(),
        torch_layer(version="2.7.0", cuda="12.6", library=b"x" * 500),
        Env=["A=2"],
    )
    rows = {section.title: section.rows for section in compare(a, b).sections}
    assert rows["Packages"] == (("changed", "pip", "torch", "2.6.0", "2.7.0"),)
    assert rows["Environment variables"] == (("A", "1", "2"),)
    assert ("CUDA", "none", "12.6") in rows["PyTorch"]
    assert rows["Layers"][0][0:2] == ("A, B", "1")
    assert compare(a, a).sections == ()


def test_the_command_writes_its_files_and_fails_a_pull_request_by_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {
        f"org.opencontainers.image.{n}": "x" for n in ("base.name", "base.digest", "revision")
    }
    path = docker_save(
        tmp_path / "i.tar",
        [python_base(), LayerTar().file("x", b"x" * (2 * MB)), LayerTar().delete("x")],
        Labels=labels,
        **PYTHON_START,
    )
    out = tmp_path / "out"
    assert main(["image", str(path), "--out", str(out)]) == 0
    assert main(["image", str(path), "--max-waste-mb", "1", "--out", str(out)]) == 1
    assert main(["image", str(path), "--max-size-gb", "0.001"]) == 1
    assert main(["image", str(path), "--fail-on", "wasted-bytes"]) == 1
    capsys.readouterr()
    findings = json.loads((out / "findings.json").read_text())
    assert (findings[0]["code"], findings[0]["severity"], findings[0]["verdict"]) == (
        "wasted-bytes",
        "error",
        "found",
    )
    assert {"code", "verdict", "severity", "subject", "message", "evidence", "action"} <= set(
        findings[0]
    )
    assert json.loads((out / "image.json").read_text())["waste"]["hidden"] == 2 * MB
    with (out / "layers.csv").open() as file:
        assert [int(row["hidden_bytes"]) for row in csv.DictReader(file)] == [0, 2 * MB, 0]
    with (out / "packages.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["libc6"]
    page = (out / "index.html").read_text()
    html5lib.HTMLParser(strict=True).parse(page)
    assert "prefers-color-scheme:dark" in page
    assert "<script src" not in page
    assert "src=" not in page


def test_text_names_what_to_do_and_the_formats_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = docker_save(tmp_path / "i.tar", [python_base(), torch_layer()], **PYTHON_START)
    said = {}
    for form in ("text", "md", "json", "html"):
        assert main(["image", str(path), "--device", "cuda", "--format", form]) == 1
        said[form] = capsys.readouterr().out
        assert "torch 2.6.0 has no CUDA, the job wants cuda" in said[form]
        assert "Install the CUDA build of the framework." in said[form]
    assert json.loads(said["json"])["findings"][0]["code"] == "cpu-build-on-gpu"
    assert main(["image", str(path), "--diff", str(path)]) == 0
    assert "No difference" in capsys.readouterr().out


def test_a_measured_effect_stands_before_the_cited_source_and_modelled_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = docker_save(tmp_path / "i.tar", [python_base(), modules("missing")], **PYTHON_START)
    effect = Effect(
        "bytecode-missing",
        "bytecode: absent → compiled",
        -3.1,
        -3.6,
        -2.6,
        "ablation-x",
        "modelled",
    )
    wider = Effect("bytecode-missing", "other", -9.0, -19.0, 1.0, "y", "measured")
    file = tmp_path / "effects.yaml"
    file.write_text(yaml.safe_dump([vars(wider), vars(effect)], allow_unicode=True))
    assert main(["image", str(path), "--effects", str(file)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "bytecode: absent → compiled: -3.1 % energy [-3.6, -2.6], run ablation-x (modelled, not measured)"
        in said
    )


GOOD_EFFECT: dict[str, Any] = {
    "code": "bytecode-missing",
    "change": "c",
    "energy_pct": 1.0,
    "low_pct": 0.0,
    "high_pct": 2.0,
    "run_id": "r",
    "energy_source": "measured",
}


@pytest.mark.parametrize(
    ("arguments", "effects", "says"),
    [
        (["--gpu-arch", "hopper"], None, "--gpu-arch hopper"),
        (["--cores", "0"], None, "--cores 0"),
        (["--max-waste-mb", "-1"], None, "--max-waste-mb -1"),
        (["--max-size-gb", "nan"], None, "--max-size-gb nan"),
        (["--fail-on", "bytecode"], None, "--fail-on bytecode"),
        (["--platform", "amd64"], None, "--platform amd64"),
        ([], "{", "not YAML"),
        ([], "a: 1", "a list of effects is needed"),
        ([], json.dumps([GOOD_EFFECT | {"energy_pct": 7}]), "outside"),
        ([], json.dumps([GOOD_EFFECT | {"code": "x"}]), "code 'x' is none of"),
        ([], json.dumps([GOOD_EFFECT | {"low_pct": "a"}]), "is not a number"),
        ([], json.dumps([GOOD_EFFECT | {"energy_source": "guessed"}]), "energy_source must be one of"),
        ([], "[1]", "needs exactly the keys"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_arguments_is_one_line_that_names_it(
    arguments: list[str],
    effects: str | None,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = docker_save(tmp_path / "i.tar", [python_base()], **PYTHON_START)
    if effects is not None:
        (tmp_path / "effects").write_text(effects)
        arguments = ["--effects", str(tmp_path / "effects")]
    assert main(["image", str(path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("image: ")
    assert says in line
