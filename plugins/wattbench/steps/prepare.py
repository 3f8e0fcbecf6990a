"""Task `prepare`: resolves images to digests, draws the plan, and stores both."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.experiment_document import ExperimentDocument, ImageDocument
from wattbench.analysis.model.run_document import (
    SCHEMA_VERSION,
    HostConfigDocument,
    RunDocument,
)
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostsConfig
from wattbench.container import registry
from wattbench.container.image_ref import ImageRef
from wattbench.errors import ConfigError, UnreachableRegistryError
from wattbench.history import deadline
from wattbench.run import host_claims, store_keys
from wattbench.run.plan import make_plan, seed_of
from wattbench.run.stored_run import Run
from wattbench.run.versions import installed
from wattbench.steps.early_stopping import nothing_to_compare
from wattbench.workloads import workload_of

if TYPE_CHECKING:
    from wattbench.storage.object_store import Store

log = logging.getLogger(__name__)

_UNBUILT = " (python -m images.ablation pushes a rung only if it can run the workload)"


def prepare(
    store: Store,
    hosts: HostsConfig,
    experiment: Experiment,
    *,
    run_id: str,
    identity: Mapping[str, str],
    skipped_hosts: Mapping[str, str],
    skipped_images: Mapping[str, str],
    registries: Mapping[str, registry.Access],
    folder: Path | None = None,
) -> Run:
    """Write ``run.json``; a second call for the same run returns the first one's.

    Args:
        store: where it goes.
        hosts: hosts.yaml.
        experiment: as it is run.
        run_id: the run's.
        identity: Airflow's own ids (``dag_id``, ``dag_run_id``, ``run_after``).
        skipped_hosts: host → why it is left out.
        skipped_images: image → why it is left out.
        registries: logins.
        folder: of the experiment's file, which its workload's files are beside.

    Raises:
        StoreError: the bucket is missing or not writable.
        ConfigError: the reference could not be resolved, or it alone could.
    """
    store.check()
    host_claims.open_run(
        store,
        host_claims.OpenRun(
            run_id, identity["dag_id"], identity["dag_run_id"],
            datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )  # fmt: skip
    key = store_keys.run_json_key(run_id)
    if store.exists(key):
        log.info("run.json is there already: this is a further try of the same run")
        return Run.load(store, run_id)

    images, unresolved = _resolve_images(experiment, registries)
    if experiment.reference in unresolved:
        raise ConfigError(
            f"images.{experiment.reference}: {unresolved[experiment.reference]} "
            "(nothing can be compared without the reference)"
        )
    why = nothing_to_compare(list(experiment.images), unresolved)
    if why is not None and experiment.protocol.stop_without_comparison:
        raise ConfigError(
            f"images: no two of them can be compared: {why}; mend a reference, or set "
            "protocol.stop_without_comparison: false to measure what is left"
        )
    seed = seed_of(experiment.seed, run_id)
    names = list(images)
    document: RunDocument = {
        "schema": SCHEMA_VERSION,
        "run_id": run_id,
        "dag_id": identity["dag_id"],
        "dag_run_id": identity["dag_run_id"],
        "run_after": identity["run_after"],
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "experiment": cast(
            "ExperimentDocument", experiment.model_dump(mode="json") | {"images": images}
        ),
        "seed": seed,
        "deadline": _deadline(experiment, identity["run_after"]),
        "plan": {
            host: [t.to_dict() for t in make_plan(names, experiment.protocol, host, seed)]
            for host in experiment.hosts
        },
        "skipped_hosts": dict(skipped_hosts),
        "skipped_images": dict(skipped_images) | unresolved,
        "hosts": {
            host: {"config": cast("HostConfigDocument", hosts.hosts[host].model_dump(mode="json"))}
            for host in experiment.hosts
        },
        "workload_files": _store_files(store, experiment, run_id, names, folder),
        "versions": _versions(),
    }
    store.put_json(key, document)
    run = Run(store, document)
    if run.deadline is not None:
        log.info("measuring is over by %s (%s)", run.deadline.isoformat(), experiment.time_zone)
    for host in experiment.hosts:
        _show_plan(run, host)
    return run


def _store_files(
    store: Store, experiment: Experiment, run_id: str, images: Sequence[str], folder: Path | None
) -> dict[str, dict[str, str]]:
    """Store the workload's files, each once; returns image → path in the container → SHA-256.

    Hosts get these copies: a file that is edited while the run lasts changes nothing.

    Raises:
        ConfigError: a file has changed since the experiment was read.
    """
    stored: set[str] = set()
    found: dict[str, dict[str, str]] = {}
    for image in images:
        settings = experiment.workload_of(image)
        workload = workload_of(settings)
        found[image] = dict(workload.files(settings))
        for path, sha256 in found[image].items():
            if sha256 in stored:
                continue
            try:
                content = workload.content(settings, path, folder)
            except OSError as error:
                raise ConfigError(f"workload.files.{path}: can't be read: {error}") from error
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ConfigError(
                    f"workload.files.{path}: the file changed while the run began; trigger it again"
                )
            store.put(store_keys.file_key(run_id, sha256), content)
            stored.add(sha256)
    return found


def _deadline(experiment: Experiment, run_after: str) -> str | None:
    if experiment.finish_by is None:
        return None
    due = datetime.fromisoformat(run_after)
    return deadline.deadline(experiment.finish_by, experiment.time_zone, due).isoformat()


def _resolve_images(
    experiment: Experiment, registries: Mapping[str, registry.Access]
) -> tuple[dict[str, ImageDocument], dict[str, str]]:
    """Every image with its digest, and why the others have none."""
    images: dict[str, ImageDocument] = {}
    unresolved: dict[str, str] = {}
    away: set[str] = set()  # each registry is waited for once
    rungs = {layer.image for layers in experiment.ladders.values() for layer in layers[:-1]}
    for name, image in experiment.images.items():
        plain = cast("ImageDocument", image.model_dump(mode="json"))
        if image.ref is None:
            images[name] = plain
            continue
        try:
            server = ImageRef.parse(image.ref).registry
            waits_s = () if server in away else registry.PATIENT_WAITS_S
            found = registry.resolve(image.ref, registries=registries, waits_s=waits_s)
        except UserError as error:
            if isinstance(error, UnreachableRegistryError):
                away.add(server)
            hint = _UNBUILT if name in rungs else ""
            unresolved[name] = f"{error}{hint}"
            log.error("image %s is left out: %s%s", name, error, hint)
            continue
        images[name] = {
            **plain,
            "resolved_ref": found.ref_by_digest,
            "digest": found.digest,
            "size_bytes": found.size_bytes,
        }
        log.info(
            "image %-20s %s = %s, %.0f MB to pull",
            name,
            image.ref,
            found.digest[:19],
            found.size_bytes / 1e6,
        )
    return images, unresolved


def _show_plan(run: Run, host: str) -> None:
    blocks: dict[int, list[str]] = {}
    for trial in run.plan(host):
        blocks.setdefault(trial.block, []).append(trial.label)
    log.info("::group::plan of %s: %d trials, seed %s", host, len(run.plan(host)), run.seed)
    for block, labels in blocks.items():
        log.info("block %2d: %s", block, "   ".join(labels))
    log.info("::endgroup::")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | installed(
        "wattbench", "apache-airflow", "paramiko", "scipy", "pandas"
    )
