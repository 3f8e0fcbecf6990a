"""A report's answer for other programs: JUnit XML for a CI, a badge, Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support import simulated_run as simulated
from wattbench.analysis import report
from wattbench.analysis.__main__ import main
from wattbench.analysis.commands.report import FORMATS
from wattbench.analysis.storage.source import open_source
from wattbench.cli.command_line import main as wattbench_main

SVG = "{http://www.w3.org/2000/svg}"

#: What the schema of Jenkins' xUnit plugin (junit-10.xsd) takes, of the elements that are written:
#: required attributes, further ones, and children.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": (
        {"name"}, {"time", "classname", "group"},
        {"skipped", "errors", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}  # fmt: skip


def misfits(element: ET.Element) -> list[str]:
    """What an element and those in it have that the schema does not take."""
    required, further, children = SCHEMA[element.tag]
    given = set(element.attrib)
    wrong = [f"{element.tag}: no {name}" for name in required - given]
    wrong += [f"{element.tag}: {name}" for name in given - required - further]
    wrong += [f"{element.tag}: <{c.tag}>" for c in element if c.tag not in children]
    return wrong + [w for c in element if c.tag in children for w in misfits(c)]


def made(folder: Path, **changes: object) -> Path:
    design = simulated.small(**{"steady_s": 2.0, "idle_every": None} | changes)
    return written(simulated.write(folder, design), folder / "out")


def written(run: Path, out: Path) -> Path:
    """The files of a report that need no drawing."""
    report.write_data(report.study(open_source(run)), out)
    return out


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("decided"), blocks=8)


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undecided")
    return made(folder, hosts={"lab-a": simulated.HOSTS["lab-a"]}, blocks=1, failing={})


@pytest.fixture(scope="module")
def nothing_valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of modelled joules without a valid trial."""
    design = simulated.small(blocks=1, idle_every=None)
    lost = tuple(
        (host, trial["planned_position"])
        for host in design.hosts
        for trial in simulated._plan(design, host)
    )
    folder = tmp_path_factory.mktemp("nothing")
    return made(folder, blocks=1, lost=lost, failing={}, kind="modelled")


def cases(out: Path, suite: str) -> dict[str, str]:
    """Name of a test → failure, skipped or system-out."""
    root = ET.parse(out / "junit.xml").getroot()
    return {
        case.get("name", ""): case[0].tag
        for case in root.findall(f"testsuite[@name='{suite}']/testcase")
    }


@pytest.mark.parametrize("run", ["decided", "undecided", "nothing_valid"])
def test_the_xml_is_what_jenkins_schema_takes_and_its_counts_are_those_of_its_cases(
    run: str, request: pytest.FixtureRequest
) -> None:
    root = ET.parse(request.getfixturevalue(run) / "junit.xml").getroot()
    assert root.tag == "testsuites"
    assert misfits(root) == []
    for counted in (root, *root):
        found = list(counted.iter("testcase"))
        assert int(counted.attrib["tests"]) == len(found)
        failed = [case for case in found if case.find("failure") is not None]
        assert int(counted.attrib["failures"]) == len(failed)
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(names) == len(set(names)) > 10


def test_an_image_that_was_shown_to_need_more_than_the_reference_fails(decided: Path) -> None:
    rows = json.loads((decided / "summary.json").read_text())["conclusion"]["ranking"]
    pairs = {row["image"]: row["pair"] for row in rows if not row["is_reference"]}
    assert {pair["verdict"] for pair in pairs.values()} == {"more"}
    assert cases(decided, "energy") == {"verdict": "system-out"} | dict.fromkeys(pairs, "failure")
    for case in ET.parse(decided / "junit.xml").getroot().iterfind(".//failure/.."):
        estimate = pairs[case.attrib["name"]]["individual"]["estimate_pct"]
        assert f"+{estimate:.1f}" in case.findtext("failure", "")


