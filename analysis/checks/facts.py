"""What is known of a campaign or run beside its records, typed; documents are read here once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wattbench.analysis.model.machine_state import State, state_of
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.run_document import HostDocument, RunDocument


@dataclass(frozen=True)
class Planned:
    """A planned trial: what the order check needs of it."""

    block: int | None
    kind: str
    image: str


@dataclass(frozen=True)
class Problem:
    """What a host's check found before the first trial; ``severity`` is ``hard`` or ``soft``."""

    code: str
    severity: str
    message: str
    action: str = ""


@dataclass(frozen=True)
class HostFacts:
    """A host before the first trial.

    Attributes:
        state: what must not change in a run: ``boot``, ``kernel``, ``governor``, ``driver``, as far
            as it is known.
        machine: settings of the machine.
        zones: RAPL zone → whether the agent may read it.
        fixes: commands that open closed sensors.
        problems: what its check found.
    """

    state: Mapping[str, str] = field(default_factory=dict)
    machine: State = field(default_factory=dict)
    zones: Mapping[str, bool] = field(default_factory=dict)
    fixes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, document: HostDocument) -> HostFacts:
        """From a host's document: the agent's ``facts``, and the ``problems`` of its check."""
        facts = document.get("facts", {})
        host, sensors = facts.get("host", {}), facts.get("sensors", {})
        drivers = {driver for gpu in facts.get("gpu", ()) if (driver := gpu.get("driver"))}
        state = {
            "boot": host.get("boot"),
            "kernel": host.get("kernel"),
            "governor": facts.get("cpu", {}).get("governor"),
            "driver": "/".join(sorted(drivers)),
        }
        return cls(
            state={key: value for key, value in state.items() if value},
            machine=state_of(facts),
            zones=sensors.get("powercap", {}),
            fixes=tuple(sensors.get("fix", ())),
            problems=tuple(
                Problem(p["code"], p["severity"], p["message"], p.get("action") or "")
                for p in document.get("problems", ())
            ),
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a campaign beside its records.

    Attributes:
        imported: a campaign of others; a fault that all its trials share is one of the campaign.
        plan: host → planned trials, in order.
        expected_trials: trials per image that the campaign claims.
        hosts: host → what was known of it before the first trial.
        with_statistics: judge drift and outliers too; a live run's come from its statistics, which
            look inside blocks.
    """

    imported: bool = False
    plan: Mapping[str, Sequence[Planned]] = field(default_factory=dict)
    expected_trials: int | None = None
    hosts: Mapping[str, HostFacts] = field(default_factory=dict)
    with_statistics: bool = False

    @classmethod
    def of_run(cls, document: RunDocument) -> Facts:
        """From ``run.json``."""
        plan = {
            host: tuple(Planned(row["block"], row["kind"], row["image"]) for row in rows)
            for host, rows in document["plan"].items()
        }
        hosts = {host: HostFacts.of(entry) for host, entry in document.get("hosts", {}).items()}
        return cls(plan=plan, hosts=hosts)

    @property
    def whole(self) -> str:
        """The subject that stands for all of it."""
        return "campaign" if self.imported else "run"


@dataclass(frozen=True)
class Campaign:
    """What a check of a whole campaign or run looks at."""

    records: tuple[Record, ...]
    facts: Facts = Facts()
