"""The page: valid, self-contained, accessible, the same for the same run, and true when little is there."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest

from tests.support import report_tables
from tests.support import simulated_run as simulated
from wattbench.analysis import report
from wattbench.analysis.presentation import html as page
from wattbench.analysis.storage.source import open_source

HOSTS = {name: simulated.HOSTS[name] for name in ("lab-a", "lab-b")}
XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


def made(folder: Path, **changes: object) -> tuple[report.Made, str]:
    root = simulated.write(folder, simulated.small(**{"steady_s": 4.0} | changes))
    result = report.make(open_source(root), folder / "out")
    return result, result.page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[report.Made, str]:
    return made(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[report.Made, str]:
    one = {"lab-a": simulated.HOSTS["lab-a"]}
    return made(tmp_path_factory.mktemp("modelled"), kind="modelled", idle_every=None, hosts=one)


@functools.cache
def parsed(html: str) -> ElementTree.Element:
    """The document; a strict parser raises on any error of the markup."""
    return html5lib.HTMLParser(strict=True).parse(html)


def test_the_page_is_valid_html(measured: tuple[report.Made, str]) -> None:
    parsed(measured[1])


def test_identifiers_are_unique(measured: tuple[report.Made, str]) -> None:
    ids = [e.attrib["id"] for e in parsed(measured[1]).iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids)) > 10


def test_links_and_labels_lead_to_something(measured: tuple[report.Made, str]) -> None:
    tree = parsed(measured[1])
    ids = {e.attrib["id"] for e in tree.iter() if "id" in e.attrib}
    links = [a.attrib["href"] for a in tree.iter(f"{XHTML}a")]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) > 60
    assert all((measured[0].page.parent / file).is_file() for file in files)
    targets = [link[1:] for link in links if link.startswith("#")]
    targets += [e.attrib["aria-labelledby"] for e in tree.iter() if "aria-labelledby" in e.attrib]
    assert targets
    assert set(targets) <= ids


def test_the_page_asks_nothing_of_the_network(measured: tuple[report.Made, str]) -> None:
    loading = {"src", "srcset", "href", "data", "poster", "action", "formaction", "background"}
    tree = parsed(measured[1])
    for element in tree.iter():
        for name, value in element.attrib.items():
            plain = str(name).rpartition("}")[2]
            if element.tag == f"{XHTML}a":
                continue  # loads nothing until it is followed
            assert plain not in loading or value.startswith("#"), (element.tag, name, value)
        assert element.tag not in {
            f"{XHTML}link",
            f"{XHTML}iframe",
            f"{XHTML}object",
            f"{XHTML}img",
        }
    styles = "".join(e.text or "" for e in tree.iter(f"{XHTML}style"))
    styles += "".join(e.attrib.get("style", "") for e in tree.iter())
    assert "@import" not in styles
    assert not re.search(r"url\((?!#)", measured[1])
    assert "http://" not in measured[1]
    assert "https://" not in measured[1]


def test_the_page_stays_small(measured: tuple[report.Made, str]) -> None:
    assert len(measured[1].encode()) < 5_000_000


def test_landmarks_and_headings_are_in_order(measured: tuple[report.Made, str]) -> None:
    tree = parsed(measured[1])
    for landmark in ("header", "main", "footer", "nav"):
        assert len(list(tree.iter(f"{XHTML}{landmark}"))) == 1
    levels = [
        int(e.tag[-1]) for e in tree.iter() if re.fullmatch(re.escape(XHTML) + "h[1-6]", str(e.tag))
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_figure_has_words_for_who_can_not_see_it(measured: tuple[report.Made, str]) -> None:
    figures = list(parsed(measured[1]).iter(f"{XHTML}figure"))
    assert len(figures) >= 14
    for figure in figures:
        drawing = next(figure.iter(f"{SVG}svg"))
        assert drawing.attrib["role"] == "img"
        assert len(drawing.attrib["aria-label"]) > 30
        assert "".join(next(figure.iter(f"{XHTML}figcaption")).itertext()).strip()


def test_tables_have_captions_and_scoped_heads(measured: tuple[report.Made, str]) -> None:
    tables = list(parsed(measured[1]).iter(f"{XHTML}table"))
    assert len(tables) > 20
    for table in tables:
        assert all(th.attrib.get("scope") in ("col", "row") for th in table.iter(f"{XHTML}th"))


def test_the_answer_is_the_first_heading(measured: tuple[report.Made, str]) -> None:
    heading = next(parsed(measured[1]).iter(f"{XHTML}h1"))
    said = "".join(heading.itertext())
    assert said.replace("−", "-") == measured[0].headline.replace("−", "-")


def test_the_ranking_shows_the_conclusion_s_own_numbers(measured: tuple[report.Made, str]) -> None:
    summary = json.loads((measured[0].page.parent / "summary.json").read_text())
    table = next(
        t for t in parsed(measured[1]).iter(f"{XHTML}table") if t.attrib.get("class") == "forest"
    )
    rows = ["".join(r.itertext()) for r in next(table.iter(f"{XHTML}tbody")).iter(f"{XHTML}tr")]
    ranking = summary["conclusion"]["ranking"]
    assert len(rows) == len(ranking) == 3
    for row, expected in zip(rows, ranking, strict=True):
        assert expected["image"] in row
        pair = expected["pair"]
        if pair is not None:
            assert f"{abs(pair['individual']['estimate_pct']):.1f}\u202f%" in row
            assert pair["verdict"] in row


def test_modelled_joules_are_said_to_be_so_everywhere(modelled: tuple[report.Made, str]) -> None:
    result, html = modelled
    tree = parsed(html)
    assert "Modelled, not measured" in "".join(next(tree.iter(f"{XHTML}h1")).itertext())
    banner = next(e for e in tree.iter() if e.attrib.get("class") == "banner")
    assert "power model" in "".join(banner.itertext())
    for figure in tree.iter(f"{XHTML}figure"):
        drawn = "".join(next(figure.iter(f"{SVG}svg")).itertext())
        assert "modelled, not measured" in drawn.lower()
        assert "Modelled, not measured" in "".join(
            next(figure.iter(f"{XHTML}figcaption")).itertext()
        )
    for name in ("energy", "ranking", "pairs"):
        latex = (result.page.parent / "tables" / f"{name}.tex").read_text()
        assert "Modelled, not measured" in latex
    for form in report.SHORT_FORMS.values():
        assert "modelled" in (result.page.parent / form.file).read_text().lower()


def test_measured_joules_are_not_called_modelled(measured: tuple[report.Made, str]) -> None:
    text = "".join(next(parsed(measured[1]).iter(f"{XHTML}main")).itertext())
    assert "modelled, not measured" not in text.lower()


def test_names_from_outside_can_not_become_markup() -> None:
    template = page.environment().from_string("{{ name }}")
    assert (
        template.render(name="<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    )


# Little or nothing to show -----------------------------------------------------------------------


def test_a_run_without_valid_trials_has_a_valid_page_that_says_so_first(tmp_path: Path) -> None:
    lost = tuple((host, place) for host in HOSTS for place in range(1, 20))
    _, html = made(tmp_path, lost=lost, failing={}, blocks=1, idle_every=None)
    heading = "".join(next(parsed(html).iter(f"{XHTML}h1")).itertext())
    assert "none of 6 planned trials is valid" in heading


def test_a_maimed_run_has_a_valid_page_that_names_what_is_missing(tmp_path: Path) -> None:
    first = simulated.write(tmp_path / "plan", simulated.small(steady_s=4.0, blocks=1))
    plan = json.loads((first / "run.json").read_text())["plan"]["lab-a"]
    gone = tuple(("lab-a", t["planned_position"]) for t in plan if t["image"] == "nvcr")
    _, html = made(
        tmp_path, unfit={"lab-b": "Docker is not running"}, lost=gone, failing={}, blocks=1
    )
    tree = parsed(html)
    said = "".join(next(tree.iter(f"{XHTML}header")).itertext())
    assert "Host lab-b has no valid trial" in said
    assert "Docker is not running" in said
    assert "Image nvcr has no valid trial on lab-a" in said
    assert list(tree.iter(f"{XHTML}figure"))


def test_a_trial_whose_raw_file_is_gone_still_counts_and_is_reported(tmp_path: Path) -> None:
    root = simulated.write(
        tmp_path, simulated.small(steady_s=4.0, failing={}, blocks=1, idle_every=None)
    )
    for raw in root.glob("hosts/lab-a/trials/*/1/energibridge.csv.gz"):
        raw.unlink()
    study = report.study(open_source(root))
    codes = {f.code for f in study.findings if f.is_found_error}
    assert "row-untraceable" in codes
    html = report_tables.section(study, "hosts")
    assert "figures/power-lab-a.svg" not in html
    assert "figures/power-lab-b.svg" in html
