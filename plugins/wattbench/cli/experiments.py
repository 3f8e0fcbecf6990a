"""``wattbench check | new | explain``: the files in config/, without Airflow and without a host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.cli.output import columns, say
from wattbench.errors import ConfigError

if TYPE_CHECKING:
    from wattbench.config.experiment import Experiment


def add_parsers(commands: Any) -> None:
    """Add the three commands to the parser's."""
    command = commands.add_parser(
        "check", help="check hosts.yaml and all experiments; needs no Airflow",
        description="Reads hosts.yaml and each file in experiments/ as Airflow will. "
        "Exit code 2 if a file is refused.",
    )  # fmt: skip
    command.set_defaults(do=_check)

    command = commands.add_parser(
        "new", help="write a new experiment with comments",
        description="Writes experiments/NAME.yaml, checked like every other; overwrites nothing.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", help="small letters, digits and '-'")
    command.add_argument(
        "--image", action="append", required=True, metavar="NAME=REF", dest="images",
        help="an image to compare, the reference first; repeat",
    )  # fmt: skip
    command.add_argument(
        "--host", action="append", metavar="NAME", dest="hosts", help="all of hosts.yaml if none"
    )
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(cpu)")
    command.add_argument("--blocks", type=int, default=30, metavar="N", help="(30)")
    command.add_argument("--schedule", metavar="CRON", help='for example "30 1 * * *"')
    command.set_defaults(do=_new)

    command = commands.add_parser(
        "explain", help="what a key of hosts.yaml or of an experiment means",
        description="Prints a key's meaning, values and default, or the keys of a group.",
    )  # fmt: skip
    command.add_argument(
        "key", nargs="?", metavar="KEY", help="for example protocol.rest.min_s; none: the top keys"
    )
    command.set_defaults(do=_explain)


def _check(_: argparse.Namespace) -> int:
    from wattbench.config.loader import config_dir, experiment_paths, load_experiment, load_hosts

    folder = config_dir()
    hosts = load_hosts(folder)
    say(f"{folder / 'hosts.yaml'}: {len(hosts.hosts)} hosts: {', '.join(hosts.hosts)}")
    paths = experiment_paths(folder)
    if not paths:
        say(f"{folder / 'experiments'}: no experiments; `wattbench new NAME` writes one")
    rows, refused = [], []
    for path in paths:
        try:
            experiment = load_experiment(path, hosts)
        except ConfigError as error:
            refused.append(str(error))
            rows.append((path.name, "refused", ""))
            continue
        trials = experiment.protocol.trials_of(len(experiment.images))
        rows.append((
            path.name,
            "ok",
            f"{len(experiment.images)} images, {trials} trials per host on "
            f"{', '.join(experiment.hosts)}{_loaded(experiment)}; {experiment.schedule or 'by trigger'}",
        ))  # fmt: skip
    if rows:
        say(columns(rows))
    for reason in refused:
        say(reason)
    return 2 if refused else 0


def _loaded(experiment: Experiment) -> str:
    return f", asked from {experiment.load_host}" if experiment.load_host else ""


_TEMPLATE = """\
# yaml-language-server: $schema=../schema/experiment.json
# `wattbench explain KEY` says what a key means; docs/experiments.md which choices matter.
description: ""
schedule: {schedule}  # cron line; null: runs start by the trigger only
hosts: [{hosts}]
device: {device}  # where the work must run; a trial on anything else is invalid
workload:
  program: resnet50
  framework: torch
  precision: fp32
  passes:  # the steady phases: enough iterations for at least 20 s each
    - {{resolution: 256, iterations: 400}}
images:
{images}
reference: {reference}  # the image that the others are compared with
protocol:
  blocks: {blocks}  # or {{min: 10, max: 30, precision_pct: 0.5}} to stop early
  rest: {{min_s: 60, max_s: 600}}  # cool-down before each trial
  idle_baseline: {{seconds: 180, every_blocks: 5}}
analysis: {{equivalence_pct: 1.0}}  # a difference within ± this counts as none
"""


def _new(options: argparse.Namespace) -> int:
    from wattbench.config.loader import config_dir, load_hosts

    folder = config_dir()
    hosts = load_hosts(folder)
    images = [_image(text) for text in options.images]
    path = folder / "experiments" / f"{options.name}.yaml"
    text = _TEMPLATE.format(
        schedule=f'"{options.schedule}"' if options.schedule else "null",
        hosts=", ".join(options.hosts or hosts.hosts),
        device=options.device,
        images="\n".join(f'  {name}: {{ref: "{ref}"}}' for name, ref in images),
        reference=images[0][0],
        blocks=options.blocks,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_checked(path, text, hosts)
    say(f"{path}: written; `wattbench plan {options.name}` prints its trials")
    return 0


def _write_checked(path: Path, text: str, hosts: Any) -> None:
    """Write a new file and read it as Airflow will; one that is refused is removed again."""
    from wattbench.config.loader import load_experiment

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists; choose another name") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror}") from None
    try:
        load_experiment(path, hosts)
    except ConfigError:
        path.unlink()
        raise


def _image(text: str) -> tuple[str, str]:
    name, equals, ref = text.partition("=")
    if not (name and equals and ref) or '"' in ref:
        raise ConfigError(f"--image {text!r}: write NAME=REF, for example slim=python:3.12-slim")
    return name, ref


def _explain(options: argparse.Namespace) -> int:
    from wattbench.config import reference

    say(reference.explain(options.key or ""))
    return 0
