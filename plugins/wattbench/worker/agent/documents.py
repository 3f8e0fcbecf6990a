"""Documents that the agent reads, each defined once: its type and, from the same lines, its check.

The controller writes :class:`AttemptSpec` with this definition; :func:`misfit` checks what arrives. Fields
are ``str``, ``bool``, ``int``, ``float`` (whole numbers too), ``list[…]``, ``dict[str, …]``, ``object``,
another document of this module, or alternatives with `` | ``. A field that may be absent may be null too.
"""

from __future__ import annotations

import os

from wattbench.worker.agent.base import NUMBER, CorruptError, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypedDict, TypeVar

    D = TypeVar("D")
else:

    class TypedDict:
        """Stand-in for ``typing.TypedDict``: importing typing costs each call of the agent 3 ms."""

        def __init_subclass__(cls, total: bool = True) -> None:
            cls.total = total


# ---------------------------------------------------------------------------------------- the attempt


class ImageSpec(TypedDict, total=False):
    """The image of an attempt; ``ref`` names it by digest."""

    name: str
    ref: str | None


class VolumeSpec(TypedDict):
    """A folder or file of the host."""

    host: str
    writable: bool


class UlimitSpec(TypedDict):
    """A limit per process; without ``hard`` as ``soft``."""

    soft: int
    hard: int | None


class ContainerSpec(TypedDict, total=False):
    """What a container gets of its host; sizes in bytes."""

    volumes: dict[str, VolumeSpec]
    shm_size: int
    ipc: str
    cpus: float
    cpuset: str
    memory: int
    ulimits: dict[str, UlimitSpec]
    user: str
    workdir: str
    network: str
    tmpfs: dict[str, int]
    capabilities: list[str]


class _MeterKind(TypedDict):
    kind: str


class MeterSpec(_MeterKind, total=False):
    """The host's meter.

    Attributes:
        kind: of a :class:`wattbench.worker.agent.meters.Meter`.
        command: its program: words, or a line of them; None where the meter has none.
        interval_ms: time between two samples.
    """

    command: list[str] | str | None
    interval_ms: int


class _Served(TypedDict):
    port: int
    generator: str
    plan: dict[str, object]


class LinkSpec(TypedDict):
    """Where a load on another machine meets its server.

    Attributes:
        load_host: name of the other machine.
        address: of the server's machine, as the other one reaches it.
        port: there.
        token: what the load generator shows first.
    """

    load_host: str
    address: str
    port: int
    token: str


class ServeSpec(_Served, total=False):
    """How the server in the container is asked.

    Attributes:
        port: that it listens on.
        generator: SHA-256 of the program that asks, a file of the spool.
        plan: that program's input, beside the server's address.
        requests: SHA-256 of its requests; None: the plan has the only one.
        link: how the load reaches the server from another machine; None: it runs beside the server.
    """

    requests: str | None
    link: LinkSpec | None


class _Attempt(TypedDict):
    id: str
    run: str
    host: str
    trial: str
    attempt: int
    owner: str
    runtime: str
    meter: MeterSpec
    timeout_s: float


class AttemptSpec(_Attempt, total=False):
    """Payload of ``start``, and ``spec.json``.

    Attributes:
        id: ``run/host/trial/attempt``.
        owner: holder of the lease.
        runtime: ``docker``: in ``image``; ``process``: on the bare host; ``none``: a command of the host.
        timeout_s: the longest time of the workload.
        kind: of the trial; absent: ``workload``.
        image: None where no container is involved.
        entrypoint: the first word of the workload; None: the image's own.
        command: its other words.
        env: variables.
        files: path in the container → SHA-256 of a file of the spool.
        container: what the container gets of its host.
        controller: folder of the pid files of a controller that runs on this host.
        serve: how the server in the container is asked; None: it holds a program that ends by itself.
        load: of a load on another machine's server: what is asked there, and how it is reached.
        times_lines: whether each line of output gets the time at which it came.
        gpus: UUIDs of the GPUs that the workload gets.
        user: of the container.
        rest: what was read before the attempt, kept with it.
        min_free_bytes: free space without which the attempt is refused.
        lead_s: how long a ``wait`` is waited for before the window opens.
        late: whether it is executed after its block.
        deadline_unix_s: when it must be over; the agent's own note.
    """

    kind: str
    image: ImageSpec | None
    entrypoint: str | None
    command: list[str]
    env: dict[str, str]
    files: dict[str, str]
    container: ContainerSpec
    controller: str | None
    serve: ServeSpec | None
    load: ServeSpec | None
    times_lines: bool
    gpus: list[str]
    user: str | None
    rest: dict[str, object] | None
    min_free_bytes: float
    lead_s: float | None
    late: bool
    deadline_unix_s: float


