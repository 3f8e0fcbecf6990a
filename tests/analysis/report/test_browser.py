"""The page in a real browser: nothing sticks out sideways, on a desk or on a telephone."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import simulated_run as simulated
from wattbench.analysis import report
from wattbench.analysis.storage.source import open_source

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=4000", "--dump-dom",
)  # fmt: skip
#: The page in a frame of the width asked for: a window can't be narrower than 500 px.
FRAME = """<!DOCTYPE html><title>-</title><iframe id="f" style="width:{width}px;height:900px;border:0"
 srcdoc="{page}"></iframe><script>const f=document.getElementById("f");f.onload=()=>{{
 const d=f.contentDocument;d.querySelectorAll("details").forEach(e=>e.open=true);
 document.title="scroll="+d.documentElement.scrollWidth+" client="+d.documentElement.clientWidth;}}</script>"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    root = simulated.write(folder, simulated.small(steady_s=4.0, kind="modelled"))
    return report.make(open_source(root), folder / "out").page.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_sideways(page: str, width: int, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(
        FRAME.format(width=width, page=html.escape(page, quote=True)), encoding="utf-8"
    )
    done = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
         frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    measured = re.search(r"<title>scroll=(\d+) client=(\d+)</title>", done.stdout)
    assert measured is not None, done.stdout[:300]
    scroll, client = map(int, measured.groups())
    assert client <= width
    assert scroll <= client
