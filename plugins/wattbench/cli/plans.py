"""``wattbench plan``: the order of an experiment's trials."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.cli.options import selection
from wattbench.cli.output import say
from wattbench.errors import ConfigError

if TYPE_CHECKING:
    from wattbench.config.experiment import Protocol


def add_parsers(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "plan", parents=[selection()], help="print the order of trials; needs no Airflow",
        description="The order of all trials on every host, exactly as a run with this seed has it.",
    )  # fmt: skip
    command.add_argument("experiment", help="its name, or a file")
    command.set_defaults(do=_plan)


def _plan(options: argparse.Namespace) -> int:
    from wattbench.config.loader import config_dir, experiment_paths, load_experiment, load_hosts
    from wattbench.config.trigger import Selection, select
    from wattbench.history.durations import least_pace
    from wattbench.progress import spoken
    from wattbench.run.plan import make_plan, seed_of
    from wattbench.run.run_id import make_run_id

    folder = config_dir()
    given = Path(options.experiment)
    path = given if given.suffix else folder / "experiments" / f"{options.experiment}.yaml"
    if not os.path.lexists(path):
        there = ", ".join(p.stem for p in experiment_paths(folder))
        raise ConfigError(f"{path}: no such experiment; there are: {there or 'none'}")
    selection = Selection(
        hosts=options.hosts, images=options.images, blocks=options.blocks, seed=options.seed
    )
    experiment, _, _ = select(load_experiment(path, load_hosts(folder)), selection)
    example = make_run_id(path.stem, path.stem, "example", datetime(2026, 1, 1, tzinfo=UTC))
    seed = seed_of(experiment.seed, example)
    drawn = "" if experiment.seed is not None else " (an example: each run draws its own)"
    protocol = experiment.protocol
    say(f"{path.stem}: {len(experiment.images)} images, {_blocks(protocol)}, seed {seed}{drawn}")
    for host in experiment.hosts:
        trials = make_plan(list(experiment.images), protocol, host, seed)
        least = least_pace(protocol).all_s(trials)
        asked = f", asked from {experiment.load_host}" if experiment.load_host else ""
        say(f"\n{host}{asked}: {len(trials)} trials, at least {spoken(least)} of rest and idling")
        for block in sorted({trial.block for trial in trials}):
            labels = "  ".join(trial.label for trial in trials if trial.block == block)
            say(f"  block {block:>2}  {labels}")
    return 0


def _blocks(protocol: Protocol) -> str:
    blocks = protocol.blocks
    if isinstance(blocks, int):
        return f"{blocks} blocks"
    return f"{blocks.min} to {blocks.max} blocks (until ± {blocks.precision_pct:g} %)"
