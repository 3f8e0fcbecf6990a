"""Each host alone: images, pairs, phases, fitness of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.formatting import slug
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import power_curves, tables
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study


@section
class Hosts(Section):
    """One part per host."""

    name = "hosts"
    title = "Hosts"
    place = 20
    template = "hosts.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """Images, pairs, secondary endpoints, phases, fitness and sensitivity."""
        data, conclusion = study.data, study.conclusion
        return [
            tables.summaries(conclusion, data),
            tables.omnibus(conclusion),
            tables.pairs(conclusion),
            tables.secondary(conclusion, data),
            tables.phases(data),
            *tables.idle_states(data),
            *tables.gpus(data),
            *tables.meters(data),
            tables.fitness(conclusion),
            tables.sensitivity(conclusion),
        ]

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """The ranking, and of each host energy, time, power, order and rest."""
        yield artist.forest(study.conclusion)
        for host in study.data.hosts:
            at, work, idle = slug(host), study.valid_work(host), study.valid(host, "idle")
            chosen = power_curves.typical(study.data.accepted, host)
            curves, _ = power_curves.read(study.source, chosen.values())
            course = power_curves.rest_course(study.data.records, host)
            yield artist.spread(work, "energy_j", f"energy-{at}", "Energy per trial", host)
            yield artist.spread(work, "duration_s", f"time-{at}", "Time per trial", host)
            yield artist.energy_time(work, f"energy-time-{at}", host)
            yield artist.power(curves, f"power-{at}", host)
            yield artist.course(work, f"order-{at}", host)
            yield artist.rest(course, f"rest-{at}", host)
            for end, words, state in tables.idle_figures(study.data):
                mine = tables.of_state(idle, state)
                for column, what in (("energy_j", "energy"), ("duration_s", "time")):
                    title = f"{what.capitalize()} per trial while idle{words}"
                    yield artist.spread(mine, column, f"idle-{what}-{at}{end}", title, host)

    def links(self, study: Study) -> Sequence[tuple[str, str]]:
        """Every host by its name."""
        return [(f"host-{slug(host)}", host) for host in study.data.hosts]

    def anchors(self, study: Study) -> set[str]:
        """Every host's heading."""
        return {anchor for anchor, _ in self.links(study)}
