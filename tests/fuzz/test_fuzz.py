"""A short pass of every fuzz target, the same inputs always; ``make fuzz`` goes on from there."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import outcome
from tests.fuzz.targets import SEEDS, TARGETS

#: Inputs per target.
_INPUTS = 40


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_is_read_or_ends_in_a_declared_error(target: str) -> None:
    faults = {number: fault for number in range(_INPUTS) if (fault := outcome(target, number))}
    assert not faults


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_sound_and_damage_changes_them(
    target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for seed in TARGETS[target].seeds:
        data = (SEEDS / seed).read_bytes() if isinstance(seed, str) else seed()
        TARGETS[target].parse(data, tmp_path_factory.mktemp("seed"))
        assert any(TARGETS[target].input(number) != data for number in range(5))


def test_every_seed_is_used() -> None:
    used = {seed for target in TARGETS.values() for seed in target.seeds if isinstance(seed, str)}
    assert used == {path.name for path in SEEDS.iterdir()}
