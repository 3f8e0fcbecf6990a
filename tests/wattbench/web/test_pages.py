"""The pages in Airflow's UI: who gets in, what leaves the store, and what the HTML may do."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import html5lib
import pytest

from tests.support.airflow_process import in_airflow
from wattbench.analysis.presentation import html
from wattbench.dag_runs import Run
from wattbench.history.quarantine import Standing
from wattbench.progress import HostProgress
from wattbench.report_summary import Answer, Effect, answer, trends
from wattbench.run import versions
from wattbench.web import render

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
    """What one real Airflow process tells of the application: starting it takes seconds."""
    return in_airflow(
        f"""
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from wattbench.web import pages
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
print("version", version()["code"])
def unreachable():
    raise AssertionError("the store was opened")
pages.open_store = unreachable
for path in {PATHS!r}:
    try:
        pages.report_file({RUN_ID!r}, path)
    except InputError:
        print("refused", repr(path))
""",
        tmp_path_factory.mktemp("airflow"),
    )


def test_no_route_answers_without_a_login_whatever_the_credentials(said: str) -> None:
    routes = re.findall(r"^route (\S+) (.*)$", said, re.MULTILINE)
    assert {methods for _, methods in routes} == {"['GET']"}
    asked = re.findall(r"^asked (\S+) (\d+)$", said, re.MULTILINE)
    assert len(asked) == 3 * len(routes) >= 21
    assert {status for _, status in asked} == {"401"}
    assert not any("{" in path for path, _ in asked)
    assert re.findall(r"^docs (\d+)$", said, re.MULTILINE) == ["404"] * 3


def test_the_pages_say_which_wattbench_serves_them(said: str) -> None:
    assert f"version {versions.code()}\n" in said


@pytest.mark.parametrize("path", PATHS)
def test_a_report_s_path_is_refused_before_the_store_is_opened(said: str, path: str) -> None:
    assert f"refused {path!r}\n" in said


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
print("views", [v["destination"] for v in views], plugin.WattbenchPlugin.fastapi_apps[0]["url_prefix"])
""",
        tmp_path,
    )
    assert "new []" in said
    assert "views ['nav', 'dag_run'] /wattbench" in said


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


class Line:
    """A run in the list, as the template reads it."""

    def __init__(self, one: Answer | None, progress: tuple[HostProgress, ...], state: str) -> None:
        due = datetime(2026, 1, 2, 1, tzinfo=UTC)
        run = Run("nightly", "m", due, state)
        self.known = type("Known", (), {"run": run, "started": due, "ended": None})()
        self.answer, self.progress, self.run_id = one, progress, RUN_ID


def listed(*lines: Line, trouble: str = "") -> Any:
    return type("Runs", (), {"lines": lines, "older": None, "trouble": trouble})()


def quarantined(reason: str) -> Any:
    """A host as the page gets it."""
    standing = Standing(True, reason, (("night-1", 100.0), ("night-2", 104.0)))
    fields = {
        "name": reason, "meter": "powercap", "standing": standing, "doing": reason, "facts": {},
        "problems": ({"severity": "soft", "message": reason, "action": reason},),
        "findings": (), "checked": None, "word": "soft",
    }  # fmt: skip
    return type("Host", (), fields)()


def test_a_host_in_quarantine_says_why_and_what_it_still_measures() -> None:
    text, _ = render.page("hosts", "/w", hosts=[quarantined("it scatters")])
    assert "in quarantine" in text
    assert "It scatters." in text
    assert "2 runs, the last one +2.0\u202f% off their median" in text


def test_names_from_outside_are_text_in_every_page() -> None:
    one = answer(summary(headline=EVIL, hosts=[EVIL], images=["base", EVIL]))
    progress = (HostProgress(EVIL, EVIL, EVIL, done=1, total=2),)
    line = Line(one, progress, "running")
    comparison = type(
        "C", (), {"experiment": EVIL, "run_id": RUN_ID, "answer": one, "trends": {}}
    )()
    pages = [
        render.page("runs", "/w", runs=listed(Line(one, (), "success"), line, trouble=EVIL), first=True),
        render.page("run", "/w", known=line.known, run_id=RUN_ID, answer=None, progress=progress),
        render.page("compare", "/w", comparisons=[comparison]),
        render.page("hosts", "/w", hosts=[quarantined(EVIL)]),
        render.page("trouble", "/w", message=EVIL),
    ]  # fmt: skip
    for text, _ in pages:
        assert "<script>alert" not in text
        assert "alert(1)" in text  # shown, as text


def test_a_page_asks_for_nothing_that_its_policy_refuses() -> None:
    text, policy = render.page(
        "runs", "/w", runs=listed(Line(answer(summary()), (), "success")), first=True
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
    line = Line(None, (HostProgress("a", "trial 2 of 4: x", "resting", 1, 4, 90.0),), "running")
    parser = html5lib.HTMLParser(strict=True)
    for text, _ in (
        render.page("runs", "/w", runs=listed(line), first=True),
        render.page("run", "/w", known=line.known, run_id=RUN_ID, answer=None, progress=line.progress),
        render.page("progress", "/w", known=line.known, progress=line.progress),
        render.page("hosts", "/w", hosts=[]),
        render.page("hosts", "/w", hosts=[quarantined("it scatters")]),
        render.page("compare", "/w", comparisons=[]),
    ):  # fmt: skip
        parser.parse(text)


def test_a_running_run_says_trial_k_of_n_and_time_left() -> None:
    line = Line(None, (HostProgress("a", "trial 2 of 4: x", "", 1, 4, 90.0),), "running")
    text, _ = render.page("runs", "/w", runs=listed(line), first=True)
    assert "trial 2 of 4: x" in text
    assert "about 1 min 30 s left" in text
    assert 'width="25.0"' in text
