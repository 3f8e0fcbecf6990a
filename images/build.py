"""Image builds: `python -m images.build NAME… --base REF --registry HOST:PORT`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattbench.analysis.model.errors import UserError

from . import packages
from .context import FOLDER, Context, names

_ROOT = FOLDER.parent
_LOGS = _ROOT / "var" / "images" / "log"
_OCI = "org.opencontainers.image"
_DEBIANS_PYTHON = "3.11"  # bookworm's, and that of the official Python image of the Dockerfiles
_INPUTS = "wattbench.inputs"  # the label that says what an image was made from
_STEP = re.compile(r"^(?:Step|#\d+ \[[^\]]*?) ?(\d+/\d+)(?: :|\]) (.*)")
_LAYER = re.compile(r"^[0-9a-f]{12}: (Pulling fs layer|Already exists|Pull complete)$")
# A refused push, by words of dockerd and of registries, and what a person can do about it.
_PUSH_ADVICE = (
    (("denied", "unauthorized", "authentication", "credentials"), "docker login {host} first"),
    (("http response to https",), "add {host} to insecure-registries in Docker's daemon.json"),
    (
        ("connection refused", "no such host", "timeout"),
        "check that {host} is a registry that runs",
    ),
)
_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")


class BaseError(UserError):
    """The image that a build starts from can't be had; another base may do."""


@dataclass(frozen=True)
class BuiltImage:
    """An image as built.

    Attributes:
        name: of its folder.
        base: what it was built on.
        ref: repository and tag, `HOST:PORT/wattbench/NAME:TAG`.
        digest: of its manifest in the registry, `sha256:…`; None when it was not pushed.
        size_bytes: unpacked, as Docker counts.
        seconds: what build and push took.
        reused: whether it was there already, made from the same inputs.
    """

    name: str
    base: str
    ref: str
    digest: str | None
    size_bytes: int
    seconds: float
    reused: bool


def build(
    name: str,
    *,
    base: str | None = None,
    registry: str | None = None,
    tag: str | None = None,
    label: str | None = None,
    dockerfile: str | None = None,
    say: Callable[[str], None] = print,
) -> BuiltImage:
    """Builds an image, unless one made from the same inputs is there, and pushes it.

    Args:
        name: a folder below `images/` or of an example.
        base: the reference it starts from; None for the one that its Dockerfile names.
        registry: `HOST:PORT` to push to; None to keep it in this machine's Docker.
        tag: of the image; None for a hash of its inputs.
        label: a further label, `KEY=VALUE`.
        dockerfile: text in the place of the folder's own Dockerfile.
        say: receives progress, one line at a time.

    Raises:
        BaseError: the base is not here and can't be pulled.
        UserError: no such image, a step failed (message and log file say where), or the registry
            refused it.
    """
    if name not in names():
        raise UserError(f"images: {name!r} is none of {', '.join(names())}")
    started = time.monotonic()
    base = base or default_base(name)
    inspected = _ensure_base(base, say)
    context, served = _context(Context(name, text=dockerfile), base, say)
    key = context.key(inspected["Id"])
    ref = f"{registry + '/' if registry else ''}wattbench/{name}:{tag or key}"
    made = _inspect(ref)
    reused = made is not None and (made["Config"]["Labels"] or {}).get(_INPUTS) == key
    if not reused:
        say(f"{name}: building on {base}")
        labels = {**_provenance(name, key, base, inspected), **_label(label)}
        with served as arguments:
            _docker_build(context, ref, [f"BASE={base}", *arguments], labels, say)
        made = _inspect(ref)
    if made is None:
        raise UserError(f"{name}: docker build ended well but {ref} is not there")
    digest = _push(name, ref, say) if registry else None
    size = int(made["Size"])
    seconds = time.monotonic() - started
    verb = "unchanged" if reused else "built"
    say(f"{name}: {verb}, {size / 1e6:.0f} MB, {seconds:.1f} s{f', {digest}' if digest else ''}")
    return BuiltImage(name, base, ref, digest, size, seconds, reused)


