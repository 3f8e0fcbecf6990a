"""The examples of docs/workload-protocol.md, each run and read as a trial's output is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wattbench.analysis.meters import output_lines
from wattbench.analysis.meters.workload_log import PROTOCOL

PAGE = (Path(__file__).parents[2] / "docs/workload-protocol.md").read_text("utf-8")
LANGUAGES = ("python", "sh", "c")


def example(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


def output(language: str, folder: Path) -> str:
    source = folder / f"example.{language}"
    source.write_text(example(language))
    argv = {"python": [sys.executable, "-I", str(source)], "sh": ["sh", str(source)]}.get(language)
    if argv is None:
        program = folder / "example"
        subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source], check=True)
        argv = [str(program)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_reports_device_units_and_phases(language: str, tmp_path: Path) -> None:
    lines = output(language, tmp_path).splitlines()
    timed = "".join(f"{1000 + n}.5 o {line}\n" for n, line in enumerate(lines))
    log = output_lines.read(timed.encode(), {"unit": {"name": "document", "count": None}})
    work = log.work
    assert (work.unit, work.units, work.device_actual, work.finished) == (
        "document",
        500,
        "cpu",
        True,
    )
    assert (work.errors, work.problems) == ((), ())
    assert [s.name for s in log.spans] == ["steady:documents"]
    if language == "python":
        assert log.spans[0].start_s > 1e9  # its own clock
    else:
        assert (log.spans[0].start_s, log.spans[0].end_s) == (1002.5, 1003.5)  # the lines'
    if language != "sh":
        assert work.results[0].fingerprint == (sum(n * n for n in range(200_000)),)


def test_the_version_on_the_page_is_the_one_that_is_read() -> None:
    assert f"This is protocol version **{PROTOCOL}**" in PAGE


def test_a_later_version_is_refused() -> None:
    line = b'1.0 o {"event": "start", "protocol": 2}\n2.0 o {"event": "end"}\n'
    (error,) = output_lines.read(line, {}).work.errors
    assert "protocol 2, this version reads up to 1; upgrade" in error
