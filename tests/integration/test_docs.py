"""The console blocks that need the demo's test bed, page by page, as printed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import airflow, settings
from tests.integration.conftest import Lab
from tests.support import console_blocks

pytestmark = pytest.mark.docker

PAGES = {
    page: script
    for page in console_blocks.PAGES
    if (script := "".join(b.script for b in console_blocks.blocks(page) if b.more == "demo"))
}


@pytest.fixture
def experiments(request: pytest.FixtureRequest, lab: Lab) -> Iterator[list[str]]:
    """The page's experiments for the virtual hosts, copied to where the page says."""
    written = []
    for name, text in console_blocks.experiments(request.getfixturevalue("page")):
        if "registry.local/" in text:
            path = lab.bed.checkout.root / "config" / "experiments" / f"{name}.yaml"
            assert not path.exists()
            path.write_text(text)
            written.append(name)
    bed = lab.bed
    settings.write(bed.checkout, bed.hosts, bed.store, bed.registry, print)  # as `demo up` does
    airflow.parse_again(bed.checkout)
    yield written
    for name in written:
        for folder in (lab.bed.checkout.root / "config", lab.config):
            (folder / "experiments" / f"{name}.yaml").unlink(missing_ok=True)


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES])
def test_a_page_runs_as_printed_from_its_top_to_its_end(
    page: Path, lab: Lab, experiments: list[str], tmp_path: Path
) -> None:
    assert experiments
    root = lab.bed.checkout.root
    out = root / "out"
    assert not out.exists()
    try:
        done = console_blocks.run(PAGES[page], root, timeout_s=1200)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert (out / "index.html").stat().st_size > 10_000
    finally:
        shutil.rmtree(out, ignore_errors=True)
