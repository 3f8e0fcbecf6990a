"""What the report rests on: raw files with their checksums, and how to cite it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.presentation.table import Row, Table
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study, digests, versions
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.results import Conclusion
from wattbench.analysis.storage.source import MANIFEST, Source

#: Raw files that the page lists; the CSV has all.
MOST_FILES = 3000


@section
class Files(Section):
    """Raw files, and the citation."""

    name = "files"
    title = "Raw files"
    place = 90
    template = "files.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """Every raw file of the run's trials."""
        yield Table(
            "raw_files",
            "Raw files",
            f"SHA-256 {checksums_from(study.source)}.",
            pd.DataFrame(raw_files(study.source), columns=["file", "bytes", "sha256"]),
        )

    def links(self, study: Study) -> Sequence[tuple[str, str]]:
        """Both parts of the section."""
        return [*super().links(study), ("cite", "Cite")]

    def context(self, study: Study) -> Mapping[str, object]:
        """The files that the page lists, and the citation."""
        frame = study.tables["raw_files"].frame
        return {
            "raw_files": frame.head(MOST_FILES).to_numpy(object).tolist(),
            "citation": citation(study.data, study.conclusion),
        }


def raw_files(source: Source) -> list[Row]:
    """Every raw file with size and SHA-256.

    The run's manifest where there is one, the checksums that the hosts took of their own files else.
    """
    if source.manifest:
        return [
            {"file": e.key, "bytes": e.bytes, "sha256": e.sha256}
            for e in source.manifest.values()
            if "/trials/" in e.key
        ]
    rows: list[Row] = []
    for entry in source.list("hosts/"):
        if not entry.key.endswith("/attempt.json"):
            continue
        try:
            report = source.read_json(entry.key)
        except InputError:
            continue
        folder = entry.key.removesuffix("attempt.json")
        listed = report.get("files") if isinstance(report, Mapping) else None
        rows += [
            {"file": folder + name, "bytes": f.get("bytes"), "sha256": f.get("sha256")}
            for name, f in sorted((listed or {}).items())
            if isinstance(f, Mapping) and f.get("bytes")
        ]
    return rows


def checksums_from(source: Source) -> str:
    """Whose checksums they are."""
    if source.manifest:
        return f"as stored, from the run’s {MANIFEST}"
    return "as taken on the hosts before the files were packed and sent"


def citation(data: RunData, conclusion: Conclusion) -> str:
    """A BibTeX entry that names run, versions, domains and digests."""
    versions_ = ", ".join(f"{name} {version}" for name, version in versions(data))
    scopes = "; ".join(sorted({h.scope for h in conclusion.hosts if h.scope}))
    source = {"measured": "measured", "modelled": "modelled, not measured"}.get(
        conclusion.energy_source or "", "partly modelled, not measured"
    )
    digests_ = ", ".join(f"{name} {digest}" for name, _, digest in digests(data))
    notes = [f"joules {source}{f' over {scopes}' if scopes else ''}", versions_, digests_]
    when = str(data.document.get("run_after") or "")
    fields = {
        "title": f"Energy of {', '.join(conclusion.images)}: report of run {data.run_id}",
        "author": "{wattbench}",
        "year": when[:4],
        "month": when[5:7],
        "note": "; ".join(filter(None, notes)),
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return "\n".join([f"@misc{{{data.run_id},", *lines, "}"])
