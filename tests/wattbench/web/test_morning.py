"""The pages of one morning: Airflow's own database and a real store, without a scheduler."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.browser import BROWSER, looks
from tests.support.s3_server import Server
from tests.support.web_pages import HOST, NIGHTS, NO_ROUTE, WHY, write_pages

pytestmark = pytest.mark.slow  # nights with their reports


@pytest.fixture(scope="module")
def morning(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("morning"), replace(server.target, prefix=""))


def text_of(folder: Path, name: str) -> str:
    """The visible text of a page's main part, tags cut out."""
    html = (folder / f"{name}.html").read_text(encoding="utf-8")
    main = html.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", "<main" + main).replace("&#39;", "'").split())


def test_the_start_page_says_what_needs_a_person_and_what_each_experiment_found(
    morning: Path,
) -> None:
    text = text_of(morning, "overview")
    needs, _, answers = text.partition("Last answers")
    kinds = re.findall(r"\b(not valid|refused|failed|regression) (\S+?)(?:-\d{8}T\S+)? :", needs)
    assert kinds == [
        ("not valid", "gpu"), ("refused", "typo"), ("refused", "lab-b"), ("failed", "stopped"),
        ("regression", "nightly"),
    ]  # fmt: skip
    assert f"7 of 7 trials on {HOST} are not valid: {WHY}" in needs
    assert "experiments/typo.yaml line" in needs
    assert "is not a cron line" in needs
    assert "more: stopped after the first block: no image can be measured" in needs
    assert re.search(r"nightly pip-torch uses the least energy: [\d.]+\W% less than", answers)
    assert "32/32 trials of all kinds valid" in answers


def test_experiments_show_schedule_last_verdict_and_why_one_is_refused(morning: Path) -> None:
    text = text_of(morning, "experiments")
    assert re.search(r"nightly .* At 01:30 30 1 \* \* \*", text)
    assert "gpu The same on CUDA by trigger only no run has ended yet running now" in text
    assert re.search(r"typo – refused experiments/typo\.yaml line \d+: schedule: ", text)


def test_runs_are_filtered_by_state_and_by_the_host_that_takes_part(morning: Path) -> None:
    def listed(page: str) -> list[str]:
        html = (morning / f"{page}.html").read_text(encoding="utf-8")
        return re.findall(r'href="/wattbench/runs/([a-z]+)-\d{8}T', html)

    assert listed("runs") == ["gpu", "stopped", *["nightly"] * NIGHTS]
    assert listed("runs-of-lab-b") == ["gpu"]
    assert listed("runs-failed") == ["stopped"]


def test_the_pages_of_runs_lose_none_that_are_due_at_the_same_time(morning: Path) -> None:
    """Two runs a page; the second and the third run are due at the same moment."""
    pages = [p for p in (morning / "pages.txt").read_text().splitlines() if p]
    found = [run for page in pages for run in page.split()]
    assert len(found) == len(set(found)) == NIGHTS + 2


def test_hosts_say_why_one_was_refused_and_once_what_can_not_be_read(morning: Path) -> None:
    text = text_of(morning, "hosts")
    assert re.search(f"lab-b refused .*{re.escape(NO_ROUTE)} meter", text)
    assert re.search(r"lab-c never checked meter \w+ 2 facts can't be read", text)
    assert text.count("the DIMMs' speed can't be read") == 1


def test_trends_show_the_change_of_level_that_comparing_the_nights_finds(morning: Path) -> None:
    text = text_of(morning, "trends")
    line = re.search(
        r"pip-torch-nocache lab-a .*?%\) ([+-][\d.]+)\W% \(.*?nights before, (\d) since", text
    )
    assert line is not None
    assert abs(float(line[1]) - 6.0) < 0.5  # as it was simulated
    assert int(line[2]) == 2
    assert "apt-torch lab-a" in text
    assert "1 run with a report: too few for changes of level" in text


def test_a_run_shows_its_invalid_trials_while_it_goes_on(morning: Path) -> None:
    text = text_of(morning, "run-going")
    assert "trial 8 of 32: " in text
    assert re.search(r"about [\d hmins]+ left 7 of 32 trials over, 7 not valid", text)
    assert WHY in text


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_accessible_and_fits_a_telephone(
    morning: Path, tmp_path: Path, dark: bool
) -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in morning.glob("*.html")}
    assert len(pages) == 12
    for look in looks(pages, tmp_path, dark=dark):
        assert look.violations == {}, (look.page, look.width)
        assert look.passed > 20
        assert look.scroll <= look.client <= look.width, look.page
