"""Pages in Chromium: pictures of them, what axe-core finds, and whether anything sticks out sideways."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
#: A telephone's width and a desk's, CSS px.
WIDTHS = (390, 1280)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=600000", "--window-size=1400,1000", "--dump-dom",
)  # fmt: skip

#: In each page, in a frame of the width asked for: a window can't be narrower than 500 px.
_PROBE = """<script>{axe}</script><script>addEventListener("load", async () => {{
 document.querySelectorAll("details").forEach((d) => {{ d.open = true; }});
 const root = document.documentElement;
 const found = await axe.run(document, {{resultTypes: ["violations"], iframes: false}});
 parent.postMessage({{page: {page}, width: {width}, scroll: root.scrollWidth, client: root.clientWidth,
  cut: [...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel),
  passed: found.passes.length, violations: found.violations.map((v) => ({{rule: v.id,
  nodes: v.nodes.map((n) => n.target.join(" ") + ": " + n.failureSummary)}}))}}, "*");
}});</script>"""
_DESK = """<!DOCTYPE html><title>-</title><pre id="found"></pre>{frames}<script>const found = [];
addEventListener("message", (m) => {{ found.push(m.data);
 document.getElementById("found").textContent = JSON.stringify(found); }});</script>"""


@dataclass(frozen=True)
class Look:
    """One page at one width.

    Attributes:
        violations: rule of axe-core → the elements that break it, and how.
        passed: rules that held somewhere on the page; 0: nothing was looked at.
        scroll: width of the content, CSS px.
        client: width of the window, CSS px.
        cut: labels of the tables that have to be scrolled sideways.
    """

    page: str
    width: int
    violations: Mapping[str, list[str]]
    passed: int
    scroll: int
    client: int
    cut: list[str]


def dom(address: str, folder: Path, *options: str) -> str:
    """A page's document after its scripts have run.

    Args:
        address: of the page.
        folder: for the browser's profile.
        options: of the browser.
    """
    done = subprocess.run(
        [str(BROWSER), *FLAGS, *options, f"--user-data-dir={folder / 'profile'}", address],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def screenshot(
    address: str,
    folder: Path,
    width: int,
    height: int,
    *,
    dark: bool = False,
    budget_ms: int = 5000,
) -> Image:
    """A picture of a page after its scripts have run, in CSS px.

    Args:
        address: of the page.
        folder: for the browser's profile.
        width: of the window, at least 500.
        height: of the window.
        dark: what the reader's system prefers.
        budget_ms: time that the page's scripts are given.
    """
    from PIL import Image as Images

    path = folder / "screenshot.png"
    path.unlink(missing_ok=True)
    subprocess.run(
        [str(BROWSER), *(flag for flag in FLAGS if not flag.startswith(("--virtual", "--window", "--dump"))),
         f"--virtual-time-budget={budget_ms}", f"--window-size={width},{height}", "--hide-scrollbars",
         f"--blink-settings=preferredColorScheme={int(not dark)}", f"--screenshot={path}",
         f"--user-data-dir={folder / 'profile'}", address],
        capture_output=True, check=True,
    )  # fmt: skip
    with Images.open(path) as image:
        return image.convert("RGB")


@contextmanager
def logged_in(target: str, token: str) -> Iterator[str]:
    """An address that leads to a page of Airflow's with a login.

    Args:
        target: the page.
        token: of the user.
    """

    # Cookies know no ports: a page on the same address hands ours over and leads to Airflow.
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(303)
            self.send_header("Set-Cookie", f"_token={token}; Path=/; SameSite=Lax")
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            del args

    with HTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{door.server_port}/"
        finally:
            door.shutdown()


def looks(pages: Mapping[str, str], folder: Path, *, dark: bool) -> list[Look]:
    """Every page at every width.

    Args:
        pages: name → HTML.
        folder: an empty one.
        dark: what the reader's system prefers.
    """
    return [
        look for name, text in pages.items() for look in _looks_of(name, text, folder, dark=dark)
    ]


def _looks_of(name: str, text: str, folder: Path, *, dark: bool) -> list[Look]:
    """One page at every width, in a browser of its own: of many frames some may never be drawn."""
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    # The page's own policy would refuse the probe.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    frames = []
    for width in WIDTHS:
        probe = _PROBE.format(axe=axe, page=json.dumps(name), width=width)
        path = folder / f"{name}-{width}.html"
        path.write_text(bare.replace("</body>", f"{probe}</body>"), encoding="utf-8")
        frames.append(f'<iframe src="{path.name}" style="width:{width}px;height:900px"></iframe>')
    desk = folder / f"{name}.html"
    desk.write_text(_DESK.format(frames="".join(frames)), encoding="utf-8")
    theme = f"--blink-settings=preferredColorScheme={int(not dark)}"
    block = re.search(r'<pre id="found">(.*?)</pre>', dom(desk.as_uri(), folder, theme), re.DOTALL)
    assert block is not None
    assert block[1], "no page answered"
    found: list[dict[str, Any]] = json.loads(html.unescape(block[1]))
    assert sorted(one["width"] for one in found) == sorted(WIDTHS), f"{name}: a width is silent"
    return [
        Look(**(one | {"violations": {v["rule"]: v["nodes"] for v in one["violations"]}}))
        for one in found
    ]
