"""The answer as plain text: what the last lines of the commands say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import simulated_run as simulated
from wattbench.analysis.__main__ import main


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    folder = tmp_path_factory.mktemp("run")
    host = {"lab-a": simulated.HOSTS["lab-a"]}
    root = simulated.write(
        folder, simulated.small(steady_s=2.0, failing={}, idle_every=None, hosts=host)
    )
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("wattbench.analysis.commands.report.say", lines.append)
        main(["report", str(root), "--out", str(folder / "out")])
    return "\n".join(lines).splitlines(), folder / "out"


def test_the_command_ends_with_verdict_ranking_and_the_place_of_the_page(
    said: tuple[list[str], Path],
) -> None:
    lines, out = said
    summary = json.loads((out / "summary.json").read_text())
    assert lines[:2] == [summary["headline"], summary["conditions"]]
    ranking = [row["image"] for row in summary["conclusion"]["ranking"]]
    table = lines[4 : 4 + len(ranking)]
    assert [line.split()[0] for line in table] == ranking
    for line, row in zip(table, summary["conclusion"]["ranking"], strict=True):
        assert (row["pair"]["verdict"] if row["pair"] else "reference") in line
    assert lines[-1] == str(out / "index.html")


def test_the_same_lines_lie_beside_the_page(said: tuple[list[str], Path]) -> None:
    lines, out = said
    assert (out / "report.txt").read_text().splitlines() == lines[:-2]


def test_joules_seconds_watts_and_joules_per_image_of_every_host_are_there(
    said: tuple[list[str], Path],
) -> None:
    lines, out = said
    heads = next(line for line in lines if line.startswith("image") and "(J)" in line)
    assert [unit in heads for unit in ("(J)", "(s)", "(W)", "(J/image)")] == [True] * 4
    summary = json.loads((out / "summary.json").read_text())
    rows = [line.split() for line in lines[lines.index(heads) + 1 : -2]]
    assert {(r[0], r[1]) for r in rows} == {
        (image, host) for image in summary["images"] for host in summary["hosts"]
    }