def default_base(name: str) -> str:
    """The base that an image's Dockerfile names."""
    found = re.search(r"^ARG BASE=(\S+)", Context(name).dockerfile, re.MULTILINE)
    if found is None:
        raise UserError(f"{name}/Dockerfile: no line ARG BASE=…; add it or give --base")
    return found.group(1)


def _ensure_base(base: str, say: Callable[[str], None]) -> dict[str, Any]:
    inspected = _inspect(base)
    if inspected is None:
        say(f"pulling {base}")
        _pull(base, say)
        inspected = _inspect(base)
    if inspected is None:
        raise UserError(f"images: base {base} is not there after pulling it")
    return inspected


def _pull(base: str, say: Callable[[str], None]) -> None:
    """Pulls a base, which may be 20 GB: a line a layer that has arrived."""
    found: list[str] = []
    last = ""
    with subprocess.Popen(
        ["docker", "pull", base], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            last = line.strip() or last
            if match := _LAYER.match(last):
                found.append(match.group(1))
                here = len(found) - found.count("Pulling fs layer")
                if match.group(1) == "Pull complete":
                    say(f"{base}: {here} of {len(found) - found.count('Pull complete')} layers")
    if process.returncode:
        why = last.removeprefix("Error response from daemon: ") or "no message"
        raise BaseError(f"images: base {base} can't be pulled: {why}")


def _context(
    context: Context, base: str, say: Callable[[str], None]
) -> tuple[Context, AbstractContextManager[list[str]]]:
    """The context and the build's further arguments, good within their `with`.

    A build can neither see a folder of wheels on this machine nor use an index that its base has no
    pip for. Dockerfiles that copy `site*` then get the packages installed; those that take
    `PIP_FIND_LINKS` get an address that serves them.
    """
    name = context.name
    takes_site = f"{name}/site*" in context.dockerfile
    takes_wheels = "ARG PIP_FIND_LINKS" in context.dockerfile and context.requirements
    if not (takes_site or takes_wheels):
        return context, nullcontext([])
    wheels = packages.local_wheels()
    if takes_wheels:
        if wheels is None:
            return context, nullcontext([])
        say(f"{name}: wheels are served from here, since its build does not see {wheels}")
        return context, _wheels(context, _DEBIANS_PYTHON, say)
    probe = (
        "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], u.find_spec('pip'))"
    )
    result = _docker(
        "run", "--rm", "--network", "none", "--entrypoint", "python3", base, "-c", probe
    )
    if result.returncode:
        raise UserError(f"{name}: base {base} has no python3: {_last(result.stderr)}")
    python, pip = result.stdout.split(maxsplit=1)
    if wheels is None and pip.strip() != "None":
        return context, nullcontext([])
    why = f"its build does not see {wheels}" if wheels else f"{base} has no pip"
    say(f"{name}: packages are installed here and copied in, since {why}")
    (requirements,) = context.requirements
    return replace(context, site=packages.install(requirements, python, say)), nullcontext([])


@contextmanager
def _wheels(context: Context, python: str, say: Callable[[str], None]) -> Iterator[list[str]]:
    with_more = "--no-deps" not in context.dockerfile
    with packages.served(context.requirements, python, say, with_more) as address:
        yield [f"PIP_FIND_LINKS={address}", "PIP_NO_INDEX=1"]


def _provenance(name: str, key: str, base: str, inspected: dict[str, Any]) -> dict[str, str]:
    """Labels of the OCI image specification (annotations.md), beside our own."""
    repo_digests = inspected.get("RepoDigests") or []
    digest = repo_digests[0].partition("@")[2] if repo_digests else inspected["Id"]
    labels = {
        _INPUTS: key,
        f"{_OCI}.title": name,
        f"{_OCI}.version": key,
        f"{_OCI}.created": datetime.now(UTC).isoformat(timespec="seconds"),
        f"{_OCI}.base.name": base,
        f"{_OCI}.base.digest": digest,
    }
    for field, argv in (
        ("revision", ["rev-parse", "HEAD"]),
        ("source", ["config", "--get", "remote.origin.url"]),
    ):
        value = subprocess.run(
            ["git", "-C", str(_ROOT), *argv], capture_output=True, text=True
        ).stdout.strip()
        if value:
            labels[f"{_OCI}.{field}"] = re.sub(r"//[^/@]*@", "//", value)  # no credentials
    return labels


def _label(label: str | None) -> dict[str, str]:
    if label is None:
        return {}
    key, equals, value = label.partition("=")
    if not (key and equals):
        raise UserError(f"images: label {label!r} is not KEY=VALUE")
    return {key: value}


def _docker_build(
    context: Context,
    ref: str,
    arguments: list[str],
    labels: dict[str, str],
    say: Callable[[str], None],
) -> None:
    argv = ["docker", "build", "--tag", ref, "--file", f"{context.name}/Dockerfile"]
    for argument in arguments:
        argv += ["--build-arg", argument]
    if len(arguments) > 1:
        argv += ["--network", "host"]  # where the wheels are served
    for key, value in labels.items():
        argv += ["--label", f"{key}={value}"]
    _LOGS.mkdir(parents=True, exist_ok=True)
    log = _LOGS / f"{context.name}.log"
    step = "sending the context"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*argv, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        feeder = threading.Thread(target=_feed, args=(context, process), daemon=True)
        feeder.start()
        for raw in process.stdout or ():
            line = raw.decode(errors="replace").rstrip()
            out.write(line + "\n")
            if found := _STEP.match(line):
                step = f"{found.group(1)} {found.group(2)[:70]}"
                if not found.group(2).startswith("LABEL"):  # the provenance, one step a label
                    say(f"{context.name}: step {step}")
        feeder.join()
    if process.returncode:
        raise UserError(
            f"{context.name}: docker build failed at {step}: {_last(log.read_text())};"
            f" see {log.relative_to(_ROOT)}"
        )


def _feed(context: Context, process: subprocess.Popen[bytes]) -> None:
    if process.stdin is None:
        return
    try:
        with process.stdin as pipe:
            context.write(pipe)
    except BrokenPipeError:
        pass  # docker has stopped reading; its own words and exit code say why


def _push(name: str, ref: str, say: Callable[[str], None]) -> str:
    say(f"{name}: pushing to {ref}")
    result = _docker("push", ref)
    found = _DIGEST.search(result.stdout)
    if result.returncode or found is None:
        why, host = _last(result.stderr or result.stdout), ref.partition("/")[0]
        advice = [text for words, text in _PUSH_ADVICE if any(w in why.lower() for w in words)]
        action = f"; {advice[0].format(host=host)}" if advice else ""
        raise UserError(f"{name}: pushing {ref} failed: {why}{action}")
    return found.group(1)


def _inspect(ref: str) -> dict[str, Any] | None:
    result = _docker("image", "inspect", ref)
    if result.returncode:
        if "No such image" in result.stderr:
            return None
        raise UserError(f"images: docker image inspect {ref}: {_last(result.stderr)}")
    described: dict[str, Any] = json.loads(result.stdout)[0]
    return described


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "images: the docker command is missing; install it (apt-get install docker.io)"
        ) from None


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def main(argv: Sequence[str] | None = None) -> int:
    """Builds the named images; 0 done, 2 a mistake or a failed build, in one line."""
    parser = argparse.ArgumentParser(prog="python -m images.build", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--base", help="instead of the base that the Dockerfile names")
    parser.add_argument("--registry", metavar="HOST:PORT", help="part of the reference")
    parser.add_argument("--tag", help="default: a hash of the inputs")
    parser.add_argument("--label", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="write what was built as JSON")
    options = parser.parse_args(argv)
    try:
        built = [
            build(
                name,
                base=options.base,
                registry=options.registry,
                tag=options.tag,
                label=options.label,
            )
            for name in options.names
        ]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.out:
        options.out.write_text(json.dumps([vars(image) for image in built], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
