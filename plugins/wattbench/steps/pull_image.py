"""Task `pull`: transfers one image to one host, by digest, before its first trial."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

from wattbench.analysis.model.facts_document import FactsDocument
from wattbench.analysis.model.run_document import PullDocument, PullEnergyDocument
from wattbench.container import image_ref, pull, registry
from wattbench.container.registry import Access
from wattbench.errors import HostError, RegistryError, UserError
from wattbench.run.stored_run import Run
from wattbench.steps.prove_workload import prove
from wattbench.steps.pull_energy import metered
from wattbench.workloads import workload_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wattbench.remote_meters.protocol import Reader
    from wattbench.steps.load_host import LoadHost
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)


def bring_process(run: Run, host: Host, host_name: str, image: str) -> None:
    """List a process's packages, then run its workload once.

    Raises:
        HostError: with the reason, which is kept too; other images carry on.
    """
    found = list_packages(run, host, host_name, image)
    try:
        prove(run, host, host_name, image)
    except UserError as error:
        run.write_pull(host_name, image, {**found, "error": str(error)})
        raise


def list_packages(run: Run, host: Host, host_name: str, image: str) -> PullDocument:
    """Keep what a process is made of on its host, in the place of a pull.

    A command that is not a Python has no digest, which the checks then say; it is measured all the same.

    Raises:
        HostError: the host could not be asked.
    """
    experiment = run.experiment
    settings = experiment.workload_of(image)
    command = list(workload_of(settings).argv(settings, experiment.place_of(image)))
    found: PullDocument = {"image": None, "digest": None, "packages": []}
    try:
        answer = host.call("packages", {"command": command, "env": experiment.images[image].env})
    except HostError as error:
        if error.code != "packages":
            raise
        log.warning("%s on %s has no digest: %s", image, host_name, error)
        found["why"] = str(error)
        run.write_pull(host_name, image, found)
        return found
    digest = f"sha256:{answer['sha256']}"
    found |= {"digest": digest, "packages": answer["packages"]}
    run.write_pull(host_name, image, found)
    log.info("%s on %s: %d packages, %s", image, host_name, len(answer["packages"]), digest[:19])
    return found


def pull_image(
    run: Run,
    host: Host,
    host_name: str,
    image: str,
    registries: Mapping[str, Access],
    readers: Sequence[Reader] = (),
    load: LoadHost | None = None,
) -> None:
    """Pull by digest through the host's own Docker socket, forwarded over SSH; keep what it took.

    Then its workload runs once, so that an image that can't pass the checks is refused before its first
    window.

    Args:
        registries: how to reach each of them.
        readers: the host's remote meters.
        load: the host that the load on servers comes from.

    Raises:
        HostError, RegistryError: with the reason, which is kept too; other images carry on.
    """
    import docker

    ref = run.image_ref(image)
    assert ref is not None, f"{image} runs without a container"
    facts = run.facts(host_name)
    found = PullDocument()
    try:
        resolved = registry.resolve(ref, _platform(facts), registries, registry.PATIENT_WAITS_S)
        if moved_to := _moved_tag(run, image, resolved.digest, registries):
            found["tag_moved_to"] = moved_to
        with host.forward_socket() as socket_path:
            client = docker.APIClient(base_url=f"unix://{socket_path}")
            meter: AbstractContextManager[PullEnergyDocument] = metered(
                run, host, host_name, image, readers
            )
            if pull.is_there(client, resolved):
                meter = nullcontext(PullEnergyDocument(why="nothing was pulled: the host had it"))
            with meter as found["energy"]:
                report = pull.pull(
                    client,
                    resolved,
                    login=registries.get(image_ref.ImageRef.parse(ref).registry),
                    free_bytes=(facts.get("docker") or {}).get("disk_free_bytes"),
                )
            log.info("%s on %s: %s", image, host_name, _outcome(report, found["energy"]))
            found |= report.document()
            earlier = run.pulls(host_name).get(image, PullDocument())
            if report.already_present and earlier.get("bytes"):  # a try of this task brought it
                kept = ("energy", *report.document())
                found |= cast("PullDocument", {k: v for k, v in earlier.items() if k in kept})
            found["provenance"] = pull.inspect(client, ref)
        prove(run, host, host_name, image, load)
    except UserError as error:
        run.write_pull(host_name, image, {**found, "error": str(error)})
        raise
    run.write_pull(host_name, image, found)


def _outcome(report: pull.PullReport, energy: PullEnergyDocument) -> str:
    if report.already_present:
        return "was there already, verified by digest"
    text = f"{report.bytes / 1e6:.0f} MB in {report.seconds:.1f} s, verified by digest"
    if "energy_j" not in energy:
        return text
    scope, source = energy["energy_scope"], energy["energy_source"]
    return f"{text}; {energy['energy_j']:.0f} J of the whole host ({scope}, {source})"


def _platform(facts: FactsDocument) -> str:
    """The host's platform as registries name it."""
    machine = str(facts.get("host", {}).get("architecture") or "x86_64")
    names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}
    return f"linux/{names.get(machine, machine)}"


def _moved_tag(run: Run, image: str, planned: str, registries: Mapping[str, Access]) -> str | None:
    """Where a tag has moved since the plan was drawn: all hosts measure what it pointed at then."""
    ref = str(run.experiment.images[image].ref)
    if image_ref.ImageRef.parse(ref).digest:
        return None
    try:
        now = registry.resolve(ref, registries=registries).digest
    except RegistryError:  # the tag is gone or for others; the digest is what counts
        return None
    if now == planned:
        return None
    log.warning(
        "%s has moved to %s; this run measures %s, as its plan says: start another for the new one",
        ref, now[:19], planned[:19],
    )  # fmt: skip
    return now
