"""What the documentation says, held against the code: links, commands, settings, finding codes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import images.ablation
import images.build
from demo.cli import main as demo_main
from deploy.cli import main as deploy_main
from wattbench.analysis.__main__ import main as analysis_main
from wattbench.analysis.model.finding_codes import CODES
from wattbench.cli.command_line import main as wattbench_main
from wattbench.config import reference
from wattbench.config.experiment import Experiment, ExperimentFile, Protocol
from wattbench.config.hosts import HostConfig, HostsConfig, MeterConfig
from wattbench.run.plan import make_plan
from wattbench.worker.agent import limits, preparation
from wattbench.worker.attempt_spec import attempt_spec
from wattbench.workloads import kinds, workload_of

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]
WORKFLOWS = sorted((REPO / "docs/ci").glob("*.yml"))

FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(p, id=p.relative_to(REPO).as_posix()) for p in paths]


def prose(page: Path) -> str:
    """The page without its code."""
    return INLINE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


# Links ------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = sum(known == plain or known.startswith(f"{plain}-") for known in found)
        found.add(plain if plain not in found else f"{plain}-{number}")
    return found


@pytest.mark.parametrize("page", named(PAGES))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


# Commands ---------------------------------------------------------------------------------------

Main = Callable[[list[str]], int]
PROGRAMS: dict[str, Main] = {
    "python -m analysis": analysis_main,
    "python -m demo": demo_main,
    "python -m images.ablation": images.ablation.main,
    "python -m deploy": deploy_main,
    "python -m images.build": images.build.main,
    "wattbench": wattbench_main,
}
OURS = re.compile(rf"({'|'.join(map(re.escape, PROGRAMS))}|make|python tests/[\w/]+\.py) +(?=\S)")


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours on a page: the program, and the words after it."""
    text = re.sub(r" \\\n\s*", " ", page.read_text(encoding="utf-8"))
    lines = [line for _, _, code in FENCE.findall(text) for line in code.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    lines += INLINE.findall(text)
    for line in lines:
        plain = re.sub(r"\s#.*", "", line).strip().removeprefix("$ ").removeprefix("- ")
        if found := OURS.match(plain):
            yield found.group(1), plain[found.end() :].replace("[", " ").replace("]", " ").split()


@cache
def help_of(main: Main, *words: str) -> str:
    """What ``--help`` prints; fails where the words are no command."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.raises(SystemExit) as left,
    ):
        main([*words, "--help"])
    assert left.value.code == 0, f"{' '.join(words)}: {out.getvalue()[-300:]}"
    return out.getvalue()


def help_of_command(main: Main, words: list[str]) -> str:
    """The help of the innermost subcommand that the words name; each of them must exist."""
    chosen: list[str] = []
    while "COMMAND" in help_of(main, *chosen).split("\n\n")[0] and len(words) > len(chosen):
        word = words[len(chosen)]
        known = re.findall(r"^    (\w+) ", help_of(main, *chosen), re.MULTILINE)
        assert word in known, f"{word} is none of {', '.join(known)}"
        chosen.append(word)
    return help_of(main, *chosen)


def flags(words: list[str]) -> set[str]:
    return {w.partition("=")[0] for w in words if re.match(r"--[a-z]", w)}


def faults_of(program: str, words: list[str]) -> str | None:
    """What a command line names that isn't there."""
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
        missing = {w for w in words if "=" not in w} - set(targets)
    elif program in PROGRAMS:
        alternatives = " ".join(words).split(" | ")  # `analysis report | audit`
        missing = set()
        for one in alternatives:
            text = help_of_command(PROGRAMS[program], one.split())
            named = re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
            missing |= flags(one.split()) - set(named)
    else:
        source = (REPO / program.removeprefix("python ")).read_text()
        missing = {flag for flag in flags(words) if f'"{flag}"' not in source}
    return f"{program} {' '.join(words)}: {', '.join(missing)}" if missing else None


@pytest.mark.parametrize("page", named([*PAGES, *WORKFLOWS]))
def test_every_command_and_flag_that_is_named_exists(page: Path) -> None:
    assert [fault for line in commands(page) if (fault := faults_of(*line))] == []


def test_the_command_lines_of_the_readme_are_found() -> None:
    found = {program for program, _ in commands(REPO / "README.md")}
    assert {"make", "wattbench"} <= found
    assert faults_of("python -m analysis", ["report", "RUN", "--into", "out"]) is not None
    assert faults_of("make", ["coffee"]) is not None


def test_the_command_lines_of_the_workflow_are_found_whole() -> None:
    found = [words for workflow in WORKFLOWS for _, words in commands(workflow)]
    assert [words[0] for words in found] == ["image", "measure"]
    assert "--fail-on" in found[0]
    assert "--out" in found[1]


# The tests' own index ----------------------------------------------------------------------------


def test_the_index_of_the_tests_names_every_shared_module() -> None:
    named = re.findall(
        r"^\| `(\w+)` \|", (REPO / "tests/README.md").read_text("utf-8"), re.MULTILINE
    )
    there = {path.stem for path in (REPO / "tests/support").glob("[!_]*.py")}
    assert there <= set(named)


# Findings ---------------------------------------------------------------------------------------


def test_the_findings_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert analysis_main(["findings"]) == 0
    page = (REPO / "docs" / "findings.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "wattbench findings > docs/findings.md"


#: Other people's scripts know these: codes may be added, none is renamed.
PROMISED = """
device-mismatch gpu-idle pull-in-window counter-wrap order-not-randomised drift trial-missing trial-failed
sampling-coarse duration-quantised meter-scope meter-silent meter-disagree image-unpinned unequal-work throttled
outlier host-busy clock-skew startup-in-window modelled-energy row-untraceable workload-changed state-changed
sensor-stale memory-pressure container-orphaned
"""


def test_no_promised_code_is_gone() -> None:
    assert set(PROMISED.split()) - set(CODES) == set()


def test_every_finding_stands_there_with_meaning_reason_and_action() -> None:
    page = (REPO / "docs" / "findings.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(CODES)
    for name, code in CODES.items():
        for said in (code.meaning, code.why, code.action, str(code.severity)):
            assert said in sections[name]


# Settings ---------------------------------------------------------------------------------------


def test_the_settings_page_is_what_the_models_say() -> None:
    page = (REPO / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert reference.markdown() == page, (
        "python -m wattbench.config_reference > docs/configuration.md"
    )


def test_the_settings_page_has_limits_defaults_and_meanings() -> None:
    page = reference.markdown()
    rest = page.partition("### protocol.rest\n")[2].partition("\n### ")[0]
    assert "| `min_s` | number ≥ 0, ≤ 604 800 | `60` | Minimum cool-down, seconds. |" in rest
    assert "[protocol.rest.tolerance](#protocolresttolerance)" in rest
    kinds = "`energibridge`, `hwmon`, `modelled`, `nvml`, `powercap`"
    assert f"| `kind` | {kinds} | `energibridge` |" in page


def snippets() -> list[object]:
    return [
        pytest.param(textwrap.dedent(code), id=f"{page.relative_to(REPO).as_posix()}-{number}")
        for page in PAGES
        for number, (_, language, code) in enumerate(FENCE.findall(page.read_text("utf-8")))
        # what a CI reads is none of our files
        if language == "yaml" and not re.search(r"^ *(jobs|script):", code, re.MULTILINE)
    ]


def files_of(experiment: Experiment, image: str) -> dict[str, str]:
    settings = experiment.workload_of(image)
    return dict(workload_of(settings).files(settings))


def starts_of(experiment: Experiment) -> list[dict[str, Any]]:
    """What the agent would be given for each trial of the first block."""
    host = HostConfig.model_validate({"ssh_conn_id": "x", "gpus": ["GPU-0"]})
    plan = make_plan(list(experiment.images), experiment.protocol, experiment.hosts[0], "1")
    return [
        attempt_spec(
            experiment, host, run_id="run-1", host_name="h1", trial=trial, attempt=1, ref="a@sha256:0",
            files=files_of(experiment, trial.image), rest={},
        )
        for trial in plan
        if trial.block == 1
    ]  # fmt: skip


@pytest.mark.parametrize("code", snippets())
def test_yaml_that_is_shown_is_accepted(code: str, tmp_path: Path) -> None:
    # An ellipsis stands for characters of a UUID that are left out.
    data = yaml.safe_load(code.replace("…", "0"))
    # An excerpt is held against the rest of a file that is whole.
    if set(data) <= set(ExperimentFile.model_fields):
        rest = yaml.safe_load((REPO / "config/experiments/paper.yaml").read_text("utf-8"))
        workload = data.get("workload") or {}
        for name in (workload.get("files") or {}).values():
            (tmp_path / name).touch()
        if requests := (workload.get("load") or {}).get("requests"):
            plain = workload["load"].get("api", "http") == "http"
            line = {"path": "/"} if plain else {"messages": [], "prompt": ""}
            (tmp_path / requests).write_text(json.dumps(line))
        experiment = ExperimentFile.model_validate(
            data if "workload" in data else rest | data, context={"folder": tmp_path}
        )
        assert starts_of(experiment.expanded())
        return
    rest = yaml.safe_load((REPO / "config/hosts.example.yaml").read_text("utf-8"))
    HostsConfig.model_validate(data if "hosts" in data else rest | data)


def test_the_preparation_of_a_host_is_what_the_agent_says() -> None:
    page = (REPO / "docs" / "hosts.md").read_text(encoding="utf-8")
    program = "/usr/local/bin/energibridge"
    lines = preparation.script(
        preparation.STEPS, user="bench", spool=limits.DEFAULT_SPOOL, program=program
    )
    assert "\n".join(["```console", "# as root on the host", *lines, "```"]) in page


def test_settings_that_are_named_exist() -> None:
    models: dict[str, type[BaseModel]] = {
        "protocol": Protocol, "meter": MeterConfig,
    }  # fmt: skip
    known = {section: set(model.model_fields) for section, model in models.items()}
    known["workload"] = {key for kind in kinds().values() for key in kind.Settings.model_fields}
    seen = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for section, key in re.findall(
            r"(?<![\w./])(protocol|meter|workload)\.([a-z_]+)\b(?!\()", text
        ):
            if key in {"log", "jsonl", "md", "py", "pyz"}:
                continue  # files
            assert key in known[section], f"{page.name}: {section}.{key}"
            seen += 1
    assert seen > 0


# Paths ------------------------------------------------------------------------------------------

#: Where Linux and our own programs have things on every host; anything else is of a single machine.
EVERYWHERE = ("/usr/local/bin/", "/var/spool/wattbench", "/var/run/docker.sock", "/opt/wattbench/",
              "/dev/", "/etc/", "/proc/", "/sys/", "/bench/", "/opt/venv/bin/python", "/srv/", "/auth/token",
              "/api/v2/")  # fmt: skip


@pytest.mark.parametrize("page", named(PAGES))
def test_no_path_of_a_single_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"(?:^|[\s`\"'(=:])(/[A-Za-z0-9_.*-]+/[^\s`,;)]*)", text, re.MULTILINE)
    assert [path for path in paths if not path.startswith(EVERYWHERE)] == []
    assert not re.search(r"\.\./shared|[A-Z]:\\\\", text)
