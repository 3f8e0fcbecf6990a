"""The documentation's pictures of pages, by one command: `python -m tests.support.pictures [OUT]`.

The start page, trends, hosts, experiments and runs show the morning of `web_pages`, and docs/screens.md its pages on a
desk and on a telephone, light and dark. With `--bed` those of a running test bed as well: the newest good run of the demo
in Airflow, and its report, which then stands in docs/screens.md too. The trigger form has no address of its own, and is
taken by hand.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.airflow_process import REPO
from tests.support.browser import WIDTHS, logged_in, screenshot
from tests.support.s3_server import Server
from tests.support.web_pages import write_pages

if TYPE_CHECKING:
    from PIL.Image import Image

OUT = REPO / "docs" / "pictures"
#: Colours of a picture: with fewer, the words of warnings take the colour of errors.
COLOURS = 256


@dataclass(frozen=True)
class Shot:
    """How a page is shown.

    Attributes:
        width: of the window, CSS px.
        height: at most that much of the page, px.
        dark: what the reader's system prefers.
        only: id of the one section to be shown; empty: the page from its top.
    """

    width: int = 1280
    height: int = 1400
    dark: bool = False
    only: str = ""


#: Picture → the page of the morning, and how it is shown.
MORNING: Mapping[str, tuple[str, Shot]] = {
    "airflow-overview": ("overview", Shot(width=390, height=1700, dark=True)),
    "airflow-trends": ("trends", Shot(width=390, height=740)),
    "airflow-hosts": ("hosts", Shot()),
    "airflow-runs": ("runs", Shot()),
    "airflow-experiments": ("experiments", Shot(dark=True)),
}
#: Picture → part of the report of the demo's newest run.
REPORT: dict[str, Shot] = {
    "report": Shot(width=1200, height=1000),
    "report-host": Shot(width=1200, height=1240, only="host-virtual-1"),
    "report-across": Shot(width=1200, height=740, only="across"),
    "report-size": Shot(width=1200, height=780, only="size"),
}
#: What docs/screens.md shows at each width, light and dark → the page of the morning.
SCREENS: Mapping[str, str] = {
    "report": "report",
    "run": "run-going",
    "hosts": "hosts",
    "start": "overview",
}


def screens(name: str) -> dict[str, Shot]:
    """Pictures of a page at each width, light and dark: file's name without ending → how it is shown."""
    return {
        f"screen-{name}-{width}-{'dark' if dark else 'light'}": Shot(width, 1000, dark)
        for width in WIDTHS
        for dark in (False, True)
    }


def shown(text: str, shot: Shot) -> str:
    """A page in a frame of the width asked for: a window can't be narrower than 500 px."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    if shot.only:
        assert f'id="{shot.only}"' in bare, f"the page has no section {shot.only}"
        style = (
            "<style>body > :not(main), main > .wrap > :not(#{0}) {{ display: none !important }}"
            "#{0} {{ border: 0; margin: 0; padding-top: 8px }}</style>"
        )
        bare = bare.replace("</head>", style.format(shot.only) + "</head>", 1)
    return (
        f'<!DOCTYPE html><style>body {{ margin: 0 }} iframe {{ border: 0; width: {shot.width}px; '
        f'height: {shot.height}px }}</style><iframe srcdoc="{html.escape(bare)}"></iframe>'
    )  # fmt: skip


def take(text: str, shot: Shot, folder: Path) -> Image:
    """A picture of a page, cut below its last line."""
    page = folder / "page.html"
    page.write_text(shown(text, shot), encoding="utf-8")
    made = screenshot(page.as_uri(), folder, max(shot.width, 500), shot.height, dark=shot.dark)
    return _cut(made.crop((0, 0, shot.width, shot.height)))


def _cut(image: Image) -> Image:
    """Without the empty rows at the foot, but for a margin."""
    from PIL import Image as Images
    from PIL import ImageChops

    foot = image.getpixel((image.width - 1, image.height - 1))
    ground = Images.new(image.mode, image.size, foot)
    box = ImageChops.difference(image, ground).getbbox()
    return image.crop((0, 0, image.width, min(image.height, box[3] + 16))) if box else image


def keep(image: Image, path: Path) -> None:
    """Write it with few colours."""
    image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"pictures: {path.name}, {image.width} x {image.height}, {path.stat().st_size >> 10} KiB")


def of_morning(folder: Path) -> Iterator[tuple[str, Image]]:
    """The pages over Airflow's database, without a scheduler."""
    (folder / "store").mkdir()
    server = Server(folder / "store")
    server.start()
    try:
        pages = write_pages(folder, server.target)
    finally:
        server.stop()
    for name, (page, shot) in MORNING.items():
        yield name, take((pages / f"{page}.html").read_text(encoding="utf-8"), shot, folder)
    for screen, page in SCREENS.items():
        text = (pages / f"{page}.html").read_text(encoding="utf-8")
        for name, shot in screens(screen).items():
            yield name, take(text, shot, folder)


def of_bed(folder: Path) -> Iterator[tuple[str, Image]]:
    """The newest run of the demo that was good: in Airflow, and its report."""
    import requests

    from demo import airflow, bed, network
    from demo.checkout import here
    from wattbench.local import docker_engine

    checkout = here()
    client = docker_engine.connect()
    if client is None:
        sys.exit("pictures: the test bed is not up; bring it up with: make demo")
    known = bed.describe(checkout, network.ensure(client, checkout)).airflow
    user = airflow.connect(known)
    runs = user.runs("demo", 1, state="success")
    if not runs:
        sys.exit("pictures: no run of the demo has succeeded yet: make demo")
    (run,) = runs
    text = user.fetch(f"/wattbench/runs/{run.run_id}/report/index.html").decode()
    for name, shot in (REPORT | screens("report")).items():
        yield name, take(text, shot, folder)
    login = {"username": known.user, "password": known.password}
    answer = requests.post(f"{known.url}/auth/token", json=login, timeout=60)
    token = str(answer.json()["access_token"])
    at = f"{known.url}/dags/demo/runs/{run.id}"
    for name, address, width, height in (
        ("airflow-grid", at, 1200, 720),
        ("airflow-report", f"{at}/plugin/wattbench-report", 1200, 640),
    ):
        with logged_in(address, token) as door:
            yield name, screenshot(door, folder, width, height, budget_ms=20_000)


def main() -> None:
    """Renew the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.pictures", description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=OUT, metavar="OUT", help=f"({OUT})")
    parser.add_argument("--bed", action="store_true", help="also those of the running test bed")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, image in of_morning(folder):
            keep(image, options.out / f"{name}.png")
        if options.bed:
            for name, image in of_bed(folder):
                keep(image, options.out / f"{name}.png")


if __name__ == "__main__":
    main()
