"""Text from outside in terminals, Markdown, CSV and pages."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from tests.support.image_tarballs import docker_save, python_base
from wattbench.analysis.__main__ import main
from wattbench.analysis.model import escaping, trials
from wattbench.analysis.model.trials import TrialRow
from wattbench.analysis.presentation import html

FOREIGN = "\x1b[31m<evil>|`*\u202e"


@given(st.text())
def test_no_control_character_reaches_a_terminal_and_json_stays_the_same(text: str) -> None:
    shown = escaping.visible(text)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown
    )
    encoded = json.dumps(text, ensure_ascii=False)
    assert json.loads(escaping.visible(encoded)) == text


@given(st.text())
def test_markdown_shows_foreign_text_as_it_is(text: str) -> None:
    shown = escaping.markdown(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[<>|`*_\[\]#~]", shown)
    plain = re.sub(r"\\([\\*_`<>\[\]#|~])", r"\1", shown.replace("&amp;", "&"))
    assert plain == escaping.one_line(text)


@given(st.text())
def test_a_cell_is_no_formula_and_reads_back(text: str) -> None:
    cell = escaping.cell(text)
    assert len(cell) < 2 or cell[0] not in "=+-@\t\r" or float(cell) == float(text)
    assert escaping.uncell(cell) == text or text.startswith("'")


@pytest.mark.parametrize("value", ["-3.5", "+1e-9", "-", -3.5, 7, None, "a=b", "−4 %"])
def test_numbers_and_harmless_texts_are_cells_as_they_are(value: object) -> None:
    assert escaping.cell(value) == value


def test_tables_of_trials_hold_no_formula_and_read_back(tmp_path: Path) -> None:
    row = TrialRow("=cmd|' /C calc'!A0", "@host", "workload", 1, 1, 1, "-image", energy_j=-1.5,
                   reason="+49")  # fmt: skip
    frame = trials.to_frame([row])
    escaping.write_frame(frame, tmp_path / "a.csv")
    trials.write_rows([row], tmp_path / "b.csv")
    for name in ("a.csv", "b.csv"):
        (cells,) = csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines())
        assert (cells["run_id"][:2], cells["host"], cells["image"]) == ("'=", "'@host", "'-image")
        assert (cells["energy_j"], cells["reason"]) == ("-1.5", "+49")
        pd.testing.assert_frame_equal(trials.read_csv(tmp_path / name), frame)


def test_an_image_can_t_steer_terminal_markdown_spreadsheet_or_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"Labels": {FOREIGN: FOREIGN}, "User": FOREIGN, "Cmd": ["=1+1", FOREIGN]}
    path = docker_save(tmp_path / "x.tar", [python_base().file("=1+1")], tag=FOREIGN, **settings)
    for form in ("text", "md", "html", "json"):
        assert main(["image", str(path), "--format", form, "--out", str(tmp_path / "out")]) in (
            0,
            1,
        )
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert "\u202e" not in printed
        if form in ("md", "html"):
            assert not re.search(r"(?<!\\)<evil>", printed)


def test_pages_load_nothing_and_run_their_own_script_only() -> None:
    page = (
        html.environment()
        .get_template("base.html.j2")
        .render(css="", script=html.script(), nonce="", policy=html.content_policy())
    )
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = html.content_policy()
    assert len(scripts) == 1
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert escape(policy) in page
