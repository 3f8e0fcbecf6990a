"""The pages in Airflow's UI: who gets in, what leaves the store, and what the HTML may do."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import html5lib
import pytest

from tests.support.airflow_process import in_airflow
from wattbench.analysis.model.facts_document import ProblemDocument
from wattbench.analysis.presentation import html
from wattbench.dag_runs import Run
from wattbench.history.quarantine import Standing
from wattbench.progress import HostProgress
from wattbench.report_summary import Effect, answer, trends
from wattbench.run import versions
from wattbench.web import render, rows
from wattbench.web.documents import LevelChangeDocument
from wattbench.web.rows import Checked, Hosts, Known, Scheduled

RUN_ID = "nightly-20260102T010000Z-1a2b3c"
EVIL = '"><script>alert(1)</script>'


PATHS = [
    "../run.json",
    "tables/../../run.json",
    "/etc/passwd",
    "",
    "a//b",
    ".hidden",
    "a\\b",
    "%2e%2e",
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one real Airflow process reports of the application: starting it takes seconds."""
    return in_airflow(
        f"""
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
import json
from wattbench.web import stored
from wattbench.web.app import app
from wattbench.analysis.model.errors import InputError
client = TestClient(app, follow_redirects=False)
for route in app.routes:
    print("route", route.path, isinstance(route, APIRoute) and sorted(route.methods))
    path = route.path.replace("{{run_id}}", "{RUN_ID}").replace("{{path:path}}", "index.html")
    for headers in ({{}}, {{"Authorization": "Basic eDp4"}}, {{"Cookie": "_token="}}):
        answer = client.get(path, params={{"dag_id": "a", "dag_run_id": "b"}}, headers=headers)
        print("asked", path, answer.status_code)
for path in ("/docs", "/redoc", "/openapi.json"):
    print("docs", client.get(path).status_code)
from wattbench.web.app import version
print("version", json.loads(version().body)["code"])
def unreachable():
    raise AssertionError("the store was opened")
stored.open_store = unreachable
for path in {PATHS!r}:
    for folder in ("report", "trends"):
        try:
            stored.file_of({RUN_ID!r}, folder, path)
        except InputError:
            print("refused", folder, repr(path))
""",
        tmp_path_factory.mktemp("airflow"),
    )


def test_no_route_answers_without_a_login_whatever_the_credentials(said: str) -> None:
    routes = re.findall(r"^route (\S+) (.*)$", said, re.MULTILINE)
    assert {methods for _, methods in routes} == {"['GET']"}
    asked = re.findall(r"^asked (\S+) (\d+)$", said, re.MULTILINE)
    assert len(asked) == 3 * len(routes) >= 36
    assert {status for _, status in asked} == {"401"}
    assert not any("{" in path for path, _ in asked)
    assert re.findall(r"^docs (\d+)$", said, re.MULTILINE) == ["404"] * 3


def test_the_pages_say_which_wattbench_serves_them(said: str) -> None:
    assert f"version {versions.code()}\n" in said


@pytest.mark.parametrize("path", PATHS)
def test_a_report_s_path_is_refused_before_the_store_is_opened(said: str, path: str) -> None:
    assert f"refused report {path!r}\n" in said
    assert f"refused trends {path!r}\n" in said


