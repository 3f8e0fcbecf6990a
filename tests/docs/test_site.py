"""The site that `make docs` builds: every page is reachable, every link, anchor and picture is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag

import pytest

REPO = Path(__file__).resolve().parents[2]
PICTURES = REPO / "docs" / "pictures"
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@dataclass
class Page(HTMLParser):
    """What a page has and what it asks for."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids.update(given[key] for key in ("id", "name") if key in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and "canonical" not in given.get("rel", ""):
            self.loads.append(given.get("href", ""))
        if "src" in given:
            self.loads.append(given["src"])
        if tag == "img":
            self.pictures.append((given["src"], given.get("alt", "")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=REPO, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {}
    for path in sorted(site.rglob("*.html")):
        found[path.resolve()] = page = Page()
        page.feed(path.read_text(encoding="utf-8"))
    return found


def goal_of(target: str, page: Path) -> tuple[Path, str]:
    path, anchor = urldefrag(target)
    return ((page.parent / unquote(path)).resolve() if path else page), unquote(anchor)


def test_every_page_of_docs_is_there(site: Path) -> None:
    sources = {path.stem for path in (REPO / "docs").glob("*.md")}
    assert sources <= {path.stem for path in site.glob("*.html")}
    assert len(sources) > 10


def test_every_code_block_is_shown_as_one(site: Path) -> None:
    """A fence inside a list is not known to the site's Markdown."""
    for page in site.glob("*.html"):
        inline = re.findall(r"<code>(?:console|yaml|text|python)\n", page.read_text("utf-8"))
        assert inline == [], page.name


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    broken, seen = [], 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of a server's root
            continue
        for target in page.links:
            if re.match(r"[a-z]+:", target):
                continue
            goal, anchor = goal_of(target, path)
            seen += 1
            if not goal.is_file() or (anchor and anchor not in pages[goal].ids):
                broken.append(f"{path.name}: {target}")
    assert broken == []
    assert seen > 100


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for target in page.loads:
            assert not re.match(r"([a-z]+:)?//", target), f"{path.name}: {target}"
            if path.name != "404.html":
                assert goal_of(target.partition("?")[0], path)[0].is_file(), (
                    f"{path.name}: {target}"
                )
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style.name


# Search -------------------------------------------------------------------------------------------


def test_search_asks_for_nothing_that_a_page_opened_as_a_file_may_not_have(
    site: Path, pages: dict[Path, Page]
) -> None:
    assert [path.name for path in (site / "search").iterdir()] == ["main.js"]
    script = (site / "search/main.js").read_text(encoding="utf-8")
    assert not re.search(
        r"new Worker|XMLHttpRequest|\bfetch\(|importScripts\(|^import ", script, re.M
    )
    for path, page in pages.items():
        if path.name != "404.html":
            loaded = {goal_of(target.partition("?")[0], path)[0] for target in page.loads}
            assert (site / "search/main.js").resolve() in loaded, path.name


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("governor", "hosts.html"),
        ("its host key … is not known", "troubleshooting.html#hosts"),
        ("(not reachable): ~^*+-", "troubleshooting.html#hosts"),
        ("equivalen", "reading.html"),
    ],
)
def test_search_finds_pages_from_the_file_system(
    site: Path, tmp_path: Path, words: str, page: str
) -> None:
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--virtual-time-budget=4000", "--dump-dom",
         f"--user-data-dir={tmp_path}", f"{(site / 'index.html').as_uri()}?q={quote(words)}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    results = done.stdout.partition('id="mkdocs-search-results"')[2].partition("</form>")[0]
    found = re.findall(r'<article><h3><a href="\./([^"]+)">', results)
    assert any(one.startswith(page) for one in found), found


def test_pictures_say_what_they_show_and_are_small(pages: dict[Path, Page]) -> None:
    shown = set()
    for path, page in pages.items():
        for target, text in page.pictures:
            assert len(text.split()) > 2, f"{path.name}: {target}: say in words what it shows"
            shown.add(goal_of(target, path)[0].name)
    assert shown == {path.name for path in PICTURES.iterdir()}, "a picture that no page shows"
    for picture in PICTURES.iterdir():
        assert picture.stat().st_size < 250_000, picture.name
