"""GPU code is read from fat binaries whatever the pieces they arrive in."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.support.image_tarballs import fatbin
from wattbench.analysis.image.fatbin import GpuCode, Scanner

MACHINE_CODE, PTX = 2, 1


def scan(data: bytes, piece: int) -> GpuCode:
    scanner = Scanner()
    for place in range(0, len(data), piece):
        scanner.feed(data[place : place + piece])
    return scanner.found


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([1, 2]),
                st.sampled_from([50, 75, 80, 90, 100, 120]),
                st.integers(0, 200),
            ),
            min_size=1,
            max_size=4,
        ),
        max_size=4,
    ),
    st.integers(1, 700),
    st.binary(max_size=90),
)
def test_every_target_is_found_and_none_invented(
    containers: list[list[tuple[int, int, int]]], piece: int, between: bytes
) -> None:
    data = between + b"".join(fatbin(targets) + between for targets in containers)
    flat = [one for targets in containers for one in targets]
    found = scan(data, piece)
    assert found.sm == tuple(sorted({c for k, c, _ in flat if k == MACHINE_CODE}))
    assert found.ptx == tuple(sorted({c for k, c, _ in flat if k == PTX}))


def test_the_magic_alone_is_no_container() -> None:
    chance = struct.pack("<IHHQ", 0xBA55ED50, 7, 3, 99) + b"\x02" * 200
    broken = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 400) + b"\xff" * 400
    assert not scan(chance + broken, 64)
    assert scan(chance + broken + fatbin([(2, 90, 8)]), 64).names() == ["sm_90"]


def test_machine_code_serves_its_major_version_from_its_minor_on_and_ptx_all_later_ones() -> None:
    code = GpuCode(sm=(80, 90), ptx=(90,))
    assert [n for n in (75, 80, 86, 90, 100) if code.runs_on(n)] == [80, 86, 90]
    assert [n for n in (75, 80, 86, 90, 100) if code.compiles_for(n)] == [90, 100]