class Report(TypedDict):
    """What every report of an attempt has; the analysis declares the rest."""

    id: str
    state: str
    message: str
    files: dict[str, object]


# ------------------------------------------------------------------------------- the rest of the spool


class _Moment(TypedDict):
    mono_s: float


class Mark(_Moment, total=False):
    """A moment on the monotonic clock of one boot."""

    boot: str


class _Lease(TypedDict):
    owner: str
    boot: str
    expires_unix_s: float
    expires_mono_s: float


class Lease(_Lease, total=False):
    """The lease; ``active`` names the attempt that runs, ``taken`` marks when it was taken."""

    active: str | None
    taken: Mark


class _Burner(TypedDict):
    owner: str
    process: dict[str, object]
    started: Mark
    seconds: float


class Burner(_Burner, total=False):
    """The warm-up's process; ``elapsed_s`` says that it was ended."""

    elapsed_s: float


# ----------------------------------------------------------------------------------------- the check

#: Type → classes of its values, and what messages call one.
_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "text"), "bool": (bool, "truth value"), "int": (int, "whole number"),
    "float": (NUMBER, "number"), "list": (list, "list"), "dict": (dict, "object"),
    "object": (object, "value"), "None": ((), "null"),
}  # fmt: skip
#: No figure of ours comes near it.
_LARGEST = 1e19


def read_document(path: str, document: type[D]) -> D | None:
    """A file that holds one of this module's documents; None if it is absent.

    Raises:
        CorruptError: it is there but can't be used.
    """
    data: Any = read_object(path)
    why = misfit(data, document) if data is not None else None
    if why:
        raise CorruptError("%s: %s" % (os.path.basename(path), why))
    checked: D | None = data
    return checked


def misfit(data: Mapping[str, Any], document: type, at: str = "") -> str | None:
    """The first field that is missing or has a value of another type; None: there is none.

    Args:
        data: JSON values; keys that the document does not list are not looked at.
        document: one of this module's.
        at: what names of fields begin with in messages.
    """
    for part in reversed(document.__mro__):
        for key, wanted in vars(part).get("__annotations__", {}).items():
            value, name, kinds = data.get(key), at + key, wanted.split(" | ")
            if value is None and part.total and "None" not in kinds:  # type: ignore[attr-defined]
                return "no %s" % name
            whys = [_unfit(value, kind, name) for kind in kinds]
            if value is not None and None not in whys:
                return whys[0]
    return None


def _unfit(value: Any, wanted: str, name: str) -> str | None:
    """Why a value is not of a type; None: it is."""
    base, _, inner = wanted.partition("[")
    kinds, called = _KINDS.get(base, (dict, "object"))
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds not in (bool, object)):
        return "%s is not a %s" % (name, called)
    if isinstance(value, NUMBER) and not abs(value) < _LARGEST:
        return "%s is out of range" % name
    if base not in _KINDS:
        return misfit(value, globals()[base], name + ".")
    items = value.items() if base == "dict" else enumerate(value) if base == "list" else ()
    item = inner[:-1].rpartition(", ")[2]
    return next(filter(None, (_unfit(v, item, "%s[%s]" % (name, k)) for k, v in items)), None)
