"""Importer of InferenceX (formerly InferenceMAX): power records of its benchmark results, one run per result.

``agg_<result>.json`` has the configuration (``hw``, ``framework``, ``conc``, …) and, since May 2026, the
energy of all GPUs over the benchmark's window. ``power_validation_<result>.json`` has the joules of each
GPU, the window, and the reasons for which a measurement is not valid. Formats: ``utils/process_result.py``
and ``utils/aggregate_power.py`` of SemiAnalysisAI/InferenceX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, nvidia_smi, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import Label, label_of, run_of
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.storage import documents

RESULT, VALIDATION = "inferencex-result", "inferencex-validation"
_VALIDATION_NAME = "power_validation_"
#: Keys of a result that make two results different treatments.
_FACTORS = (
    "hw", "model", "infmax_model_prefix", "framework", "precision", "spec_decoding", "mtp", "disagg", "isl",
    "osl", "tp", "pp", "ep", "dp_attention", "conc",
)  # fmt: skip

_Document = Mapping[str, object]


class InferenceX:
    """Benchmark results of InferenceX with measured GPU power."""

    layout = "inferencex"
    recognised_by = (
        "InferenceX (InferenceMAX) `agg_*.json` (`hw`, `tput_per_gpu`), `power_validation_*.json`"
    )
    rank = 25
    leads = frozenset({RESULT, VALIDATION})

    def claims(self, path: str, head: bytes) -> str | None:
        """JSON with the keys of either document."""
        if not path.endswith(".json"):
            return None
        if b'"power_valid"' in head and b'"telemetry_source"' in head:
            return VALIDATION
        return RESULT if b'"tput_per_gpu"' in head and b'"hw"' in head else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import results; the keys of their configuration that differ are the treatment."""
        findings: list[Finding] = []
        windows = {
            PurePosixPath(path).name.removeprefix(_VALIDATION_NAME): (path, one)
            for path, one in _documents(files, VALIDATION, findings)
        }
        results = list(_documents(files, RESULT, findings))
        by_path, inferred = records.labels_of(files, VALIDATION, context)
        factors = context.mapping.factors or _differing([one for _, one in results])
        if factors and context.mapping.factors is None:
            inferred = (
                f"the keys {', '.join(factors)} of the results give the treatments; `factors: [key]` in a "
                "--mapping file overrides this",
            )
        runs = []
        for path, result in results:
            key = PurePosixPath(path).name.removeprefix("agg_")
            _, window = windows.pop(key, ("", None))
            label = _label(result, factors, context)
            runs.append(_run(path, label, result, window))
        runs += [_run(path, by_path[path], {}, window) for path, window in windows.values()]
        if samples := len(files.of(nvidia_smi.SMI)):
            inferred += (
                f"{samples} files of GPU samples are not counted: they cover warm-up and evaluation as well, "
                "the results the benchmark's window",
            )
        return records.campaign(self, context, runs, findings, inferred)


IMPORTER = InferenceX()


def _documents(files: Files, role: str, findings: list[Finding]) -> Iterator[tuple[str, _Document]]:
    """Path and object of each JSON file of a role, and of each object where a file holds a list."""
    for path, text in records.texts(files, role, findings):
        try:
            parsed = documents.parse_json(text.encode(), path)
        except documents.DocumentError as error:
            findings.append(records.unread(path, str(error).removeprefix(f"{path}: "), 1))
            continue
        entries = parsed if isinstance(parsed, list) else [parsed]
        for entry in entries:
            if isinstance(entry, Mapping):
                yield path, entry
            else:
                findings.append(records.unread(path, "holds an entry that is not an object", 1))


def _differing(results: Sequence[_Document]) -> list[str]:
    """Keys of the configuration with more than one value, or the framework alone."""
    differing = [key for key in _FACTORS if len({str(r.get(key)) for r in results}) > 1]
    return differing or (["framework"] if results else [])


def _label(result: _Document, factors: Sequence[str], context: Context) -> Label:
    named = label_of(
        " / ".join(
            str(result.get(key, "-"))
            if isinstance(result.get(key), str)
            else f"{key}{result.get(key)}"
            for key in factors
        )
    )
    return Label(context.mapping.images.get(named.image, named.image), named.kind)


def _run(path: str, label: Label, result: _Document, validation: _Document | None) -> Run:
    """One result: joules of each GPU where the validation has them, else of all together."""
    validation = validation or {}
    window, by_gpu = validation.get("benchmark_window"), validation.get("per_gpu_energy_j")
    window = window if isinstance(window, Mapping) else {}
    by_gpu = by_gpu if isinstance(by_gpu, Mapping) else {}
    joules = {
        f"gpu{gpu if str(gpu).isdigit() else index}": value
        for index, (gpu, cell) in enumerate(by_gpu.items())
        if (value := records.number(cell)) is not None
    }
    total_j = records.number(result.get("total_gpu_energy_j", ""))
    mean_w = records.number(result.get("avg_total_gpu_power_w", ""))
    if not joules and total_j is not None:
        joules = {"gpu": total_j}
    seconds = records.number(window.get("integration_duration_s", ""))
    if seconds is None and total_j is not None and mean_w:
        seconds = total_j / mean_w
    return Run(
        path, 1, label, run_of(path), joules, seconds,
        records.number(window.get("start_time_unix", "")),
        whole_file=True, failure=_failure(path, result, validation, joules),
    )  # fmt: skip


def _failure(
    path: str, result: _Document, validation: _Document, joules: Mapping[str, float]
) -> str | None:
    """Why the power record of a result is not a usable measurement."""
    reasons = validation.get("reasons")
    named = ", ".join(str(r) for r in reasons) if isinstance(reasons, list) else ""
    if not (validation.get("power_valid", True) and result.get("power_valid", True)):
        return f"{path}: InferenceX calls its power record not valid ({named or 'no reason given'})"
    if not joules:
        return f"{path}: no total_gpu_energy_j and no power_validation file with per_gpu_energy_j"
    return None
