"""The page in a real browser: accessible, and nothing sticks out sideways, on a desk or on a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import simulated_run as simulated
from tests.support.browser import BROWSER, looks
from wattbench.analysis import report
from wattbench.analysis.storage.source import open_source

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    root = simulated.write(folder, simulated.small(steady_s=4.0, kind="modelled"))
    return report.make(open_source(root), folder / "out").page.read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_is_accessible_and_nothing_sticks_out_sideways(
    page: str, tmp_path: Path, dark: bool
) -> None:
    for look in looks({"report": page}, tmp_path, dark=dark):
        assert look.violations == {}, look.width
        assert look.passed > 20
        assert look.scroll <= look.client <= look.width


def test_an_unreadable_page_is_found(tmp_path: Path) -> None:
    """The probe itself: grey on grey, a picture without words, content that is too wide."""
    bad = (
        '<!DOCTYPE html><html lang="en"><head><title>bad</title></head><body style="background:#fff">'
        '<main><h1 style="color:#ccc">Grey</h1><img src="data:,"><p style="width:2000px">wide</p></main>'
        "</body></html>"
    )
    for look in looks({"bad": bad}, tmp_path, dark=False):
        assert {"color-contrast", "image-alt"} <= set(look.violations)
        assert look.scroll > look.client
