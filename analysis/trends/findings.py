"""What many or few runs give cause to say, as findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Evidence, Finding, finding
from wattbench.analysis.presentation.formatting import interval, pct
from wattbench.analysis.stats.control_chart import RECENT_RUNS
from wattbench.analysis.stats.results import Interval, PairVerdict
from wattbench.analysis.stats.verdicts import to_pct
from wattbench.analysis.trends.fact_changes import FactChange, concerning, short
from wattbench.analysis.trends.level_changes import Change
from wattbench.analysis.trends.levels import CONTROL, Baseline
from wattbench.analysis.trends.read import StoredRun
from wattbench.analysis.trends.series import HostNights, Track, is_shared
from wattbench.analysis.trends.side_by_side import Difference


@dataclass(frozen=True)
class Rise:
    """A change of level that is an alert.

    Attributes:
        track: where.
        change: the largest rise since the lowest level.
        now_pct: how far the last level lies above the one before that rise (or, in several steps,
            above the lowest), %.
        steps: changes since the lowest level.
    """

    track: Track
    change: Change
    now_pct: float
    steps: int


def regression(track: Track, limit_pct: float) -> Rise | None:
    """The rise that stands now, if it is at least the limit: against the lowest level before it."""
    changes, levels = track.course.changes, track.levels
    if not changes:
        return None
    lowest = min(range(len(levels)), key=lambda i: levels[i])
    now_pct = to_pct(levels[-1] - levels[lowest])
    if lowest == len(levels) - 1 or now_pct < limit_pct:
        return None
    since = changes[lowest:]
    largest = max(since, key=lambda c: c.shift)
    return Rise(track, largest, now_pct, len(since))


@dataclass(frozen=True)
class Watch:
    """What findings are made from."""

    runs: Sequence[StoredRun]
    facts: Sequence[FactChange]
    limit_pct: float

    def of_host(self, host: HostNights) -> list[Finding]:
        """Regressions, other changes of level, and the host's own state."""
        found = [f for t in host.tracks for f in self._track(host, t)]
        found += [self._shared(host, s.track, s.change) for s in host.shared]
        found += self._verdicts_of_none(host, found)
        found += self._own(host)
        return [*found, *_state(host.baseline), *_quarantine(host)]

    def _track(self, host: HostNights, track: Track) -> list[Finding]:
        rise = regression(track, self.limit_pct)
        found = []
        for change in track.course.changes:
            if is_shared(host, track, change):
                continue
            if rise is not None and change is rise.change:
                found.append(self._regression(host, rise))
            else:
                found.append(self._drift(host, track, change))
        return found

    def _regression(self, host: HostNights, rise: Rise) -> Finding:
        track, change = rise.track, rise.change
        now = (
            f"; in {rise.steps} steps it is {rise.now_pct:+.2f} % above its lowest level"
            if rise.steps > 1
            else ""
        )
        return finding(
            "regression",
            Verdict.FOUND,
            f"image {track.image}",
            f"{self._sentence(host, track, change)}{now}{self._word(change)}",
            **self._evidence(host, track, change),
            now_pct=rise.now_pct,
            limit_pct=self.limit_pct,
        )

    def _drift(self, host: HostNights, track: Track, change: Change) -> Finding:
        fell = change.shift < 0
        return finding(
            "drift",
            Verdict.FOUND,
            f"image {track.image}",
            self._sentence(host, track, change) + self._word(change),
            severity=Severity.INFO if fell else Severity.WARNING,
            **self._evidence(host, track, change),
            kind="step",
        )

    def _shared(self, host: HostNights, track: Track, change: Change) -> Finding:
        """A change of the reference, seen as one of everything else."""
        reference = str(host.baseline.name)
        risen = change.shift > 0 and to_pct(change.shift) >= self.limit_pct
        message = (
            f"{_on(host)}every image moved by about {to_pct(-change.shift):+.2f} % against {reference} "
            f"on the night of {self._night(track, change)}: it was {reference} that changed, by "
            f"{_size(change)}{self._what(host, [reference], track, change)}{self._word(change)}"
        )
        mild = Severity.INFO if change.shift < 0 else Severity.WARNING
        return finding(
            "regression" if risen else "drift",
            Verdict.FOUND,
            f"image {reference}",
            message,
            severity=None if risen else mild,
            **self._evidence(host, track, change, image=reference),
            kind="step",
        )

    def _own(self, host: HostNights) -> list[Finding]:
        """How the baseline's own joules moved: the host's state, or the reference image.

        One finding per host: ambient temperature drifts over the year, and all steps are in the tables.
        """
        own = host.own
        if own is None or not own.course.changes:
            return []
        changes = own.course.changes
        largest = max(changes, key=lambda c: abs(c.shift))
        is_control = host.baseline.name == CONTROL
        who = "the control workload" if is_control else str(host.baseline.name)
        cause = "images are compared with it" if is_control else "the host or this image changed"
        steps = "one step" if len(changes) == 1 else f"{len(changes)} steps, the largest"
        large = abs(to_pct(largest.shift)) >= self.limit_pct
        return [
            finding(
                "drift",
                Verdict.FOUND,
                f"host {host.host}" if host.host else "campaign",
                f"{_on(host)}the joules of {who} itself moved in {steps} of {_size(largest)} on the night "
                f"of {self._night(own, largest)}: {cause}"
                f"{self._what(host, [str(host.baseline.name)], own, largest)}{self._word(largest)}",
                severity=Severity.WARNING if large else Severity.INFO,
                **self._evidence(host, own, largest, image=str(host.baseline.name)),
                steps=len(changes),
                kind="step",
            )
        ]

    def _verdicts_of_none(self, host: HostNights, found: Sequence[Finding]) -> list[Finding]:
        """Checks that found nothing or could not decide."""
        subject = f"host {host.host}" if host.host else "campaign"
        short_ones = [t.image for t in host.tracks if t.course.reason]
        result = []
        if not host.tracks:
            why = host.baseline.reason or "no image with a level to follow"
            result.append(finding("regression", Verdict.UNDECIDABLE, subject, why))
        elif short_ones:
            track = next(t for t in host.tracks if t.course.reason)
            result.append(
                finding(
                    "regression", Verdict.UNDECIDABLE, subject,
                    f"{', '.join(short_ones)}: {track.course.reason}",
                )
            )  # fmt: skip
        if host.tracks and not any(f.code == "regression" for f in [*found, *result]):
            nights = max(len(t.runs) for t in host.tracks)
            result.append(
                finding(
                    "regression", Verdict.NOT_FOUND, subject,
                    f"no image of {len(host.tracks)} needs {self.limit_pct:g} % more than before "
                    f"over {nights} nights",
                )
            )  # fmt: skip
        return result

    def _sentence(self, host: HostNights, track: Track, change: Change) -> str:
        return (
            f"{_on(host)}{track.image} uses {_size(change)} against {host.baseline.name} from the night "
            f"of {self._night(track, change)} on"
            f"{self._what(host, [track.image, str(host.baseline.name)], track, change)}"
        )

    def _night(self, track: Track, change: Change) -> str:
        run = self.runs[track.runs[change.index]]
        first, last = (self.runs[track.runs[i]].night for i in (change.earliest, change.latest))
        spread = "" if first == last else f"; plausible: {first} to {last}"
        return f"{run.night} ({run.run_id}{spread})"

    def _changed(
        self, host: HostNights, images: Sequence[str], track: Track, change: Change
    ) -> tuple[FactChange, ...]:
        after = track.runs[change.earliest - 1] if change.earliest else -1
        return concerning(self.facts, host.host, images, after, track.runs[change.latest])

    def _what(self, host: HostNights, images: Sequence[str], track: Track, change: Change) -> str:
        changed = self._changed(host, images, track, change)
        if not changed:
            return "; no recorded fact changed then"
        return "; changed then: " + ", ".join(str(c) for c in changed)

    def _word(self, change: Change) -> str:
        if change.settled:
            return ""
        nights = "1 night" if change.after == 1 else f"{change.after} nights"
        return f" (seen in {nights} only, to be confirmed)"

    def _evidence(
        self, host: HostNights, track: Track, change: Change, image: str | None = None
    ) -> Evidence:
        name = image or track.image
        images = [name, str(host.baseline.name)]
        run = self.runs[track.runs[change.index]]
        own = image is None or (host.own is track)
        return {
            "host": host.host,
            "image": name,
            "baseline": host.baseline.name,
            "first_night": run.night,
            "first_run": run.run_id,
            "plausible_nights": [
                self.runs[track.runs[i]].night for i in (change.earliest, change.latest)
            ],
            "change_pct": to_pct(change.shift),
            "lower_pct": to_pct(change.lower),
            "upper_pct": to_pct(change.upper),
            "p_corrected": change.p,
            "nights_before": change.before,
            "nights_after": change.after,
            "confirmed": change.settled,
            "digest_before": track.digests[change.index - 1] if own else None,
            "digest_after": track.digests[change.index] if own else None,
            "changed": [
                {
                    "night": self.runs[c.run].night, "host": c.host, "what": c.what,
                    "image": c.image, "before": c.before, "after": c.after,
                }
                for c in self._changed(host, images, track, change)
            ],
        }  # fmt: skip

    def of_facts(self) -> list[Finding]:
        """A finding per run and host whose facts changed, one per run for digests and for work."""
        groups: dict[tuple[int, str, str], list[FactChange]] = {}
        for c in self.facts:
            code = "workload-changed" if c.image else "state-changed"
            kind = "work" if c.what == "inferences in a trial" else code
            groups.setdefault((c.run, c.host, kind), []).append(c)
        found = []
        for (place, host, kind), changes in sorted(groups.items()):
            run = self.runs[place]
            what = ", ".join(str(c) for c in changes)
            severity = {"work": Severity.ERROR, "workload-changed": Severity.INFO}.get(kind)
            note = {
                "work": "the same image did other work than before: joules can't be compared",
                "workload-changed": "another digest is another treatment; changes are named by it",
            }.get(kind, "")
            found.append(
                finding(
                    "state-changed" if kind == "state-changed" else "workload-changed",
                    Verdict.FOUND,
                    f"host {host}" if host else "run",
                    f"{f'{host}: ' if host else ''}since {run.night} ({run.run_id}): {what}",
                    severity=severity,
                    night=run.night,
                    run_id=run.run_id,
                    note=note,
                    changed=[{"what": c.what, "image": c.image, "before": c.before, "after": c.after}
                             for c in changes],
                )
            )  # fmt: skip
        if not found:
            found.append(
                finding(
                    "state-changed", Verdict.NOT_FOUND, "campaign",
                    "no recorded fact differs between the runs",
                )
            )  # fmt: skip
        return found

    def of_differences(self, differences: Sequence[Difference]) -> list[Finding]:
        """Whether an image got worse from the first run to a later one."""
        return [self._difference(d) for d in differences]

    def _difference(self, d: Difference) -> Finding:
        interval, estimate = d.pair.simultaneous, d.pair.estimate_pct
        before, after = self.runs[d.before].run_id, self.runs[d.after].run_id
        host = d.host_after if d.host_after == d.host_before else ""
        changed = concerning(self.facts, host, [d.image, d.baseline], d.before, d.after)
        tail = ", ".join(str(c) for c in changed)
        evidence: Evidence = {
            "image": d.image, "host": d.host_after, "host_before": d.host_before,
            "run_before": before, "run_after": after, "baseline": d.baseline,
            "change_pct": estimate, "n": d.pair.n, "limit_pct": self.limit_pct,
            "lower_pct": interval.lower_pct if interval else None,
            "upper_pct": interval.upper_pct if interval else None,
            "changed": [{"what": c.what, "image": c.image, "before": c.before, "after": c.after}
                        for c in changed],
        }  # fmt: skip
        subject = f"image {d.image}"
        if estimate is None:
            return finding(
                "regression", Verdict.UNDECIDABLE, subject, f"{d.subject}: {d.pair.reason}",
                **evidence,
            )  # fmt: skip
        message = (
            f"{d.subject} uses {estimate:+.2f} % against {d.baseline} in {after} compared with "
            f"{before} ({_interval(interval)})" + (f"; changed between: {tail}" if tail else "")
        )
        severity = None
        if d.pair.verdict is PairVerdict.MORE and estimate >= self.limit_pct:
            verdict = Verdict.FOUND
            # Runs scatter beyond the noise inside them: only a rise shown to exceed the limit is
            # an error.
            if (
                interval is None
                or interval.lower_pct is None
                or interval.lower_pct < self.limit_pct
            ):
                severity = Severity.WARNING
                message += f"; that it is {self.limit_pct:g} % or more is not shown"
        elif interval is None or interval.upper_pct is None or interval.upper_pct >= self.limit_pct:
            verdict = Verdict.UNDECIDABLE
            message += f"; a rise of {self.limit_pct:g} % can't be ruled out"
        else:
            verdict = Verdict.NOT_FOUND
        return finding("regression", verdict, subject, message, severity=severity, **evidence)


