"""The audit's page in a real browser: accessible, nothing sticks out sideways, and on a desk no table is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import BROWSER, WIDTHS, looks
from tests.support.study import STUDY
from wattbench.analysis.audit import mapping, run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("audit")
    run.write(run.audit(STUDY, mapping.Mapping()), out)
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_audit_is_accessible_and_its_tables_fit_a_desk(
    page: str, tmp_path: Path, dark: bool
) -> None:
    for look in looks({"audit": page}, tmp_path, dark=dark):
        assert look.violations == {}, look.width
        assert look.passed > 20
        assert look.scroll <= look.client <= look.width
        assert look.width < max(WIDTHS) or look.cut == []
