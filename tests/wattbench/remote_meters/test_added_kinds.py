"""Kinds of remote meters from other distributions that can't be used; docs/extending.md shows one that can."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import extension
from wattbench.remote_meters import GROUP

TAKEN = "from wattbench.remote_meters.http import HttpReader as Reader\n"


@pytest.mark.parametrize(
    ("source", "names", "why"),
    [
        (TAKEN, "Reader", "there is a meter 'http' already"),
        ("Reader = 1\n", "Reader", "it is not a class of Reader"),
        ("import absent\n", "", "ModuleNotFoundError: No module named 'absent'"),
    ],
    ids=["of a kind that is there", "no class of readers", "can't be imported"],
)
def test_a_kind_that_can_t_be_used_is_one_warning_that_names_it(
    tmp_path: Path, source: str, names: str, why: str
) -> None:
    extension.install(tmp_path, GROUP, "odd_meter", source, names)
    done = extension.run(
        tmp_path, "-c", "from wattbench.remote_meters import READERS; print(*READERS)"
    )
    assert (done.returncode, done.stdout) == (0, "http prometheus\n")
    (line,) = done.stderr.splitlines()
    assert "odd_meter" in line
    assert why in line