def _on(host: HostNights) -> str:
    return f"{host.host}: " if host.host else ""


def _size(change: Change) -> str:
    shift, low, high = (to_pct(v) for v in (change.shift, change.lower, change.upper))
    return f"{pct(shift, 2)} energy ({_interval(Interval(shift, low, high, 0.95))})"


def _interval(found: Interval | None) -> str:
    return "no interval" if found is None else f"95 % interval {interval(found)}"


def _state(baseline: Baseline) -> list[Finding]:
    subject = f"host {baseline.host}" if baseline.host else "campaign"
    prefix = f"{baseline.host}: " if baseline.host else ""
    found = []
    if baseline.note:
        found.append(finding("meter-scope", Verdict.FOUND, subject, f"{prefix}{baseline.note}"))
    if baseline.energy_source == "mixed":
        found.append(
            finding(
                "modelled-energy", Verdict.FOUND, subject,
                f"{prefix}some runs are measured and some modelled: their joules can't be compared",
                severity=Severity.ERROR,
            )
        )  # fmt: skip
    elif baseline.energy_source == "modelled":
        found.append(
            finding("modelled-energy", Verdict.FOUND, subject, f"{prefix}all joules are modelled")
        )
    return found


def states(baselines: Sequence[Baseline]) -> list[Finding]:
    """What is wrong with hosts' joules as such."""
    return [f for b in baselines for f in _state(b)]


def _quarantine(host: HostNights) -> list[Finding]:
    subject = f"host {host.host}" if host.host else "campaign"
    judged = host.quarantine
    if judged is None:
        return [
            finding(
                "host-unsteady", Verdict.UNDECIDABLE, subject,
                f"{_on(host)}no control workload: the host's steadiness is not known",
                action="add protocol.control to the experiment",
            )
        ]  # fmt: skip
    evidence: Evidence = {
        "runs": judged.runs, "sd_pct": judged.sd_pct, "bound_pct": judged.bound_pct,
        "limit_pct": judged.limit_pct, "latest": RECENT_RUNS,
    }  # fmt: skip
    if judged.bound_pct is None:
        verdict = Verdict.UNDECIDABLE
    else:
        verdict = Verdict.FOUND if judged.quarantined else Verdict.NOT_FOUND
    word = "in quarantine: " if judged.quarantined else ""
    message = f"{_on(host)}{word}{judged.reason}"
    return [finding("host-unsteady", verdict, subject, message, **evidence)]


def digest(value: str | None) -> str:
    """A digest as shown, or a dash."""
    return short(value) if value else "–"
