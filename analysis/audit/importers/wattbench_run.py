"""Importer of wattbench's own runs: the run's records, judged as its report judges them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from wattbench.analysis.audit.campaign import Campaign, Judged
from wattbench.analysis.audit.importers import WHOLE_FOLDER, Context, Files
from wattbench.analysis.checks import Facts, check_over_time
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record

IMPORTED = "every completed trial with joules, whether valid or not, over its own energy_scope"
REPAIRED = "the valid trials, one accepted attempt each, over its own energy_scope"


class WattbenchRun:
    """Runs of wattbench, several of one folder as one campaign."""

    layout = "wattbench"
    recognised_by = "`run.json` of a run of wattbench"
    rank = 0
    leads = frozenset({WHOLE_FOLDER})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """A run's document; all else in its folder belongs to it."""
        return WHOLE_FOLDER if PurePosixPath(path).name == "run.json" else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import runs.

        Raises:
            InputError: a ``run.json`` can't be used.
        """
        # Other campaigns need nothing of what stored runs are read with.
        from wattbench.analysis.runs import assemble, load
        from wattbench.analysis.storage.source import open_source

        names: list[str] = []
        attempts: list[Record] = []
        accepted: list[Record] = []
        findings: list[Finding] = []
        sizes: dict[str, float] = {}
        reference = None
        for path in files.of(WHOLE_FOLDER):
            folder: Path = (files.root / path).parent
            data = assemble.assemble(load.load(open_source(folder)))
            sizes |= {
                image: size / 1e9
                for image, entry in data.images.items()
                if (size := entry.get("size_bytes"))
            }
            reference = reference or data.experiment.get("reference")
            names.append(data.run_id)
            attempts += data.records
            accepted += data.accepted
            findings += [*data.findings, *check_over_time(data.accepted, Facts())]
        return Campaign(
            name=names[0] if len(names) == 1 else context.name,
            layout=self.layout,
            records=tuple(attempts),
            judged=Judged(tuple(accepted), tuple(findings)),
            summaries={
                r.subject: (r.row.energy_j, r.row.duration_s)
                for r in accepted
                if r.row.status in ("valid", "invalid") and r.row.energy_j is not None
            },
            sizes_gb=sizes,
            reference=reference,
            imported_rule=IMPORTED,
            repaired_rule=REPAIRED,
        )


IMPORTER = WattbenchRun()
