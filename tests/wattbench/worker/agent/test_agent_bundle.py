"""The agent as it is shipped: its modules, its bytes, what each verb loads, meters from elsewhere."""

from __future__ import annotations

import ast
import importlib
import json
import logging
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.live_chain import Here, Shelf
from tests.support.shipped import written
from wattbench.steps.trial import bring
from wattbench.worker import agent_bundle
from wattbench.worker.agent import limits, meters

PACKAGE = "wattbench.worker.agent"
ROOT = Path(limits.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imported(nodes: list[ast.stmt]) -> set[str]:
    """Modules that statements import, those below `if TYPE_CHECKING` left out."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            modules = {name_of(path) for path in ROOT.rglob("*.py")}
            inner = {f"{base}.{alias.name}" for alias in node.names} & modules
            found |= inner or {base}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        else:
            children = [c for c in ast.walk(node) if isinstance(c, ast.Import | ast.ImportFrom)]
            found |= imported(children)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_module_is_python_3_9_and_needs_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    others = {name for name in imported(tree.body) if not name.startswith(PACKAGE)}
    assert {name.split(".")[0] for name in others} <= set(sys.stdlib_module_names)
    # zip(strict=…) is of 3.10
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "strict"]


def test_modules_import_each_other_without_a_circle() -> None:
    def at_import(path: Path) -> set[str]:
        top = [
            n
            for n in ast.parse(path.read_text()).body
            if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        return {name for name in imported(top) if name.startswith(PACKAGE)}  # type: ignore[arg-type]

    graph = {name_of(path): at_import(path) for path in ROOT.rglob("*.py")}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_same_sources_give_the_same_bytes_and_others_do_not() -> None:
    first, again = agent_bundle.build({}), agent_bundle.build({})
    assert first == again
    assert agent_bundle.build({"toy": "METERS = ()\n"}).sha256 != first.sha256


def test_bundle_holds_every_module_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(agent_bundle.build({}), tmp_path)) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    outside = {"__main__.py", "wattbench/__init__.py", "wattbench/worker/__init__.py"}
    package = {f"wattbench/worker/agent/{path.relative_to(ROOT)}" for path in ROOT.rglob("*.py")}
    assert set(names) == outside | package


BASE = {"base", "cli", "limits"}
PLAIN = BASE | {"documents", "spool", "settle"}


@pytest.mark.parametrize(
    ("verb", "modules"),
    [
        ("clock", BASE),
        ("status", PLAIN | {"status"}),
        ("list", PLAIN | {"started"}),
        ("lease", PLAIN | {"lease"}),
        ("warm", PLAIN | {"lease", "processes", "quiet", "burner", "levels", "sysfs", "meters", "meters.extra",
                          "meters.command", "meters.rapl", "meters.hwmon", "meters.nvml"}),
    ],
)  # fmt: skip
def test_verb_loads_no_more_than_it_needs(
    tmp_path: Path, program: Path, verb: str, modules: set[str]
) -> None:
    """Python compiles what a zip holds at each call: an import too many is CPU time of the host."""
    script = (
        f"import sys; sys.path.insert(0, {str(program)!r})\n"
        f"from {PACKAGE}.cli import main; main([{verb!r}])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", script],
        input=json.dumps({"spool": str(tmp_path / "spool"), "sample_s": 0}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert {m.removeprefix(f"{PACKAGE}.") for m in loaded if m.startswith(f"{PACKAGE}.")} == modules
    if verb != "warm":
        assert not loaded & {"subprocess", "ctypes", "typing", "tempfile", "shutil", "threading"}


TOY = """
    import time

    from wattbench.worker.agent.meters import Meter


    class Toy(Meter):
        kind = "toy"
        files = ("toy.csv",)

        def columns(self):
            return ["toy_j"]

        def row(self):
            return [42 * time.monotonic()]

        def counters(self):
            return {"toy_j": 42 * time.monotonic()}


    METERS = (Toy,)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs a distribution of one module that offers a meter by its entry point."""
    folder = tmp_path / "site"
    made: list[str] = []

    def make(name: str, source: str) -> None:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{agent_bundle.GROUP}]\n{name} = other_s_{name}\n")
        (folder / f"other_s_{name}.py").write_text(textwrap.dedent(source))
        made.append(f"other_s_{name}")
        importlib.invalidate_caches()

    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for cache in (agent_bundle.bundle, agent_bundle.foreign_meters):
        cache.cache_clear()
    yield make
    for module in made:
        sys.modules.pop(module, None)
    for cache in (agent_bundle.bundle, agent_bundle.foreign_meters):
        cache.cache_clear()


@pytest.mark.slow
def test_a_meter_in_one_file_of_another_distribution_measures_attempts(
    install: Any, agent: Any, tmp_path: Path
) -> None:
    install("toy", TOY)
    assert "toy.csv" in agent_bundle.raw_files()
    agent.program = written(agent_bundle.bundle(), tmp_path)
    agent.take()
    spec = agent.sh("true", meter={"kind": "toy", "interval_ms": 20})
    report = agent.run(spec)
    assert report["state"] == "done"
    assert "toy.csv" in report["files"]
    lines = (agent.attempt_folder(spec) / "toy.csv").read_text().splitlines()
    assert lines[0] == "unix_s,mono_s,toy_j"
    mono_s, joules = map(float, lines[-1].split(",")[1:])
    assert joules == pytest.approx(42 * mono_s, rel=1e-3)
    window = report["command"]
    assert window["ended"]["toy_j"] > window["started"]["toy_j"]
    store: Any = Shelf()
    brought = bring(
        SimpleNamespace(store=store), Here(tmp_path / "other"), report,
        str(agent.attempt_folder(spec)), "runs/run-1/001",
    )  # type: ignore[arg-type]  # fmt: skip
    assert brought["toy.csv"].splitlines() == [line.encode() for line in lines]
    assert store.kept["runs/run-1/001/toy.csv.gz"] == brought["toy.csv"]
    facts = agent.call("facts", {"meter": {"kind": "toy"}, "sample_s": 0, "docker": False})
    assert (facts["meter"]["ok"], facts["meter"]["columns"]) == (True, ["toy_j"])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("match 1:\n    case _: METERS = ()", "SyntaxError"),  # not Python 3.9
        ("METERS = (object,)", "is not a Meter"),
        (TOY.replace('"toy"', '"nvml"'), "meter kind 'nvml' is known already"),
    ],
)  # fmt: skip
def test_a_meter_that_can_t_be_used_is_one_warning_that_names_it(
    install: Any, caplog: pytest.LogCaptureFixture, source: str, why: str
) -> None:
    install("broken", source)
    with caplog.at_level(logging.WARNING):
        content = agent_bundle.bundle().content
    assert content == agent_bundle.build({}).content
    [record] = caplog.records
    assert record.getMessage().startswith("meter broken = other_s_broken is left out: ")
    assert why in record.getMessage()


def test_every_builtin_meter_names_its_kind_and_its_files() -> None:
    assert set(meters.kinds()) == {"energibridge", "modelled", "powercap", "hwmon", "nvml"}
    assert meters.raw_files() == ["energibridge.csv", "powercap.csv", "hwmon.csv", "nvml.csv"]
