"""The pages in the real Airflow of the bed: every route, without and with a login, and in Chromium."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi.routing import APIRoute

from demo.bed import Bed
from tests.support.browser import logged_in
from wattbench.run.run_id import make_run_id
from wattbench.run.store_keys import checked_name

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def token(bed: Bed) -> str:
    login = {"username": bed.airflow.user, "password": bed.airflow.password}
    answer = requests.post(f"{bed.airflow.url}/auth/token", json=login, timeout=30)
    return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def newest(bed: Bed, token: str) -> dict[str, Any]:
    answer = requests.get(
        f"{bed.airflow.url}/api/v2/dags/~/dagRuns",
        params={"order_by": "-run_after", "limit": 50, "state": "success"},
        headers={"Authorization": f"Bearer {token}"}, timeout=30,
    )  # fmt: skip
    runs = [r for r in answer.json()["dag_runs"] if r["dag_id"] != "wattbench-housekeeping"]
    if not runs:
        pytest.skip("there has been no run yet: make demo")
    return runs[0]


def run_id_of(run: dict[str, Any]) -> str:
    from datetime import datetime

    due = datetime.fromisoformat(run["run_after"])
    return make_run_id(run["dag_id"], run["dag_id"], run["dag_run_id"], due)


def paths(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every route of the application, filled in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's own, while it is imported
        from wattbench.web.app import app

    query = {"dag_id": run["dag_id"], "dag_run_id": run["dag_run_id"]}
    for route in app.routes:
        assert isinstance(route, APIRoute)
        path = route.path.replace("{run_id}", checked_name(run_id_of(run)))
        yield path.replace("{path:path}", "index.html"), query


def assert_every_route_asks_who_is_there(airflow: str, token: str, run: dict[str, Any]) -> None:
    for path, query in paths(run):
        url = f"{airflow}/wattbench{path}"
        for headers in ({}, {"Authorization": "Bearer forged.forged.forged"}):
            refused = requests.get(
                url, params=query, headers=headers, timeout=30, allow_redirects=False
            )
            assert refused.status_code in (401, 403), (path, headers)
        allowed = requests.get(url, params=query, cookies={"_token": token}, timeout=60)
        no_report_yet = path.endswith("/index.html") and allowed.status_code == 404
        assert allowed.status_code == 200 or no_report_yet, (path, allowed.status_code)
        if not no_report_yet:
            assert "default-src 'none'" in allowed.headers["Content-Security-Policy"]
            assert allowed.headers["X-Content-Type-Options"] == "nosniff"


def test_every_route_asks_who_is_there(bed: Bed, token: str, newest: dict[str, Any]) -> None:
    assert_every_route_asks_who_is_there(bed.airflow.url, token, newest)


@pytest.mark.parametrize("path", ["..%2frun.json", "%2e%2e/run.json", "..%2f..%2f..%2fx", "a%00b"])
def test_nothing_outside_the_report_is_served(
    bed: Bed, token: str, newest: dict[str, Any], path: str
) -> None:
    request = requests.Request("GET", bed.airflow.url, cookies={"_token": token}).prepare()
    request.url = f"{bed.airflow.url}/wattbench/runs/{run_id_of(newest)}/report/{path}"
    with requests.Session() as session:
        assert session.send(request, timeout=30).status_code == 404


def test_the_navigation_and_each_dag_run_lead_here(bed: Bed, token: str) -> None:
    answer = requests.get(
        f"{bed.airflow.url}/api/v2/plugins",
        headers={"Authorization": f"Bearer {token}"}, timeout=30,
    )  # fmt: skip
    ours = next(p for p in answer.json()["plugins"] if p["name"] == "wattbench")
    assert {v["destination"] for v in ours["external_views"]} == {"nav", "dag_run"}


def open_in_chromium(
    target: str, token: str, folder: Path, theme: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """A page on the address of Airflow, by a browser that is logged in."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")

    with logged_in(target, token) as door:
        return subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,844",
             f"--user-data-dir={folder}", f"--blink-settings=preferredColorScheme={int(theme == 'light')}",
             "--virtual-time-budget=3000", *options, door],
            capture_output=True, text=True, timeout=90, check=True,
        )  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_open_in_chromium_after_a_login(
    bed: Bed, token: str, newest: dict[str, Any], tmp_path: Path, theme: str
) -> None:
    target = f"{bed.airflow.url}/wattbench/runs/{run_id_of(newest)}"
    done = open_in_chromium(target, token, tmp_path, theme, "--dump-dom")
    assert f"<h1>{run_id_of(newest)}</h1>" in done.stdout
    assert "Refused" not in done.stderr  # by our own policy
