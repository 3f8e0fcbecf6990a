"""Image builds through Docker's API, with the build's output on failure."""

from __future__ import annotations

from pathlib import Path

import docker

from wattbench.analysis.model.errors import UserError


def build(
    client: docker.DockerClient,
    folder: Path,
    tag: str,
    args: dict[str, str],
    labels: dict[str, str],
) -> str:
    """Builds a folder's Dockerfile; unchanged layers come from Docker's cache.

    Returns:
        The image's id.

    Raises:
        UserError: a step failed; the message has the step and its last line.
    """
    step, said = "", ""
    for event in client.api.build(
        path=str(folder), tag=tag, buildargs=args, labels=labels, rm=True, forcerm=True, decode=True
    ):
        if "error" in event:
            raise UserError(f"building {tag}: {step}: {said or event['error']}")
        text = event.get("stream", "").strip()
        if text.startswith("Step "):
            step, said = text.partition(" : ")[2], ""
        elif text and not text.startswith("--->"):
            said = text.splitlines()[-1]
    return str(client.images.get(tag).id)
