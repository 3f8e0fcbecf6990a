"""The workload's lines: what it did, and the window's parts without holes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.analysis.meters.workload_log import parse

T0 = 1_750_000_000.0


def line(event: str, at: float, **fields: object) -> str:
    return json.dumps({"event": event, "unix_s": T0 + at, "mono_s": 100.0 + at, **fields})


def phase(name: str, begin: float, end: float) -> list[str]:
    return [
        line("phase", begin, name=name, edge="begin"),
        line("phase", end, name=name, edge="end"),
    ]


LINES = [
    line("start", 0.5, program="resnet50", framework="torch", precision="fp32"),
    *phase("import", 0.5, 2.0),
    line("device", 2.0, requested="cuda", actual="cpu", name="AMD EPYC", uuid=None),
    line("versions", 2.0, torch="2.13.0", threads=2),
    *phase("load", 2.0, 3.0),
    line("weights", 3.0, sha256="ab" * 32, parameters=25_557_032, source="generated"),
    line("input", 3.0, resolution=256, sha256="cd" * 32),
    *phase("warmup", 3.0, 3.5),
    *phase("steady:256", 3.5, 8.0),
    line(
        "result", 8.0, phase="steady:256", resolution=256, iterations=40, batch=2, images=80,
        duration_s=4.5, fingerprint=[0.25, -1.5],
    ),
    line("end", 8.01, images=80),
]  # fmt: skip


def data(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def test_what_the_workload_says_is_kept() -> None:
    log = parse(data(LINES))
    work = log.work
    assert (work.program, work.framework, work.precision) == ("resnet50", "torch", "fp32")
    assert (work.device_requested, work.device_actual) == ("cuda", "cpu")
    assert work.versions == {"torch": "2.13.0", "threads": 2}
    assert work.parameters == 25_557_032
    assert work.inputs_sha256 == {"256": "cd" * 32}
    assert work.results[0].images == 80
    assert work.results[0].fingerprint == (0.25, -1.5)
    assert work.finished is True
    assert log.notes == ()


def test_the_windows_parts_have_no_holes() -> None:
    parts = parse(data(LINES)).phases(T0, T0 + 8.2)
    assert [p.name for p in parts] == ["start", "import", "load", "warmup", "steady:256", "stop"]
    assert (parts[0].start_s, parts[-1].end_s) == (T0, T0 + 8.2)
    for earlier, later in itertools.pairwise(parts):
        assert earlier.end_s == later.start_s
    assert parts[4].end_s - parts[4].start_s == pytest.approx(4.51)


def test_notable_time_between_phases_is_shown() -> None:
    lines = [*phase("import", 0.5, 2.0), *phase("steady:256", 4.0, 8.0)]
    parts = parse(data(lines)).phases(T0, T0 + 8.2)
    assert [p.name for p in parts] == ["start", "import", "other", "steady:256", "stop"]


def test_a_phase_that_failed_lasts_to_the_last_event() -> None:
    lines = [
        *LINES[:3],
        line("phase", 3.0, name="load", edge="begin"),
        line("error", 4.0, message="no"),
    ]
    log = parse(data(lines))
    assert [s.name for s in log.spans] == ["import", "load"]
    assert log.spans[-1].end_s == T0 + 4.0
    assert [n.kind for n in log.notes] == ["phase"]
    assert log.work.errors == ("no",)
    assert log.work.finished is False


def test_other_output_between_the_lines_is_passed_over() -> None:
    noisy = [
        LINES[0],
        "Downloading: 40%",
        "{broken",
        '"text"',
        "[1, 2]",
        '{"event": 5}',
        '{"event": "end", "unix_s": 1.5, "images": NaN}',
        *LINES[1:],
    ]
    log = parse(b"\xff\xfe\x00\n" + data(noisy))
    assert log.work == parse(data(LINES)).work
    assert [n.line for n in log.notes] == [1, 3, 4, 5, 6, 7, 8]


def test_silence_is_nothing_said() -> None:
    log = parse(b"")
    assert log.work.finished is None
    assert log.phases(T0, T0 + 1) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = st.sampled_from(
    [
        "name",
        "edge",
        "requested",
        "actual",
        "sha256",
        "parameters",
        "resolution",
        "phase",
        "iterations",
        "batch",
        "images",
        "duration_s",
        "fingerprint",
        "message",
    ]
)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "start",
                    "phase",
                    "device",
                    "versions",
                    "weights",
                    "input",
                    "result",
                    "error",
                    "end",
                ]
            ),
            st.floats(0, 10),
            st.dictionaries(_FIELDS, _JSON | st.sampled_from(["begin", "end", "load"]), max_size=6),
        ),
        max_size=12,
    )
)
def test_fields_of_any_type_never_raise_and_parts_never_overlap(
    events: list[tuple[str, float, dict[str, object]]],
) -> None:
    log = parse(data([line(kind, at, **fields) for kind, at, fields in events]))
    parts = log.phases(T0 + 1, T0 + 9)
    for earlier, later in itertools.pairwise(parts):
        assert earlier.end_s == later.start_s
    if parts:
        assert (parts[0].start_s, parts[-1].end_s) == (T0 + 1, T0 + 9)
