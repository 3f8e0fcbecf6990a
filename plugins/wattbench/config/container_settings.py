"""Settings of containers: resources, volumes, network, rights. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from wattbench.worker.agent.documents import ContainerSpec
from wattbench.workloads.settings import CpuSet, Model

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

#: Writing to these, or the engine's socket at all, gives a container the host.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)
#: The sockets of the host's services lie here, and what leads to its root: read-only does not keep them away.
_REACHING = ("/proc", "/run", "/var/run")
#: Capabilities that reach beyond the container.
_PRIVILEGED = frozenset(
    {
        "ALL", "BPF", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "PERFMON", "SYS_ADMIN",
        "SYS_BOOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYSLOG",
    }
)  # fmt: skip


def _bytes(value: object) -> object:
    """``8g``, ``512 MiB`` or a number of bytes, as bytes; powers of 1024, as Docker counts."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is not a size; write 8g, 512m or a number of bytes")
    return int(float(found[1]) * _FACTORS[found[2].lower()])


def _inner_path(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path or set(",\n\0") & set(path):
        raise ValueError(f"{path!r} is not an absolute path without '..' and commas")
    return path


def _capability(name: str) -> str:
    name = name.upper().removeprefix("CAP_")
    if name in _PRIVILEGED:
        raise ValueError(f"the capability {name} would make the container privileged; remove it")
    return name


def _user(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    Field(ge=1 << 12),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1 << 12}]}),
]
Path = Annotated[str, AfterValidator(_inner_path)]
User = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"),
    BeforeValidator(_user, json_schema_input_type=str | int),
]
Network = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Capability = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]+$"), AfterValidator(_capability)]


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path is one of the folders, or lies in one."""
    return any(posixpath.commonpath([path, folder]) == folder for folder in folders)


class Volume(Model):
    """A folder or file of the host.

    Attributes:
        host: Its path on every host.
        writable: Whether the container may write to it.
    """

    host: Path
    writable: bool = False

    @model_validator(mode="after")
    def _keeps_the_host_out(self) -> Volume:
        whole = self.host in ("/", "/sys", "/dev") or self.host.endswith(".sock")
        if whole or _is_below(self.host, _REACHING):
            raise ValueError(f"{self.host} would give the container the host; mount what it needs")
        if self.writable and _is_below(self.host, _SYSTEM):
            raise ValueError(f"{self.host} belongs to the host's system; remove writable")
        return self


class Ulimit(Model):
    """A limit per process.

    Attributes:
        soft: Limit at the start.
        hard: Limit to which a process may raise it; null: as ``soft``.
    """

    soft: Annotated[int, Field(ge=-1)]
    hard: Annotated[int, Field(ge=-1)] | None = None

    @model_validator(mode="after")
    def _soft_within_hard(self) -> Ulimit:
        unlimited = self.hard in (None, -1)
        if not unlimited and (self.soft == -1 or self.soft > (self.hard or 0)):
            raise ValueError(f"soft: {self.soft} is more than hard: {self.hard}; raise hard")
        return self


UlimitName = Literal[
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "sigpending", "stack",
]  # fmt: skip


def _volume(value: object) -> object:
    return {"host": value} if isinstance(value, str) else value


def _ulimit(value: object) -> object:
    return {"soft": value} if isinstance(value, int) else value


PathOrVolume = Annotated[Volume, BeforeValidator(_volume, json_schema_input_type=str | Volume)]
NumberOrUlimit = Annotated[Ulimit, BeforeValidator(_ulimit, json_schema_input_type=int | Ulimit)]


class ContainerSettings(Model):
    """What a container gets of its host. It has no new privileges, and no capability that is not named.

    Attributes:
        volumes: Path in the container → path on the host, read-only; ``{host: …, writable: true}`` otherwise.
        shm_size: Size of ``/dev/shm``: ``8g``, ``512m`` or bytes.
        ipc: Whose shared memory it has: ``private`` its own, ``host`` the host's, ``none`` no ``/dev/shm``.
        cpus: CPU time that it may use, CPUs.
        cpuset: CPUs that it may run on, for example ``0-3,8``.
        memory: Most memory: ``8g``, ``512m`` or bytes; no swap beyond it.
        ulimits: Limits per process, by name: a number or ``{soft: …, hard: …}``.
        user: ``uid`` or ``uid:gid``, names of the image allowed; null: the image's.
        workdir: Working directory; null: the image's.
        network: ``none``, ``bridge``, ``host``, or a network of the hosts' Docker; null: ``none``.
        tmpfs: Path in the container → size of a file system in memory.
        capabilities: Linux capabilities that it keeps; those that reach the host are refused.
    """

    volumes: dict[Path, PathOrVolume] = Field(default={})
    shm_size: Bytes | None = None
    ipc: Literal["private", "host", "none"] | None = None
    cpus: Annotated[float, Field(gt=0)] | None = None
    cpuset: CpuSet | None = None
    memory: Bytes | None = None
    ulimits: dict[UlimitName, NumberOrUlimit] = Field(default={})
    user: User | None = None
    workdir: Path | None = None
    network: Network | None = None
    tmpfs: dict[Path, Bytes] = Field(default={})
    capabilities: list[Capability] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _never_privileged(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("privileged"):
            raise ValueError(
                "privileged: a measured container never gets the host; name volumes or capabilities"
            )
        return value

    @model_validator(mode="after")
    def _shared_memory_has_one_owner(self) -> ContainerSettings:
        if self.shm_size is not None and self.ipc in ("host", "none"):
            raise ValueError(f"shm_size has no effect with ipc: {self.ipc}; remove one of them")
        return self

    def set_keys(self) -> ContainerSpec:
        """What is set, JSON-ready; mappings that are empty are not."""
        values = self.model_dump(mode="json")
        return cast("ContainerSpec", {k: v for k, v in values.items() if v not in (None, {}, [])})

    def changed(self, changes: ContainerSettings) -> ContainerSettings:
        """These settings with those of an image or a level over them; mappings are joined."""
        own: dict[str, Any] = {**self.set_keys()}
        new: dict[str, Any] = {**changes.set_keys()}
        joined = {k: own[k] | v for k, v in new.items() if k in own and isinstance(v, dict)}
        return ContainerSettings.model_validate(own | new | joined)
