"""The meters: one protocol, one registry.

A meter is a class in one module, listed in the module's ``METERS``. Only :attr:`Meter.kind`,
:attr:`Meter.files`, :meth:`Meter.columns` and :meth:`Meter.row` are needed; all else has a default.
Another distribution adds a meter by an entry point of the group ``wattbench.agent_meters`` that
names its module: Python 3.9, standard library and this package only.
"""

from __future__ import annotations

import functools
import importlib

from wattbench.worker.agent.base import AgentError
from wattbench.worker.agent.meters import extra

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import AttemptSpec, MeterSpec

#: The modules of this package that hold meters. The wrapper loads them just before the window: what
#: is not for reading counters they import where they use it.
MODULES = ("command", "rapl", "hwmon", "nvml")


class Meter:
    """One way to read energy on this host.

    Args:
        gpus: the trial's GPUs that are this meter's (:meth:`owns`).

    Attributes:
        kind: its name in hosts.yaml.
        files: the raw files that it leaves in an attempt's folder; the first is its samples.
        wraps: whether it is a program that runs the workload, not a reader beside it.
        default_command: its program where hosts.yaml names none; None: it must name one.
        margin_s: how long it is sampled before and after the window, s.
    """

    kind = ""
    files: tuple[str, ...] = ()
    wraps = False
    default_command: str | None = None
    margin_s = 0.0

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self.gpus = [str(gpu) for gpu in gpus]

    def begin(self, spec: AttemptSpec, folder: str) -> None:
        """Learn which attempt is about to be sampled.

        Args:
            spec: the attempt's.
            folder: the attempt's.
        """
        del spec, folder

    # -- readings: a reader's samples, one CSV row at a time ------------------------------------------

    def columns(self) -> list[str]:
        """Names of the values that :meth:`row` reads on this host; empty: it can't be read here."""
        return []

    def row(self) -> list[Any]:
        """The values now, in the order of :meth:`columns`; None where one is unknown."""
        return []

    def period_s(self, interval_s: float, configured: bool) -> float:
        """Time between two rows, s.

        Args:
            interval_s: the configured interval.
            configured: whether this is the attempt's meter; others only stand beside it.
        """
        return interval_s if configured else max(1.0, interval_s)

    def counters(self) -> Json:
        """Energy counters at one edge of the window, by keys of its own; must be quick."""
        return {}

    def edge(self) -> Json:
        """State before or after the window, for the report's ``edges``, by keys of its own."""
        return {}

    def settings(self) -> Json:
        """What decides how much its devices draw: a flat table for :mod:`machine`, by dotted keys."""
        return {}

    def idle_mark(self) -> Any:
        """What :meth:`idle_levels` needs from the beginning of the time that it looks back on."""
        return None

    def idle_levels(self, mark: Any, seconds: float) -> Json:
        """Levels that distinguish an idle host from a busy one, as ``power_w`` or ``gpu_temperature_c``."""
        del mark, seconds
        return {}

    # -- the host --------------------------------------------------------------------------------------

    def prove(self, settings: MeterSpec, gpus: Sequence[str], folder: str) -> Json:
        """Show that the meter yields energy.

        Args:
            settings: ``kind``, ``command``, ``interval_ms``.
            gpus: all of the host's given GPUs.
            folder: for files of its own; removed afterwards.

        Returns:
            ``ok``, ``columns``, and where it doesn't, ``message``.
        """
        del settings, gpus, folder
        columns = self.columns()
        message = None if columns else "%s can't be read on this host" % self.kind
        return {"ok": bool(columns), "columns": columns, "message": message}

    def sensors(self) -> Json:
        """What this user can read, for the facts' ``sensors``, by keys of its own."""
        return {}

    def devices(self) -> list[Json]:
        """GPUs of this host that the meter reads, used or not."""
        return []

    @classmethod
    def preparation(cls) -> tuple[str, ...]:
        """Steps of :data:`preparation.STEPS` that a new host needs for it."""
        return ()

    @classmethod
    def fixes(cls, settings: MeterSpec, error: str) -> list[str]:
        """What would let it read what it can't read now.

        Args:
            settings: ``kind``, ``command``, ``interval_ms``.
            error: why its proof failed.
        """
        del settings, error
        return []

    # -- the workload ----------------------------------------------------------------------------------

    @classmethod
    def refusal(cls, settings: MeterSpec) -> str | None:
        """Why an attempt with these settings can't be started."""
        del settings
        return None

    @classmethod
    def version(cls, settings: MeterSpec) -> str | None:
        """What a meter's program calls itself."""
        del settings
        return None

    @classmethod
    def argv(cls, settings: MeterSpec, gpus: Sequence[str], csv: str, output: str) -> list[str]:
        """The command line before the wrapper's, for a meter that :attr:`wraps`."""
        del settings, gpus, csv, output
        return []

    @classmethod
    def owns(cls, gpu: str) -> bool:
        """Whether a GPU of the host's ``gpus`` is this meter's."""
        del gpu
        return False

    def container_options(self) -> list[str]:
        """Options of ``docker run`` that give a container :attr:`gpus`."""
        return []

    def environment(self) -> dict[str, str]:
        """Variables that keep a process to :attr:`gpus`."""
        return {}


@functools.cache
def _load() -> tuple[dict[str, type[Meter]], dict[str, str]]:
    """Meters by kind, those of other distributions first, and why modules can't be imported."""
    found: dict[str, type[Meter]] = {}
    failed: dict[str, str] = {}
    for name in (*extra.MODULES, *MODULES):
        try:
            module = importlib.import_module("wattbench.worker.agent.meters." + name)
            found.update({meter.kind: meter for meter in module.METERS})
        except Exception as error:
            if name in MODULES:
                raise
            failed[name] = "%s: %s" % (type(error).__name__, error)
    return found, failed


def kinds() -> dict[str, type[Meter]]:
    """All meters by kind."""
    return dict(_load()[0])


def find(kind: Any) -> type[Meter]:
    """The meter of a kind.

    Raises:
        AgentError: ``bad-request``: there is none.
    """
    found, failed = _load()
    if isinstance(kind, str) and kind in found:
        return found[kind]
    broken = "".join("; meter module %s: %s" % item for item in failed.items())
    raise AgentError(
        "bad-request",
        "meter kind %r is unknown; there are %s%s" % (kind, ", ".join(sorted(found)), broken),
    )


def raw_files() -> list[str]:
    """Names of all meters' raw files."""
    return list(dict.fromkeys(name for meter in _load()[0].values() for name in meter.files))


def present(gpus: Sequence[str] = ()) -> list[Meter]:
    """One of each meter, with the GPUs that are its own: of those that claim one the first gets it."""
    classes = list(_load()[0].values())
    given: dict[type[Meter], list[str]] = {}
    for gpu in map(str, gpus):
        owner = next((meter for meter in classes if meter.owns(gpu)), None)
        if owner is not None:
            given.setdefault(owner, []).append(gpu)
    return [meter(given.get(meter, ())) for meter in classes]


def counters(readers: Sequence[Meter]) -> Json:
    """Energy counters of all meters, for one edge of the window."""
    reading: Json = {}
    for meter in readers:
        reading.update(meter.counters())
    return reading
