"""Console blocks of README and docs run as printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import console_blocks
from tests.support.console_blocks import Block

BLOCKS = [block for page in console_blocks.PAGES for block in console_blocks.blocks(page)]
HERE = [b for b in BLOCKS if b.returncode is not None]


def test_every_block_says_whether_it_runs() -> None:
    assert [b.name for b in BLOCKS if not b.is_marked] == []
    assert HERE


@pytest.mark.slow
@pytest.mark.parametrize("block", [pytest.param(b, id=b.name) for b in HERE])
def test_it_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    done = console_blocks.run(block.script, console_blocks.checkout_in(tmp_path))
    assert done.returncode == block.returncode, done.stdout + done.stderr
    if block.prints:
        assert block.shows(done.stdout), f"python -m tests.support.console_blocks\n{done.stdout}"


def test_elisions_stand_for_any_text_and_nothing_else() -> None:
    block = Block(Path(), 1, "runs", None, "$ one\na … c\n…\nlast\n")
    assert block.shows("$ one\na b c\nlast\n")
    assert block.shows("$ one\na b c\nmore\nmore\nlast\n")
    assert not block.shows("$ one\na b\nlast\n")
    assert not block.shows("$ one\na b c\nlast\nmore\n")
