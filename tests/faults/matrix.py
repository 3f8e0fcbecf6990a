"""Faults, phases of a run, and which pairs of them cannot be made on the test bed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple


class Phase(StrEnum):
    """Where a run is when a fault comes; in the order of a run."""

    PULL = "pull"
    WARM_UP = "warm-up"
    WINDOW = "window"
    COLLECT = "collect"
    UPLOAD = "upload"
    ANALYZE = "analyze"


#: All phases: the window first, so that a run of some minutes tries every fault where it matters most.
ORDER: Final = (
    Phase.WINDOW, Phase.COLLECT, Phase.PULL, Phase.UPLOAD, Phase.WARM_UP, Phase.ANALYZE,
)  # fmt: skip


class End(StrEnum):
    """How a run has to end."""

    ONCE = "green; every trial measured by its first attempt"
    GREEN = "green; every trial measured"
    HONEST = "green exactly if every trial is measured"
    RED = "red"
    CLOSED = "closed from outside; the run itself is gone"


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: of the row, and of the function that injects it (test_faults.py).
        end: how runs with it have to end.
        impossible: phase → why this pair can't be made.
        is_shared: runs on other hosts meet it too, so that none may go on beside it.
    """

    name: str
    end: End
    impossible: Mapping[Phase, str] = field(default_factory=dict)
    is_shared: bool = False


def _only(reason: str, *possible: Phase) -> dict[Phase, str]:
    return {phase: reason for phase in Phase if phase not in possible}


_HOST_FREE = {Phase.ANALYZE: "the host has been given back before analyze"}
_ALL_MEASURED = {
    Phase.ANALYZE: "only teardowns are left, which Airflow runs to their end whatever the mark"
}
_NO_ATTEMPT = _only("no attempt is running on the host", Phase.PULL, Phase.WINDOW)
_IN_TRIGGERER = dict.fromkeys(
    (Phase.WARM_UP, Phase.WINDOW), "the task waits in the triggerer and has no process"
)
_NO_CONTAINER = _only("no container is measured", Phase.WINDOW)

FAULTS: Final = (
    # the controller
    Fault("task process killed", End.ONCE, _IN_TRIGGERER),
    Fault("scheduler killed", End.ONCE, is_shared=True),
    Fault("triggerer killed", End.ONCE, is_shared=True),
    Fault("api-server killed", End.ONCE, is_shared=True),
    Fault("dag-processor killed", End.ONCE, is_shared=True),
    Fault("database locked for 30 s", End.ONCE, is_shared=True),
    Fault(
        "disk of the controller full", End.HONEST,
        _only("the controller of the test bed shares the disk of this machine"),
    ),
    # between controller and host
    Fault("link down for 5 s", End.GREEN, _HOST_FREE),
    Fault("link down for 5 min", End.HONEST, _HOST_FREE),
    Fault("sshd killed", End.GREEN, _HOST_FREE),
    # on the host
    Fault("agent killed", End.GREEN, _HOST_FREE | {
        Phase.WARM_UP: "the burner outlives the call that starts it; calls last milliseconds",
        Phase.COLLECT: "the triggerer has brought the files by then; nothing runs on the host",
        Phase.UPLOAD: "nothing runs on the host while its files are uploaded",
    }),
    Fault("supervisor killed", End.GREEN, _NO_ATTEMPT),
    Fault("meter killed", End.GREEN, _NO_ATTEMPT),
    Fault("meter hangs", End.GREEN, _only("no meter runs", Phase.WINDOW, Phase.PULL)),
    Fault("meter exits 0 without a file", End.GREEN,
          _only("check has just tried the meter, or no meter starts any more", Phase.WINDOW)),
    Fault("clock of the meter steps back by 9 s", End.GREEN,
          _only("hosts of the test bed share this machine's clock; the stand-in meter can step its own",
                Phase.WINDOW)),
    Fault("container out of memory", End.HONEST, _NO_CONTAINER),
    Fault("container hangs", End.HONEST, _NO_CONTAINER),
    Fault("container killed", End.HONEST, _NO_CONTAINER),
    Fault("dockerd killed", End.GREEN, _HOST_FREE),
    Fault("host rebooted", End.GREEN, _HOST_FREE),
    Fault("host without power for 5 s", End.GREEN, _HOST_FREE),
    Fault("spool full for 20 s", End.HONEST,
          _only("nothing is written to the spool", Phase.WARM_UP, Phase.WINDOW, Phase.COLLECT)),
    # what a run needs beside them
    Fault("store down for 20 s", End.ONCE, is_shared=True),
    Fault("store slow for 20 s", End.ONCE, is_shared=True),
    Fault("store refuses its keys for 20 s", End.ONCE, is_shared=True),
    Fault("store damages an object", End.HONEST,
          _only("collect reads back what it has written; only analyze and people read it later",
                Phase.ANALYZE)),
    Fault("registry down for 20 s", End.ONCE,
          _only("images are on the host; nothing asks the registry", Phase.PULL), is_shared=True),
    # others
    Fault("a second controller takes the host", End.ONCE, _HOST_FREE),
    Fault("a second run is triggered", End.ONCE),
    # a person
    Fault("run marked failed", End.RED, _ALL_MEASURED),
    Fault("run marked success", End.RED, _ALL_MEASURED),
    Fault("run cleared", End.GREEN),
    Fault("run paused for 20 s", End.ONCE),
    Fault("run deleted", End.CLOSED),
    Fault("experiment's file broken for 20 s", End.ONCE),
    Fault("experiment's file removed for 20 s", End.ONCE),
    Fault("hosts.yaml broken for 20 s", End.ONCE, is_shared=True),
)  # fmt: skip


class Cell(NamedTuple):
    """A fault in a phase."""

    fault: Fault
    phase: Phase

    @property
    def key(self) -> str:
        """Its name among the outcomes, and in pytest."""
        return f"{self.fault.name}, {self.phase}"


def cells() -> list[Cell]:
    """All pairs that can be made, in the order in which they are tried."""
    return [Cell(f, phase) for phase in ORDER for f in FAULTS if phase not in f.impossible]
