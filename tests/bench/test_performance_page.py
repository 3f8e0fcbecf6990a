"""The page of figures: limits, ratios, failures; and gaps held against the run's own table."""

from __future__ import annotations

import itertools
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from tests.bench import all as benches
from tests.bench.all import Bench, Figure, Outcome, page, read
from tests.bench.bench_run import gaps_s

STORED = Path(__file__).parents[1] / "reference" / "stored-run-1.tar.gz"


def outcome(*figures: Figure, code: int = 0) -> Outcome:
    return Outcome(Bench("audit", (("10",),), ("5",)), ("10",), code, 1.0, figures, ())


def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_a_figure_has_its_limit_and_its_ratio_beside_it() -> None:
    within = Figure("audit", "10 MB", 6.0, "s", limit=10.0, plain=4.0, plain_is="read_csv")
    over = Figure("audit", "100 MB", 60.0, "s", limit=50.0)
    text = page([outcome(within, over)], "")
    assert rows(text)[0] == ["audit", "10 MB", "6 s", "10", "4 (read_csv)", "1.50"]
    assert rows(text)[1] == ["audit", "100 MB", "60 s", "**over** 50", "–", "–"]
    assert (within.over, over.over) == (False, True)


def test_a_script_that_failed_is_a_row_of_its_own() -> None:
    assert "**failed with exit code 3**" in page([outcome(code=3)], "")


def test_what_was_not_run_says_so() -> None:
    shown = {row[0]: row[2] for row in rows(page([outcome()], ""))}
    assert shown["bench_audit"] == "there is nothing to measure"
    assert shown["bench_history"] == "not run"


def test_figures_are_read_back_from_what_scripts_print(capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure("a", "b – c", 1.5, "s", limit=2.0)
    benches.sys.modules["figures"].show(figure)
    assert read(capsys.readouterr().out) == figure
    assert read("something else") is None


def test_gaps_of_a_stored_run_are_those_of_its_table(tmp_path: Path) -> None:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    table = pd.read_parquet(tmp_path / "trials.parquet").sort_values("started_at")
    table["began"] = pd.to_datetime(table["started_at"], utc=True).map(lambda t: t.timestamp())
    found = gaps_s(tmp_path)
    rest_s = 2.0  # the run's protocol.rest.min_s
    wanted = []
    for _, host in table.groupby("host"):
        windows = list(zip(host["began"], host["duration_s"], strict=True))
        wanted += [b[0] - a[0] - a[1] - rest_s for a, b in itertools.pairwise(windows)]
    assert found == pytest.approx(wanted, abs=0.01)
    assert len(found) > 5
