"""docs/troubleshooting.md: what the code can print is on the page, and a line that is printed is found there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import error_catalogue
from wattbench.analysis.model.errors import UserError
from wattbench.cli.command_line import main
from wattbench.errors import HOST_CODES, ConfigError, HostError
from wattbench.worker.agent.preflight import PROBES

PAGE = error_catalogue.REPO / "docs/troubleshooting.md"


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == error_catalogue.page(), (
        "python -m tests.support.error_catalogue > docs/troubleshooting.md"
    )


def test_every_code_that_a_host_s_error_may_have_is_declared_and_no_other() -> None:
    codes = {code for one in error_catalogue.raised() for code in one.codes}
    assert codes | {HostError("x").code} == set(HOST_CODES)


def test_every_code_of_a_host_stands_there_with_meaning_and_action() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for code, about in HOST_CODES.items():
        assert f"| `{code}` | {about.meaning} | {about.action} |" in page
    there = {p.code for p in PROBES if f"| `{p.code}` | {p.asks} | " in page}
    assert {p.code for p in PROBES} - there == {"throttling"}  # it is only ever unknown


def test_classes_of_errors_are_recognised_as_the_interpreter_does() -> None:
    for known in (ConfigError, HostError):
        assert f"{known.__module__}.{known.__name__}" in error_catalogue.user_errors()
    names = {"wattbench.analysis.image.streams.DamagedError", "builtins.ValueError"}
    assert not names & error_catalogue.user_errors()  # of the same name, and no user's error
    assert all(issubclass(error, UserError) for error in (ConfigError, HostError))


def test_the_words_of_nearly_all_messages_are_known() -> None:
    raised = error_catalogue.raised()
    unknown = [f"{one.path}:{one.line}" for one in raised if one.row is None]
    assert len(unknown) < len(raised) / 10, unknown


def rows() -> list[re.Pattern[str]]:
    """The first cells of the page's tables as patterns."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| `", "| ---")):
            cell = re.sub(r"\\(.)", r"\1", line[2:].partition(" | ")[0])
            found.append(re.compile(".*".join(map(re.escape, cell.split(error_catalogue.ELISION)))))
    return found


MISTAKES = [
    ["image", "absent.tar"],
    ["image", "x.tar", "--cores", "0"],
    ["image", "x.tar", "--gpu-arch", "volta"],
    ["report", "absent", "--out", "out"],
    ["report", "absent"],
    ["compare", "./absent", "--out", "out"],
    ["audit", "absent", "--out", "out"],
    ["power", "--cv", "1", "--effect", "1", "--images", "1"],
    ["explain", "protocol.blokcs"],
    ["plan", "absent"],
    ["status", "--url", "ftp://x"],
    ["status", "--url", "http://localhost:1"],
    ["measure", "python:3.12"],
    ["measure", "a=b", "c=d", "--unit", "page:0", "--env", "X"],
    ["host", "add", "Upper", "--ssh", "x"],
]


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_line_that_a_command_prints_is_found_on_the_page(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("URL", "USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"WATTBENCH_AIRFLOW_{name}", raising=False)
    assert main(words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert any(pattern.search(line) for pattern in rows()), line
