"""What the probes of some trials came to, small enough to be sent from one process to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from wattbench.analysis.checks.outcome import Found, Outcome, Unknown
from wattbench.analysis.checks.trial import TRIAL_CHECKS
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.records import Record

#: Codes of which an import has one finding for all, where every trial that can be judged has it.
SHARED = frozenset(
    {
        "device-mismatch", "gpu-idle", "sampling-coarse", "meter-scope", "startup-in-window",
        "memory-pressure", "modelled-energy", "meter-disagree",
    }
)  # fmt: skip

#: The checks by kind of trial.
_CHECKS = {
    kind: [(c.code, c.probe) for c in TRIAL_CHECKS if kind in c.kinds]
    for kind in ("workload", "idle", "control")
}
_ABSENT = [(c.code, c.probe) for c in TRIAL_CHECKS if c.code == "trial-missing"]


@dataclass
class Shared:
    """Trials of which a code of :data:`SHARED` was found.

    Attributes:
        places: all of them.
        judged: those that did not fail: the ones that can be judged.
        severities: among these.
    """

    places: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)
    severities: set[Severity] = field(default_factory=set)


@dataclass
class Tally:
    """Outcomes of trials, whose places count from 0.

    Attributes:
        probed: code → trials that were looked at.
        judged: code → trials that did not fail and could be told.
        unknown: code → reasons why it could not be told.
        own: place, code and outcome of what each trial has for itself.
        shared: code of :data:`SHARED` → trials of which it was found; their outcomes are probed
            again where each is said.
    """

    probed: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    unknown: dict[str, Counter[str]] = field(default_factory=dict)
    own: list[tuple[int, str, Found]] = field(default_factory=list)
    shared: dict[str, Shared] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Tally:
        """Probe records."""
        tally = cls()
        for place in range(len(records)):
            tally.add([place], records.__getitem__)
        return tally

    def add(
        self,
        places: Sequence[int],
        record: Callable[[int], Record],
        known: Mapping[str, Callable[[int], Found]] = MappingProxyType({}),
    ) -> None:
        """Probe trials whose probes end alike, but for the numbers in what is found.

        Args:
            places: the trials.
            record: gives a trial's record.
            known: codes of which it is known without a record what is found of a trial.
        """
        first = record(places[0])
        failed = first.row.status == "failed"
        for code, probe in checks_of(first):
            self.probed[code] += len(places)
            outcome = probe(first)
            if isinstance(outcome, Unknown):
                self.unknown.setdefault(code, Counter())[outcome.why] += len(places)
                continue
            if not failed:
                self.judged[code] += len(places)
            if outcome is None:
                continue
            if code in SHARED:
                shared = self.shared.setdefault(code, Shared())
                shared.places += places
                if not failed:
                    shared.judged += places
                    shared.severities.add(outcome.severity or CODES[code].severity)
            else:
                self.own.append((places[0], code, outcome))
                for i in places[1:]:
                    found = known[code](i) if code in known else found_of(code, record(i))
                    self.own.append((i, code, found))

    @classmethod
    def joined(cls, parts: Iterable[tuple[Tally, Sequence[int]]]) -> Tally:
        """Parts of a campaign, each with the places of its trials in the whole."""
        whole = cls()
        for part, places in parts:
            whole.probed.update(part.probed)
            whole.judged.update(part.judged)
            for code, whys in part.unknown.items():
                whole.unknown.setdefault(code, Counter()).update(whys)
            whole.own += [(places[i], code, outcome) for i, code, outcome in part.own]
            for code, mine in part.shared.items():
                shared = whole.shared.setdefault(code, Shared())
                shared.places += [places[i] for i in mine.places]
                shared.judged += [places[i] for i in mine.judged]
                shared.severities |= mine.severities
        whole.own.sort(key=lambda one: one[0])
        for shared in whole.shared.values():
            shared.places.sort()
            shared.judged.sort()
        return whole


def checks_of(record: Record) -> Sequence[tuple[str, Callable[[Record], Outcome]]]:
    """Codes and probes that apply to a record."""
    absent = record.row.status in ("missing", "skipped")
    return _ABSENT if absent else _CHECKS[record.row.kind]


def found_of(code: str, record: Record) -> Found:
    """What is found of a trial that is known to have the code."""
    outcome = next(probe for mine, probe in checks_of(record) if mine == code)(record)
    assert isinstance(outcome, Found), (code, record.subject)
    return outcome
