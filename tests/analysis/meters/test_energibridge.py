"""The reader: every fault of a file becomes rows and notes, never an exception but for its size."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.simulated_rapl import Level, Machine, Meter
from tests.support.study import SAMPLE
from wattbench.analysis.meters.energibridge import (
    Kind,
    Samples,
    read,
    spec_of,
)
from wattbench.analysis.model.errors import InputError

LOG = Meter().log(Machine([Level("a", 2.0, 40.0), Level("b", 1.0, 90.0)], 1), 1)
HEADER = b"Delta,Time,DRAM_ENERGY (J),PACKAGE_ENERGY (J),USED_SWAP\n"


def rows(*lines: bytes) -> bytes:
    return HEADER + b"".join(lines)


GOOD = [b"%d,%d,%d.5,%d.25,7\n" % (200, 1000 + 200 * i, 10 + i, 100 + 5 * i) for i in range(6)]


def kinds(samples: Samples) -> list[str]:
    return [note.kind for note in samples.notes]


@pytest.mark.parametrize(
    ("name", "kind", "unit", "domain"),
    [
        ("PACKAGE_ENERGY (J)", Kind.CUMULATIVE, "J", "package"),
        ("CPU_ENERGY (J)", Kind.CUMULATIVE, "J", "package"),
        ("DRAM_ENERGY (J)", Kind.CUMULATIVE, "J", "dram"),
        ("PP0_ENERGY (J)", Kind.CUMULATIVE, "J", "pp0"),
        ("PP1_ENERGY (J)", Kind.CUMULATIVE, "J", "pp1"),
        ("CORE17_ENERGY (J)", Kind.CUMULATIVE, "J", "core17"),
        ("GPU10_POWER (mWatts)", Kind.POWER, "W", "gpu10"),
        ("SYSTEM_POWER (Watts)", Kind.POWER, "W", "system"),
        ("CPU_POWER (Watts)", Kind.POWER, "W", "cpu"),
        ("GPU0_MEMORY_USED", Kind.GAUGE, "B", "gpu0"),
        ("GPU0_TEMPERATURE", Kind.GAUGE, "°C", "gpu0"),
        ("CPU_FREQUENCY_3", Kind.CONSTANT, "MHz", None),
        ("CORE2_FREQ (MHZ)", Kind.GAUGE, "MHz", "core2"),
        ("TOTAL_MEMORY", Kind.CONSTANT, "B", None),
        ("FAN_SPEED", Kind.GAUGE, "", None),
    ],
)
def test_a_columns_name_gives_kind_unit_and_domain(
    name: str, kind: Kind, unit: str, domain: str | None
) -> None:
    spec = spec_of(name)
    assert (spec.kind, spec.unit, spec.domain) == (kind, unit, domain)


def test_units_are_converted_at_the_edge() -> None:
    data = b"Delta,Time,GPU0_MEMORY_USED,GPU0_POWER (mWatts)\n0,1500,3,20500\n200,1700,4,21000\n"
    samples = read(data)
    assert samples.columns["GPU0_MEMORY_USED"].values.tolist() == [3 * 2**20, 4 * 2**20]
    assert samples.columns["GPU0_POWER (mWatts)"].values.tolist() == [20.5, 21.0]
    assert samples.time_s.tolist() == [1.5, 1.7]


def test_all_columns_equal_those_of_another_parser() -> None:
    table = list(csv.reader(io.StringIO(LOG.decode())))
    samples = read(LOG)
    assert not samples.notes
    assert samples.lines.tolist() == list(range(2, len(table) + 1))
    for index, name in enumerate(table[0][2:], start=2):
        assert samples.columns[name].values.tolist() == [float(row[index]) for row in table[1:]]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"])
def test_other_line_ends_read_the_same(ends: bytes) -> None:
    assert read(LOG.replace(b"\n", ends)).time_s.tolist() == read(LOG).time_s.tolist()


def test_mixed_line_ends_read_the_same() -> None:
    lines = LOG.split(b"\n")
    mixed = b"\r\n".join(lines[:5]) + b"\n" + b"\n".join(lines[5:])
    assert read(mixed).lines.tolist() == read(LOG).lines.tolist()


@pytest.mark.parametrize("separator", [";", "\t", "|", "::"])
def test_the_separator_is_taken_from_the_header(separator: str) -> None:
    samples = read(LOG.replace(b",", separator.encode()))
    assert samples.time_s.tolist() == read(LOG).time_s.tolist()
    assert not samples.notes


def test_a_cut_last_row_is_left_out_with_its_line() -> None:
    samples = read(rows(*GOOD)[:-8])
    assert samples.rows == 5
    assert [(n.kind, n.line) for n in samples.notes] == [("partial-row", 7)]


def test_a_last_row_without_line_end_keeps_all_but_its_last_cell() -> None:
    samples = read(rows(*GOOD)[:-1])
    assert samples.rows == 6
    assert samples.columns["PACKAGE_ENERGY (J)"].values[-1] == 125.25
    assert np.isnan(samples.columns["USED_SWAP"].values[-1])
    assert kinds(samples) == ["partial-row"]


def test_repeated_rows_are_dropped_but_equal_times_are_not() -> None:
    twin = GOOD[0].replace(b"100.25", b"100.50")
    samples = read(rows(GOOD[0], twin, *GOOD[1:3], GOOD[2], *GOOD[3:]))
    assert [(n.kind, n.line) for n in samples.notes] == [("repeated-row", 6)]
    assert samples.lines.tolist() == [2, 3, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("cell", [b"n/a", b"", b"nan", b"1.2.3", b"inf", b"\xff\xfe", b"1_0"])
def test_a_cell_that_is_no_number_is_noted_with_line_and_column(cell: bytes) -> None:
    bad = b"200,1600," + cell + b",115.25,7\n"
    samples = read(rows(*GOOD[:3], bad, *GOOD[4:]))
    assert np.isnan(samples.columns["DRAM_ENERGY (J)"].values[3])
    assert samples.rows == 6
    if cell != b"nan":
        assert [(n.kind, n.line, n.column) for n in samples.notes] == [
            ("bad-cell", 5, "DRAM_ENERGY (J)")
        ]


def test_a_bad_cell_of_a_gauge_does_not_hide_the_energies() -> None:
    samples = read(rows(*GOOD[:3], b"200,1600,13.5,115.25,7.7.7\n", *GOOD[4:]))
    assert samples.columns["PACKAGE_ENERGY (J)"].values[3] == 115.25
    assert np.isnan(samples.columns["USED_SWAP"].values[3])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (HEADER, "empty"),
        (b"\x00\x01\x02\xff" * 100, "bad-header"),
        (b"Run,Energy (J)\n1,2\n", "bad-header"),
        (b"Delta,Time,USED_SWAP\n0,1,2\n", "no-energy"),
        (HEADER + b"1,2\n" * 3, "empty"),
    ],
)
def test_a_file_without_energy_says_so(data: bytes, kind: str) -> None:
    samples = read(data)
    assert samples.fatal
    assert kind in kinds(samples)


def test_clock_steps_and_gaps_are_noted_with_their_lines() -> None:
    back = read(rows(*GOOD[:3], b"200,900,13.5,115.25,7\n", *GOOD[4:]))
    assert ("clock-step", 5, True) in [(n.kind, n.line, n.fatal) for n in back.notes]
    late = [b"%d,%d,1,%d,7\n" % (200, 1000 + 200 * i + 5000 * (i > 3), i) for i in range(8)]
    forward = [(n.kind, n.line, n.fatal) for n in read(rows(*late)).notes]
    assert forward == [("gap", 6, False), ("clock-step", 6, False)]


def test_a_second_header_means_two_logs_in_one() -> None:
    samples = read(rows(*GOOD) + rows(*GOOD))
    assert ("repeated-header", 8, True) in [(n.kind, n.line, n.fatal) for n in samples.notes]


def test_notes_of_one_kind_are_counted_after_the_first_ones() -> None:
    samples = read(rows(*GOOD, *[b"junk\n"] * 500))
    assert len(samples.notes) == 21
    assert "480 more" in samples.notes[-1].message


def test_unknown_columns_are_kept_and_reported() -> None:
    samples = read(b"Delta,Time,FAN (rpm),PACKAGE_ENERGY (J)\n0,1,900,2\n5,6,901,3\n")
    assert [(n.kind, n.column) for n in samples.notes] == [("unknown-column", "FAN (rpm)")]
    assert samples.columns["FAN (rpm)"].values.tolist() == [900, 901]


def test_a_log_over_the_limit_is_refused() -> None:
    with pytest.raises(InputError, match="limit"):
        read(LOG, limit=100)


@settings(max_examples=150)
@given(st.integers(0, len(LOG)), st.binary(max_size=40), st.integers(0, 60))
def test_truncation_and_junk_never_raise(at: int, junk: bytes, gone: int) -> None:
    damaged = LOG[:at] + junk + LOG[at + gone :]
    samples = read(damaged)
    assert samples.time_s.size == samples.lines.size
    for column in samples.columns.values():
        assert column.values.shape == samples.time_s.shape


@settings(max_examples=80)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_without_an_exception(data: bytes, after_header: bool) -> None:
    samples = read(HEADER + data if after_header else data)
    assert np.isfinite(samples.time_s).all()


def test_published_logs_read_without_notes_and_equal_another_parser() -> None:
    files = sorted(SAMPLE.glob("*/results/*.csv"))
    assert files
    for file in files:
        table = list(csv.reader(file.read_text().splitlines()))
        samples = read(file.read_bytes())
        assert not samples.notes
        assert samples.interval_s == pytest.approx(10.0, abs=0.01)
        at = table[0].index("PP0_ENERGY (J)")
        assert samples.columns["PP0_ENERGY (J)"].values.tolist() == [
            float(row[at]) for row in table[1:]
        ]
