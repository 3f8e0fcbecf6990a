"""The command line, and the order of events."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from . import generator
from .backends import open_backend
from .backends.base import Backend
from .events import PROTOCOL, Refusal, emit, phase
from .names import FRAMEWORKS, PRECISIONS
from .names import PROGRAMS as NAMES
from .programs import PROGRAMS, parameters
from .weights import load as load_weights

REFUSED = 3
#: Phase that holds the model loaded and does nothing.
IDLE = "idle"
#: Wait after the last inference before the phase ``idle``, s: clocks fall, and sensors average a second.
SETTLE_S = 3.0


class Pass(NamedTuple):
    """So many inferences at one resolution, pixels a side."""

    resolution: int
    iterations: int


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def passes(text: str) -> list[Pass]:
    """Parses `RESOLUTION:ITERATIONS,…`."""
    found = []
    for part in text.split(","):
        resolution, colon, iterations = part.partition(":")
        if not (colon and resolution.isdigit() and iterations.isdigit()):
            raise argparse.ArgumentTypeError(f"{part!r} is not RESOLUTION:ITERATIONS")
        if not (32 <= int(resolution) <= 8192 and int(iterations) >= 1):
            raise argparse.ArgumentTypeError(
                f"{part!r} is out of range: 32 to 8192 pixels, one iteration or more"
            )
        found.append(Pass(int(resolution), int(iterations)))
    if len({p.resolution for p in found}) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a resolution twice; join its passes")
    return found


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return seconds


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; a mistake ends the program with one line and exit code 2."""
    parser = _Parser(prog="workload", description=__doc__)
    parser.add_argument("--program", choices=NAMES, default="resnet50")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--batch", type=_count(1), default=1)
    parser.add_argument("--passes", type=passes, required=True, metavar="RES:N,…")
    parser.add_argument(
        "--warmup-iterations", type=_count(0), default=1, help="at each resolution, not counted"
    )
    parser.add_argument(
        "--idle-s",
        type=_seconds,
        metavar="SECONDS",
        help="instead of the passes, hold the model loaded for this long and do nothing",
    )
    parser.add_argument(
        "--warm-s",
        type=_seconds,
        metavar="SECONDS",
        help="instead of the passes once, repeat them for this long and report no result",
    )
    parser.add_argument(
        "--gpus",
        type=_count(1),
        default=1,
        metavar="N",
        help="with --warm-s: one process on each of N",
    )
    return parser.parse_args(argv)


def _one_process_per_gpu(count: int) -> None:
    """Go on in as many processes, each of which sees one GPU; before a framework is imported."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(index) for index in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[0]
    for name in names[1:count]:
        if os.fork() == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the workload.

    Returns:
        0 done; 3 refused, for want of a device, a framework or a precision. Bad options: 2.
    """
    options = parse(argv)
    if options.warm_s is not None and options.gpus > 1:
        _one_process_per_gpu(options.gpus)
    emit(
        "start",
        program=options.program,
        framework=options.framework,
        precision=options.precision,
        batch=options.batch,
        protocol=PROTOCOL,
        unit="image",
    )
    try:
        _work(options)
    except Refusal as refusal:
        emit("error", message=str(refusal))
        print(f"workload: {refusal}", file=sys.stderr)
        return REFUSED
    except Exception as error:
        emit("error", message=f"{type(error).__name__}: {error}")
        raise
    return 0


def _work(options: argparse.Namespace) -> None:
    with phase("import"):
        backend = open_backend(options.framework, options.device, options.precision)
    emit("device", requested=options.device, **backend.describe_device())
    emit("versions", **backend.versions())
    with backend.session():
        inputs = _load(options, backend)
        with phase("warmup"):
            for images in inputs.values():
                for _ in range(options.warmup_iterations):
                    backend.wait(backend.run(images))
        waits = options.idle_s is not None or options.warm_s is not None
        measured = () if waits else options.passes
        for step in measured:
            _measure(backend, step, options.batch, inputs[step.resolution])
        if options.idle_s is not None:
            _hold(options.idle_s)
        if options.warm_s is not None:
            _warm(backend, inputs, options.warm_s)
    emit("end", images=sum(step.iterations for step in measured) * options.batch)


def _hold(seconds: float) -> None:
    """Keep the loaded model and its device's context without work."""
    with phase("settle"):
        time.sleep(min(SETTLE_S, seconds))
    with phase(IDLE):
        time.sleep(seconds)


def _warm(backend: Backend, inputs: dict[int, object], seconds: float) -> None:
    """Repeat the work until the time is over."""
    with phase("warm"):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for images in inputs.values():
                backend.wait(backend.run(images))


def _load(options: argparse.Namespace, backend: Backend) -> dict[int, object]:
    """Weights and inputs, made and brought to the device: resolution → input."""
    program = PROGRAMS[options.program]
    inputs: dict[int, object] = {}
    with phase("load"):
        weights, source = load_weights(program)
        emit(
            "weights",
            sha256=generator.sha256_of_weights(weights),
            parameters=parameters(program),
            source=source,
        )
        backend.load(program, weights)
        for step in options.passes:
            images = generator.images(options.batch, step.resolution)
            emit("input", resolution=step.resolution, sha256=generator.sha256(images))
            inputs[step.resolution] = backend.place(images)
    return inputs


def _measure(backend: Backend, step: Pass, batch: int, images: object) -> None:
    name = f"steady:{step.resolution}"
    with phase(name):
        started = time.monotonic()
        for _ in range(step.iterations):
            logits = backend.run(images)
        backend.wait(logits)
        duration_s = time.monotonic() - started
    output = backend.fetch(logits)
    if not np.isfinite(output).all():
        raise Refusal(f"the logits at {step.resolution} px are not finite; use a wider precision")
    emit(
        "result",
        phase=name,
        resolution=step.resolution,
        iterations=step.iterations,
        batch=batch,
        images=step.iterations * batch,
        duration_s=duration_s,
        fingerprint=generator.fingerprint(output),
    )