def test_an_image_that_needs_less_than_the_reference_passes(tmp_path: Path) -> None:
    images = {name: simulated.IMAGES[name] for name in ("nvcr", "pytorch")}
    out = made(tmp_path, images=images, blocks=8)
    assert cases(out, "energy") == {"verdict": "system-out", "pytorch": "system-out"}


def test_an_undecided_comparison_is_skipped_and_never_passes(undecided: Path) -> None:
    found = cases(undecided, "energy")
    assert found.pop("verdict") == "system-out"
    assert set(found.values()) == {"skipped"}


def test_a_run_without_a_verdict_does_not_look_green(nothing_valid: Path) -> None:
    found = cases(nothing_valid, "energy")
    assert found.pop("verdict") == "failure"
    assert set(found.values()) == {"skipped"}


@pytest.mark.parametrize("run", ["decided", "undecided", "nothing_valid"])
def test_checks_fail_where_the_exit_code_does(run: str, request: pytest.FixtureRequest) -> None:
    out = request.getfixturevalue(run)
    findings = json.loads((out / "findings.json").read_text())
    errors = {f["code"] for f in findings if f["verdict"] == "found" and f["severity"] == "error"}
    found = cases(out, "checks")
    assert {code for code, outcome in found.items() if outcome == "failure"} == errors
    assert set(found) == {f["code"] for f in findings}
    skipped = {code for code, outcome in found.items() if outcome == "skipped"}
    assert skipped <= {f["code"] for f in findings if f["verdict"] == "undecidable"}


@pytest.mark.parametrize("run", ["decided", "undecided", "nothing_valid"])
def test_the_badge_is_one_image_that_loads_nothing_and_says_the_verdict(
    run: str, request: pytest.FixtureRequest
) -> None:
    out = request.getfixturevalue(run)
    text = (out / "badge.svg").read_text()
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert not re.search(r"href|url\(|@import|<script", text)
    shown = [element.text for element in root.findall(f"{SVG}text")]
    summary = json.loads((out / "summary.json").read_text())
    words = {
        "decided": f"{summary['best']} uses the least energy",
        "undecided": "Undecided",
        "nothing_valid": "No verdict",
    }
    label = "energy, modelled" if summary["modelled"] else "energy"
    assert shown == [label, words[run]]
    assert root.findtext(f"{SVG}title") == " ".join(summary["headline"].split())
    ends = [float(r.get("x", 0)) + float(r.get("width", 0)) for r in root.findall(f"{SVG}rect")]
    assert ends[-1] == float(root.get("width", 0))
    for place in root.findall(f"{SVG}text"):
        assert float(place.get("x", 0)) + float(place.get("textLength", 0)) <= ends[-1]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "html"])
def test_a_form_is_printed_as_it_lies_beside_the_page(
    undecided: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next((undecided.parent / "runs").iterdir())
    main(["report", str(run), "--format", name])
    assert capsys.readouterr().out == (undecided / report.SHORT_FORMS[name].file).read_text()


def test_the_command_line_offers_every_form() -> None:
    assert ("html", *report.SHORT_FORMS) == FORMATS


def test_a_form_of_several_runs_is_refused_in_one_line(
    undecided: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wattbench_main(["report", str(undecided.parent / "runs"), "--format", "junit"]) == 2
    assert "--format junit is made from one run" in capsys.readouterr().err


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    design = simulated.small(steady_s=2.0, idle_every=None, blocks=1)
    run = simulated.write(tmp_path, design)
    document = json.loads((run / "run.json").read_text())
    document["run_id"] = "a<b>&\"\x00\x1b\ufffe'"
    (run / "run.json").write_text(json.dumps(document))
    (run / "manifest.json").unlink(missing_ok=True)
    out = written(run, tmp_path / "out")
    root = ET.parse(out / "junit.xml").getroot()
    assert misfits(root) == []
    values = {p.get("value") for p in root.iter("property") if p.get("name") == "run_id"}
    assert values == {"a<b>&\"\\u0000\\u001b\\ufffe'"}
