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


# ── a load generator on another machine ─────────────────────────────────────────────────────────


def load_lines(off_s: float, drift_s: float = 0.0, trip_s: float = 0.001) -> list[str]:
    """A load whose own clock is behind the host's by so much, and by more at its end."""

    def own(at: float) -> float:  # what its clock shows at a moment of the host
        return at - off_s - drift_s * (at - 1.0) / 8.0

    def clock(at: float, cpu_s: float) -> str:
        ahead_s = at - own(at)
        return line("clock", own(at), ahead_s=ahead_s, trip_s=trip_s, relay_cpu_s=cpu_s)

    return [
        line("start", own(1.0), program="load", unit="request", protocol=1),
        clock(1.0, 0.1),
        *phase("warmup", own(1.0), own(2.0)),
        *phase("steady:c8", own(2.0), own(9.0)),
        clock(9.0, 0.4),
        line("end", own(9.0)),
    ]


@pytest.mark.parametrize("off_s", [0.0, 0.02, -3600.0, 86400.0])
@pytest.mark.parametrize("drift_s", [0.0, 0.01])
def test_moments_of_another_machine_are_moved_to_the_host_s_clock(
    off_s: float, drift_s: float
) -> None:
    log = parse(data(load_lines(off_s, drift_s)))
    parts = log.phases(T0, T0 + 10.0)
    assert [p.name for p in parts] == ["start", "warmup", "steady:c8", "stop"]
    edges = [p.end_s - T0 for p in parts]
    assert edges == pytest.approx([1.0, 2.0, 9.0, 10.0], abs=1e-5)
    assert log.clock is not None
    assert log.clock.doubt_s == pytest.approx(0.0005 + drift_s / 2, abs=1e-6)
    assert log.clock.ahead_s == pytest.approx(off_s + drift_s / 2, abs=1e-5)
    assert log.clock.relay_cpu_s == pytest.approx(0.3)
    assert log.notes == ()


def test_a_clock_that_steps_in_the_load_is_fatal() -> None:
    (note,) = parse(data(load_lines(0.0, 0.2))).notes
    assert (note.kind, note.fatal) == ("clock-step", True)
    assert note.message == "the load host's clock moved by 0.200 s against the host's"


def test_a_clock_that_was_compared_once_is_in_more_doubt() -> None:
    lines = load_lines(5.0)
    del lines[-2]
    log = parse(data(lines))
    assert log.clock is not None
    assert log.clock.doubt_s == pytest.approx(0.0505)
    assert log.clock.relay_cpu_s is None


def test_only_a_load_moves_moments() -> None:
    lines = [line("start", 0.5, program="mine"), line("clock", 1.0, ahead_s=9.0, trip_s=0.1)]
    log = parse(data(lines))
    assert (log.first_s, log.clock) == (T0 + 0.5, None)
