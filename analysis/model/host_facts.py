"""The facts of a host from the agent's ``facts`` document: one list for reports, pages and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wattbench.analysis.model import machine_state
from wattbench.analysis.model.facts_document import FactsDocument as Facts


@dataclass(frozen=True)
class HostFact:
    """One fact.

    Attributes:
        key: its name in ``trials.parquet``; stable.
        label: for people.
        read: the stored value, None where the document lacks it.
        show: the value as text.
        lasts: whether it is kept in ``trials.parquet``, so that later runs can be compared with it.
    """

    key: str
    label: str
    read: Callable[[Facts], Any]
    show: Callable[[Any], str] = str
    lasts: bool = True


def _at(*path: str) -> Callable[[Facts], Any]:
    def read(facts: Facts) -> Any:
        value: Any = facts
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return read


def _switch(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _gib(value: Any) -> str:
    return f"{value / 2**30:.1f} GiB"


def _gpus(facts: Facts) -> str | None:
    return ", ".join(str(g.get("name")) for g in facts.get("gpu", ())) or None


def _drivers(facts: Facts) -> str | None:
    return ", ".join(sorted({str(g.get("driver")) for g in facts.get("gpu", ())})) or None


def _idle(facts: Facts) -> str | None:
    idle = facts.get("idle", {})
    units = (("power_w", "W"), ("temperature_c", "°C"), ("cpu_pct", "% CPU"))
    levels = ((idle.get(key), unit) for key, unit in units)
    return ", ".join(f"{level:.1f} {unit}" for level, unit in levels if level is not None) or None


HOST_FACTS: tuple[HostFact, ...] = (
    HostFact("cpu_model", "CPU", _at("host", "cpu_model")),
    HostFact("cores", "cores", _at("host", "cores")),
    HostFact("memory_bytes", "memory", _at("host", "memory_bytes"), _gib),
    HostFact("gpu", "GPU", _gpus),
    HostFact("driver", "GPU driver", _drivers),
    HostFact("virtual", "machine", _at("host", "virtual"),
             lambda value: "virtual" if value else "physical", lasts=False),
    HostFact("os", "system", _at("host", "os")),
    HostFact("kernel", "kernel", _at("host", "kernel")),
    HostFact("docker", "Docker", _at("docker", "version")),
    HostFact("governor", "governor", _at("cpu", "governor")),
    HostFact("turbo", "turbo", _at("cpu", "turbo"), _switch),
    HostFact("smt", "SMT", _at("cpu", "smt"), _switch),
    HostFact("meter", "meter version", _at("meter", "version")),
    HostFact("agent", "agent", _at("agent_sha256"), lambda value: str(value)[:12]),
    HostFact("idle", "idle before the run", _idle, lasts=False),
)  # fmt: skip


def lasting(facts: Facts) -> dict[str, object]:
    """The facts that ``trials.parquet`` keeps, by key; settings of the machine by their dotted keys."""
    settings = machine_state.beside_facts(machine_state.state_of(facts))
    return {f.key: f.read(facts) for f in HOST_FACTS if f.lasts} | settings


def shown(facts: Facts) -> dict[str, str]:
    """The known facts as text, by label."""
    values = ((f, f.read(facts)) for f in HOST_FACTS)
    return {f.label: f.show(value) for f, value in values if value is not None}


def settings_shown(facts: Facts) -> dict[str, str]:
    """The machine's settings as text, without those that :func:`shown` has."""
    settings = machine_state.beside_facts(machine_state.state_of(facts))
    return {key: machine_state.shown(value) for key, value in settings.items()}


def clock(offset_s: float) -> str:
    """The offset of a host's clock against the controller's as text."""
    return f"{1000 * offset_s:+.1f} ms off the controller".replace("-", "−")
