"""Trigger form: narrows an experiment to a selection of hosts, images and blocks."""

from __future__ import annotations

from typing import Literal

from wattbench.config.experiment import Experiment
from wattbench.config.types import (
    Clock,
    Model,
    PositiveInt,
)
from wattbench.errors import ConfigError


class Selection(Model):
    """Changes that the trigger form makes to one run; null: as in the experiment.

    Attributes:
        hosts: Hosts to measure on; the others are skipped.
        images: Images to compare; the reference must stay.
        blocks: Number of blocks.
        seed: Seed of the random order of trials.
        finish_by: Time of day by which measuring ends; ``never``: no limit.
    """

    hosts: list[str] | None = None
    images: list[str] | None = None
    blocks: PositiveInt | None = None
    seed: int | str | None = None
    finish_by: Clock | Literal["never"] | None = None


def select(
    experiment: Experiment, selection: Selection
) -> tuple[Experiment, dict[str, str], dict[str, str]]:
    """The experiment as one run will execute it.

    Returns:
        The narrowed experiment, and why each left-out host and image is skipped.

    Raises:
        ConfigError: the form names something unknown, or leaves nothing to compare.
    """
    hosts = _chosen("hosts", experiment.hosts, selection.hosts)
    images = _chosen("images", list(experiment.images), selection.images)
    if experiment.reference not in images:
        raise ConfigError(
            f"trigger form: images leave out the reference {experiment.reference!r}; "
            "select it too, since every image is compared with it"
        )
    protocol = experiment.protocol
    if selection.blocks is not None:
        protocol = protocol.model_copy(update={"blocks": selection.blocks})
    narrowed = experiment.model_copy(
        update={
            "hosts": hosts,
            "images": {k: v for k, v in experiment.images.items() if k in images},
            "protocol": protocol,
            "seed": experiment.seed if selection.seed is None else selection.seed,
            "finish_by": _finish_by(experiment.finish_by, selection.finish_by),
        }
    )
    reason = "left out in the trigger form"
    return (
        narrowed,
        {h: reason for h in experiment.hosts if h not in hosts},
        {i: reason for i in experiment.images if i not in images},
    )


def _finish_by(own: str | None, wanted: str | None) -> str | None:
    return own if wanted is None else None if wanted == "never" else wanted


def _chosen(what: str, known: list[str], wanted: list[str] | None) -> list[str]:
    if wanted is None:
        return list(known)
    if unknown := [w for w in wanted if w not in known]:
        raise ConfigError(
            f"trigger form: {what}: {unknown[0]!r} is not in the experiment ({', '.join(known)})"
        )
    if not wanted:
        raise ConfigError(
            f"trigger form: {what} is empty; select at least one of {', '.join(known)}"
        )
    return [k for k in known if k in wanted]