def test_the_plugin_file_imports_nothing_heavy(tmp_path: Path) -> None:
    said = in_airflow(
        """
import sys
import airflow.plugins_manager
before = set(sys.modules)
import wattbench_plugin as plugin
heavy = {"boto3", "pandas", "fastapi", "jinja2", "paramiko", "matplotlib", "wattbench.web.app"}
print("new", sorted(heavy & (set(sys.modules) - before)))
views = plugin.WattbenchPlugin.external_views
from wattbench.web import plugin as ours
print("icon", ours.ICON_BOLT, ours.ICON_GROUND)
print("views", [v["destination"] for v in views], plugin.WattbenchPlugin.fastapi_apps[0]["url_prefix"])
""",
        tmp_path,
    )
    assert "new []" in said
    assert "views ['nav', 'dag_run'] /wattbench" in said
    # Its icon is a picture on a ground of its own, whatever colour the entry has that is active.
    bolt, ground = (luminance(colour) for colour in re.findall(r"#\w{6}", said))
    assert (bolt + 0.05) / (ground + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# ── what reports say ────────────────────────────────────────────────────────────────────────────


def summary(**changes: Any) -> dict[str, Any]:
    pair = {"a": "slim", "b": "base", "verdict": "less", "reason": None,
            "individual": {"estimate_pct": -4.2}, "simultaneous": {"lower_pct": -5.0, "upper_pct": -3.4}}  # fmt: skip
    other = pair | {"a": "slim", "b": "third"}
    return {
        "headline": "slim uses least", "decided": True, "modelled": False, "reference": "base",
        "images": ["base", "slim"], "hosts": ["gpu-a"], "planned": 12,
        "trials": {"valid": 9, "skipped": 2, "failed": 1},
        "findings": {"error": 1, "warning": 2, "info": 0},
        "conclusion": {"hosts": [{"host": "gpu-a", "pairs": [pair, other]}]},
    } | changes  # fmt: skip


def test_a_summary_is_read_against_the_reference_only() -> None:
    one = answer(summary())
    assert (one.valid, one.wanted, one.errors, one.warnings) == (9, 10, 1, 2)
    assert one.effects == (Effect("gpu-a", "slim", "less", -4.2, -5.0, -3.4, ""),)


def test_an_effect_that_can_not_be_estimated_stays_without_a_number() -> None:
    pair = {"a": "slim", "b": "base", "verdict": "undecided", "reason": "too few blocks",
            "individual": None, "simultaneous": None}  # fmt: skip
    one = answer(summary(conclusion={"hosts": [{"host": "gpu-a", "pairs": [pair]}]}))
    assert one.effects[0].estimate_pct is None
    assert trends([("r", one)]) == {}


def test_trends_go_from_the_oldest_run_to_the_newest() -> None:
    points = trends([("old", answer(summary())), ("new", answer(summary()))])[("gpu-a", "slim")]
    assert [p.run_id for p in points] == ["old", "new"]


def test_a_sparkline_holds_zero_and_puts_more_energy_higher() -> None:
    drawn = render.sparkline([-10, 0, 10])
    assert [d["y"] for d in drawn] == [20.0, 12.0, 4.0]
    assert [d["x"] for d in drawn] == [4.0, 60.0, 116.0]
    assert {d["zero"] for d in drawn} == {12.0}
    calm = render.sparkline([-0.3, 0.3], reach=3)
    assert all(abs(d["y"] - 12.0) <= 1 for d in calm)


# ── the HTML ────────────────────────────────────────────────────────────────────────────────────


DUE = datetime(2026, 1, 2, 1, tzinfo=UTC)


def known(state: str = "success", experiment: str = "nightly") -> Known:
    ended = None if state in ("queued", "running") else DUE
    return Known(Run(experiment, "scheduled__2026-01-02T01:00:00+00:00", DUE, state), DUE, ended, 7)


def listed(*lines: rows.RunLine, trouble: str = "") -> rows.RunList:
    return rows.RunList(lines, None, trouble)


def going(*progress: HostProgress) -> rows.RunLine:
    return rows.RunLine(known("running"), None, progress)


def quarantined(reason: str) -> rows.HostLine:
    """A host as the page gets it."""
    standing = Standing(True, reason, (("night-1", 100.0), ("night-2", 104.0)))
    problem: ProblemDocument = {
        "code": "governor", "severity": "soft", "message": reason, "action": reason
    }  # fmt: skip
    return rows.HostLine(
        reason, "powercap", standing, document={"problems": [problem]}, doing=reason
    )


def all_hosts(*lines: rows.HostLine, **unknown: list[str]) -> Hosts:
    return Hosts(lines, unknown)


def test_a_host_in_quarantine_says_why_and_what_it_still_measures() -> None:
    text, _ = render.page("hosts", "/w", hosts=all_hosts(quarantined("it scatters")))
    assert "in quarantine" in text
    assert "It scatters." in text
    assert "2 runs, the last one +2.0\u202f% off their median" in text


def test_names_from_outside_are_text_in_every_page() -> None:
    one = answer(summary(headline=EVIL, hosts=[EVIL], images=["base", EVIL]))
    line = going(HostProgress(EVIL, EVIL, EVIL, done=1, total=2, failed=1, why=EVIL))
    over = rows.RunLine(known("failed"), one)
    change: LevelChangeDocument = {
        "host": EVIL, "image": EVIL, "of": "ratio", "baseline": EVIL, "first_night": EVIL,
        "earliest": EVIL, "latest": EVIL, "change_pct": 2.0, "lower_pct": None, "upper_pct": None,
        "nights_before": 5, "nights_after": 2, "confirmed": False, "regression": True,
    }  # fmt: skip
    trend = rows.Trend(EVIL, RUN_ID, 7, rows.trend_lines({}, [change]), {"headline": EVIL})
    experiments = (
        rows.ExperimentLine(Scheduled(EVIL, EVIL, EVIL, EVIL), line, over, trouble=EVIL),
        rows.ExperimentLine(Scheduled(EVIL, refusal=EVIL)),
    )
    attention = rows.attention(experiments, [quarantined(EVIL)], DUE)
    overview = rows.Overview(attention, experiments, EVIL)
    pages = [
        render.page("overview", "/w", overview=overview, now=DUE),
        render.page("experiments", "/w", lines=experiments),
        render.page("trends", "/w", trends=[trend]),
        render.page("runs", "/w", runs=listed(over, line, trouble=EVIL), first=True),
        render.page("run", "/w", known=line.known, run_id=RUN_ID, answer=None, progress=line.progress),
        render.page("compare", "/w", comparisons=[rows.Comparison(EVIL, RUN_ID, one, {})]),
        render.page("hosts", "/w", hosts=all_hosts(quarantined(EVIL), **{EVIL: [EVIL]})),
        render.page("trouble", "/w", message=EVIL),
    ]  # fmt: skip
    for text, _ in pages:
        assert "<script>alert" not in text
        assert "alert(1)" in text  # shown, as text


def test_a_page_asks_for_nothing_that_its_policy_refuses() -> None:
    text, policy = render.page(
        "runs", "/w", runs=listed(rows.RunLine(known(), answer(summary()))), first=True
    )
    nonce = re.search(r"style-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert set(re.findall(r'<(?:style|script) nonce="([^"]+)"', text)) == {nonce[1]}
    assert len(re.findall(r"<(?:style|script)\b", text)) == 3
    assert not re.search(r"\son\w+=|\sstyle=|https?://(?!www\.w3\.org)", text)
    assert "unsafe" not in policy
    assert render.page("trouble", "/w", message="")[1] != policy  # a nonce of its own


def test_the_report_may_run_its_own_script_alone_and_load_nothing_from_elsewhere() -> None:
    script = html.script().encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in render.REPORT_POLICY
    assert "unsafe-inline" not in render.REPORT_POLICY.partition("script-src")[2]
    assert render.REPORT_POLICY.startswith("default-src 'none'")
    assert "http" not in render.REPORT_POLICY


def test_pages_are_well_formed() -> None:
    line = going(HostProgress("a", "trial 2 of 4: x", "resting", 1, 4, 90.0))
    parser = html5lib.HTMLParser(strict=True)
    for text, _ in (
        render.page("runs", "/w", runs=listed(line), first=True),
        render.page("run", "/w", known=line.known, run_id=RUN_ID, answer=None, progress=line.progress),
        render.page("progress", "/w", known=line.known, progress=line.progress),
        render.page("hosts", "/w", hosts=all_hosts()),
        render.page("hosts", "/w", hosts=all_hosts(quarantined("it scatters"))),
        render.page("compare", "/w", comparisons=[]),
        render.page("trends", "/w", trends=[]),
        render.page("experiments", "/w", lines=()),
        render.page("overview", "/w", overview=rows.Overview((), ()), now=DUE),
    ):  # fmt: skip
        parser.parse(text)


def test_a_running_run_says_trial_k_of_n_and_time_left() -> None:
    line = going(HostProgress("a", "trial 2 of 4: x", "", 1, 4, 90.0))
    text, _ = render.page("runs", "/w", runs=listed(line), first=True)
    assert "trial 2 of 4: x" in text
    assert "about 1 min 30 s left" in text
    assert 'width="25.0"' in text


def test_a_running_run_says_how_many_trials_are_not_valid_and_why() -> None:
    line = going(
        HostProgress("a", "trial 8 of 14: x", done=7, total=14, failed=7, why="ran on cpu")
    )
    for name, values in (
        ("runs", {"runs": listed(line), "first": True}),
        ("run", {"known": line.known, "run_id": RUN_ID, "answer": None, "progress": line.progress}),
    ):
        text, _ = render.page(name, "/w", **values)
        assert "not valid" in text
        assert "ran on cpu" in text
        assert 'class="lost" width="50.0"' in text


def test_a_run_is_listed_with_airflow_s_own_name_of_it() -> None:
    text, _ = render.page("runs", "/base/wattbench", runs=listed(rows.RunLine(known())), first=True)
    assert ">scheduled__2026-01-02T01:00:00+00:00</a>" in text
    link = "/base/dags/nightly/runs/scheduled__2026-01-02T01%3A00%3A00%2B00%3A00"
    assert f'href="{link}" target="_top"' in text


def test_the_page_of_runs_asks_for_the_filter_that_is_chosen() -> None:
    chosen = rows.Filter(experiment="nightly", state="failed")
    choices = {"experiment": ["nightly"], "state": rows.STATES, "host": ["a"]}
    text, policy = render.page(
        "runs", "/w", runs=rows.RunList((), 12, chosen=chosen, choices=choices), first=True
    )
    assert text.count("<option selected>") == 2
    assert 'href="/w/runs?experiment=nightly&amp;state=failed&amp;before=12"' in text
    assert "form-action 'self'" in policy


# ── what needs a person ─────────────────────────────────────────────────────────────────────────


def host(passed: bool | None, **document: Any) -> rows.HostLine:
    checked = None if passed is None else Checked(known(), passed)
    quiet = Standing(False, "steady", ())
    return rows.HostLine("lab-a", "powercap", quiet, checked, document)  # type: ignore[arg-type]


HARD = {"code": "disk", "severity": "hard", "message": "the disk is full", "action": "free it"}
SOFT = {"code": "governor", "severity": "soft", "message": "powersave", "action": ""}


@pytest.mark.parametrize(
    ("line", "word", "refusal"),
    [
        (host(None), "never checked", ""),
        (host(True), "fine", ""),
        (host(True, problems=[SOFT]), "fit, with problems", ""),
        (host(False, problems=[HARD], reason="not fit: the disk is full"), "refused", ""),
        (host(False, reason="no route to host"), "refused", "no route to host"),
        (host(False), "refused", "the log of the task lab-a.check says why"),
    ],
)
def test_a_host_s_word_agrees_with_its_last_check_and_says_why(
    line: rows.HostLine, word: str, refusal: str
) -> None:
    assert (line.word, line.refusal) == (word, refusal)
    text, _ = render.page("hosts", "/w", hosts=all_hosts(line))
    assert (">never checked<" in text) == ("<dt>checked</dt>" not in text)
    for reason in (refusal, *(p["message"] for p in line.problems)):
        assert reason in text


def test_what_can_not_be_read_is_said_once_for_all_hosts_and_folded() -> None:
    text, _ = render.page("hosts", "/w", hosts=all_hosts(no_turbo=["lab-a", "lab-b"]))
    assert text.count("no_turbo") == 1
    assert "(lab-a, lab-b)" in text.partition("<details")[2]


def words(*lines: rows.ExperimentLine, hosts: tuple[rows.HostLine, ...] = ()) -> list[str]:
    now = DUE + timedelta(hours=8)
    return [one.word for one in rows.attention(lines, hosts, now)]


def test_a_quiet_morning_needs_no_action() -> None:
    later = DUE + timedelta(days=1)
    line = rows.ExperimentLine(
        Scheduled("nightly", next_due=later), None, rows.RunLine(known(), answer(summary()))
    )
    assert words(line, hosts=(host(True), host(None))) == []


def test_the_most_urgent_comes_first() -> None:
    bad = HostProgress("lab-a", "trial 8 of 14", done=7, total=14, failed=7)
    lines = (
        rows.ExperimentLine(Scheduled("a"), news={"regressions": {"lab-a/x": "x rose"}}),
        rows.ExperimentLine(Scheduled("b"), last=rows.RunLine(known("failed"), answer(summary()))),
        rows.ExperimentLine(Scheduled("c", refusal="line 3: no")),
        rows.ExperimentLine(Scheduled("d"), going=going(bad)),
        rows.ExperimentLine(Scheduled("e", next_due=DUE)),
    )
    found = words(*lines, hosts=(quarantined("it scatters"),))
    assert found == ["invalid", "refused", "failed", "overdue", "regression", "quarantine"]


@pytest.mark.parametrize(
    "line",
    [
        rows.ExperimentLine(Scheduled("a", next_due=DUE, paused=True)),
        rows.ExperimentLine(Scheduled("a", next_due=DUE, gone=True)),
        rows.ExperimentLine(Scheduled("a", next_due=DUE), going=going()),
        rows.ExperimentLine(Scheduled("a", next_due=DUE + timedelta(hours=7, minutes=30))),
    ],
    ids=["paused", "gone", "still running", "due just now"],
)
def test_a_schedule_that_has_a_reason_to_wait_is_not_overdue(line: rows.ExperimentLine) -> None:
    assert words(line) == []


def test_a_refused_host_is_reported_once() -> None:
    at = HostProgress("lab-a", "stopped before its first trial", stopped=True)
    line = rows.ExperimentLine(Scheduled("a"), going=going(at))
    assert words(line) == ["stopped"]
    assert words(line, hosts=(host(False, reason="no route"),)) == ["refused"]


def test_the_same_error_of_many_trials_is_one_reason() -> None:
    found = [
        {"code": "trial-missing", "verdict": "found", "severity": "error", "message": "stopped",
         "subject": f"trial lab-a/00{n}-x/None"} for n in (5, 6, 7)
    ]  # fmt: skip
    other = found[0] | {"severity": "warning", "message": "drift"}
    assert rows.lacks_of([*found, other]) == ("lab-a/005-x and 2 more: stopped",)  # type: ignore[list-item]
