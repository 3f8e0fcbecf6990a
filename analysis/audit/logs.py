"""Text logs of a campaign: the output of all runs of one folder, appended one after the other.

Such a log has no time stamps and no run numbers. What one start prints comes in a fixed order of stages
(password prompt, image pull, vendor banner, device, sizes, passes, the meter's summary), of which most
may be absent; a line of an earlier stage than the one before therefore opens the next start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Longer lines are read in pieces of this size, so that a file without line ends can't fill the memory.
LINE_LIMIT = 65_536

_PROMPT = re.compile(r"\[sudo\] password for [^:]*: ?")
_PULL = re.compile(
    r"Unable to find image '(?P<ref>[^']+)' locally"
    r"|^[\w.\-/]+: Pulling from \S+"
    r"|^[0-9a-f]{6,64}: (?:Pulling fs layer|Waiting|Downloading|Verifying Checksum|Download complete"
    r"|Extracting|Pull complete|Already exists|Retrying in \d+ seconds?)"
    r"|^Digest: (?P<digest>sha256:[0-9a-f]{64})"
    r"|^Status: (?:Downloaded newer image|Image is up to date) for"
)
_BANNER = re.compile(r"^== (?P<name>[\w .+\-]+?) ==$|^(?P<version>\w+ Version [\w.\-]+)")
_NO_DRIVER = re.compile(
    r"NVIDIA Driver was not detected|no NVIDIA GPU|GPU functionality will not", re.I
)
_DEVICE = re.compile(
    r"\b(?:using|running on|device)\b(?: device)?[:= ]+['\"]?(?P<device>cpu|cuda|gpu|mps|rocm|xpu|hip)\b",
    re.IGNORECASE,
)
_SIZES = re.compile(r"^\[(?P<sizes>\d{1,9}(?:, *\d{1,9})*)\]$")
_PASS = re.compile(r"\bis running for image size (?P<size>\d{1,9}) ?x ?\d+", re.IGNORECASE)
_TOOK = re.compile(
    r"\btook (?P<seconds>\d{1,15}(?:\.\d+)?(?:e[+-]?\d{1,2})?) ?s(?:ec(?:ond)?s?)?\b", re.IGNORECASE
)
_SUMMARY = re.compile(
    r"Energy consumption in joules: (?P<joules>-?\d{1,15}(?:\.\d+)?(?:e[-+]?\d{1,2})?)"
    r" for (?P<seconds>\d{1,15}(?:\.\d+)?(?:e[-+]?\d{1,2})?) ?sec of execution"
)
_PANIC = re.compile(r"thread '[^']*' (?:\(\d+\) )?panicked at")
#: What Docker, its runtime, the kernel, a shell or Python say of a start that failed.
_REFUSAL = re.compile(
    r"^docker: (?!WARNING|\[WARN)|Error response from daemon|failed to start containers"
    r"|OCI runtime (?:(?:create|exec|start) )?(?:failed|error)"
    r"|^(?:Error: )?(?:crun|runc|youki): |^Error: .*(?:initializing source|image not known)"
    r"|[Pp]ermission denied while trying to connect to the Docker"
    r"|could not select device driver|nvidia-container-cli: |pull access denied|manifest unknown"
    r"|No such image|Unable to find image .* (?:offline|policy)|Cannot connect to the Docker daemon"
    r"|^Traceback \(most recent call last\)|^Failed to execute command|^error: unable to start"
    r"|CUDA out of memory|CUDA error: |OutOfMemoryError|std::bad_alloc|Cannot allocate memory"
    r"|[Nn]o space left on device|exec format error|error while loading shared libraries"
    r"|^\S*python[\d.]*: (?:can't open file|No module named|Error while finding module)"
    r"|^Fatal Python error|^terminate called |^Exception in thread |^Error: Cannot find module"
    r"|^(?:Killed|Segmentation fault|Aborted|Bus error|Illegal instruction)(?: \(core dumped\))?$"
    r"|^\S+: line \d+: +\d+ (?:Killed|Segmentation fault|Aborted|Bus error|Illegal instruction)\b"
    r"|^zsh: (?:killed|segmentation fault|abort)\b"
    r"|^Command (?:exited with non-zero status|terminated by signal) \d+"
    r"|^Error: (?:statfs|short-name|creating|preparing|starting|container create|unable to|netavark|OCI"
    r"|Could not find or load main class|Unable to access jarfile|A JNI error)"
    r"|^(?:SyntaxError|IndentationError|TabError): |^\+ Exception Group Traceback"
    r"|version [`'][\w.]+' not found \(required by|^panic: |^fatal error: |^Unhandled exception"
    r"|^make(?:\[\d+\])?: \*\*\* |^npm (?:ERR!|error) code|^unknown (?:shorthand )?flag: | level=fatal "
    r"|is not recognized as (?:an internal|the name of|a name of)|ErrImagePull|ImagePullBackOff|OOMKilled"
    r"|[Oo]ut of memory: Killed process|oom-kill(?:er)?\b|Received Ctrl\+C"
    r"|^(?:\S*sh|env|exec|sudo|/\S+): .*(?:[Pp]ermission denied|[Nn]ot found|No such file or directory"
    r"|[Ee]xec format error)"
)
_ERROR = re.compile(_REFUSAL.pattern + r"|^sudo: ")
#: The last line of a traceback: the exception.
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)?(?:: .*)?$")

#: What shows within a few lines that a text file is the output of a metered command.
SIGNS = re.compile(
    rb"Energy consumption in joules|\busing \w+ device|\[sudo\] password|panicked at|Unable to find image"
    rb"|^docker: |Error response from daemon|^Traceback \(most recent call last\)|CUDA out of memory"
    rb"|^Command exited with non-zero|error while loading shared libraries|^Segmentation fault|^Killed\s*$"
    rb"|OCI runtime \w*|exec format error|no space left on device|cannot connect to the docker daemon",
    re.IGNORECASE | re.MULTILINE,
)
#: A pass that is one of several repetitions over the same sizes.
_REPEATED = re.compile(r"\b\d+/(?:[2-9]|\d\d+)\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")

#: A panic with this reason leaves the command running; others before any output mean that it never ran.
_RUNS_ON = re.compile(r"overflow when subtracting durations")

#: Messages that don't stop a start: sudo complains of host names and goes on.
_HARMLESS = re.compile(r"sudo: (?!.*(?:denied|not found|No such|format error))")

_STAGES = {
    "prompt": 1,
    "pull": 2,
    "banner": 3,
    "device": 4,
    "sizes": 5,
    "pass": 6,
    "took": 6,
    "summary": 7,
}
#: Stages of which a start has one line only: a second one opens the next start.
_ONCE = frozenset({"prompt", "device", "sizes", "summary"})


@dataclass(frozen=True)
class Pass:
    """One pass as printed; ``seconds`` is None when its end was not printed."""

    size: int | None
    seconds: float | None
    line: int


@dataclass(frozen=True)
class Start:
    """What a log says of one start of the workload or of an idle container. Lines count from 1.

    Attributes:
        file: the log, relative to the campaign.
        line: first line.
        last_line: last line.
        ref: image reference that was looked for.
        digest: digest that a pull ended with.
        pull: first and last line of a pull inside the start.
        layers_downloaded: layers that were downloaded (``Already exists`` ones are not).
        banners: vendor banners and versions.
        banner_lines: their lines.
        banner_line: line of the first of them.
        no_driver_line: line that says that no GPU driver is visible.
        device: device that the workload reports, lower case.
        device_line: its line.
        sizes: image sizes announced.
        passes: passes in order.
        wording: the workload's prints with numbers masked: the program's fingerprint.
        summary_j: joules of the meter's summary line.
        summary_s: its seconds.
        summary_line: its line.
        panic: the panic's text.
        panic_line: its line.
        after_panic: lines that the workload printed after the panic.
        errors: (line, text) of error messages.
    """

    file: str
    line: int
    last_line: int
    ref: str | None = None
    digest: str | None = None
    pull: tuple[int, int] | None = None
    layers_downloaded: int = 0
    banners: tuple[str, ...] = ()
    banner_lines: tuple[int, ...] = ()
    banner_line: int | None = None
    no_driver_line: int | None = None
    device: str | None = None
    device_line: int | None = None
    sizes: tuple[int, ...] = ()
    passes: tuple[Pass, ...] = ()
    wording: tuple[str, ...] = ()
    summary_j: float | None = None
    summary_s: float | None = None
    summary_line: int | None = None
    panic: str | None = None
    panic_line: int | None = None
    after_panic: tuple[int, ...] = ()
    errors: tuple[tuple[int, str], ...] = ()

    @property
    def refusal(self) -> tuple[int, str] | None:
        """Line and words of the first message that says that the start failed."""
        return next((e for e in self.errors if not _HARMLESS.match(e[1])), None)

    @property
    def worked_s(self) -> float:
        """Seconds of all passes that were printed as done."""
        return sum(p.seconds for p in self.passes if p.seconds is not None)

    @property
    def complete(self) -> bool | None:
        """Whether every announced pass was printed as done; None if nothing was announced."""
        if not self.sizes and not self.passes:
            return None
        done = sum(p.seconds is not None for p in self.passes)
        return done >= max(len(self.sizes), len(self.passes))


@dataclass
class _Open:
    """A start that is being read; ``values`` holds the fields of :class:`Start` met once."""

    line: int
    stage: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    pull: tuple[int, int] | None = None
    sizes: tuple[int, ...] = ()
    passes: list[Pass] = field(default_factory=list)
    banners: list[str] = field(default_factory=list)
    banner_lines: list[int] = field(default_factory=list)
    wording: list[str] = field(default_factory=list)
    after_panic: list[int] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    layers: int = 0
    last_line: int = 0

    @property
    def complete(self) -> bool:
        """Whether every announced pass is over."""
        done = sum(p.seconds is not None for p in self.passes)
        return done > 0 and done >= max(len(self.sizes), len(self.passes))


def lines_of(chunks: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines of a log, whatever its line ends; bytes that are not UTF-8 become U+FFFD.

    Args:
        chunks: what ``readline(LINE_LIMIT)`` yields.
    """
    number = 1
    for chunk in chunks:
        # Progress bars end their lines with a bare CR; they count as one line of the file.
        for part in chunk.decode("utf-8", "replace").rstrip("\n").split("\r"):
            if part:
                yield number, part
        number += chunk.endswith(b"\n")


def parse(file: str, lines: Iterable[tuple[int, str]]) -> tuple[Start, ...]:
    """Starts of one log, in its order.

    Args:
        file: the log's name in evidence.
        lines: numbered lines.
    """
    starts: list[Start] = []
    current: _Open | None = None
    panicked_at: int | None = None
    traceback = _Traceback()
    for number, text in lines:
        line = text.strip()
        tokens = list(_tokens(line))
        if current and panicked_at == number - 1 and not tokens:
            # Newer panics say their reason on the line after "panicked at".
            current.values["panic"] = f"{current.values['panic']} {line}"[:300]
        traceback.see(current, number, text, bool(tokens))
        for token in tokens:
            if current and _opens_next(current, token):
                starts.append(_freeze(file, current))
                current = None
            current = current or _Open(number)
            _take(current, token, number)
            current.last_line = number
            if token.kind == "panic":
                panicked_at = number
            elif token.text.startswith("Traceback "):
                traceback.begin(current)
            elif token.kind == "summary":
                starts.append(_freeze(file, current))
                current = None
    if current:
        starts.append(_freeze(file, current))
    return tuple(starts)


class _Traceback:
    """Python's traceback in a log: its words are the exception's; a program that goes on has handled it."""

    def __init__(self) -> None:
        self._of: _Open | None = None
        self._open = False

    def begin(self, start: _Open) -> None:
        """A traceback begins."""
        self._of, self._open = start, True

    def see(self, current: _Open | None, number: int, text: str, has_token: bool) -> None:
        """Look at a line after the first one."""
        if current is None or current is not self._of or text.startswith((" ", "\t")):
            return
        line = text.strip()
        if not line or line.startswith(("During handling of", "The above exception")):
            return
        if self._open and not line.startswith("Traceback") and _EXCEPTION.match(line):
            current.errors[-1] = (number, line[:200])
            self._open = False
        elif not self._open and not has_token:
            current.errors.pop()
            self._of = None


@dataclass(frozen=True)
class _Token:
    """What a line, or a part of it, says: a key of ``_STAGES``, ``panic`` or ``error``."""

    kind: str
    match: re.Match[str]
    text: str


_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("panic", _PANIC),
    ("pull", _PULL),
    ("error", _ERROR),
    ("took", _TOOK),
    ("pass", _PASS),
    ("device", _DEVICE),
    ("sizes", _SIZES),
    ("banner", _BANNER),
    ("banner", _NO_DRIVER),
)


def _tokens(line: str) -> Iterator[_Token]:
    """What a line says, in its order: a prompt or a summary may share it with other output."""
    while prompt := _PROMPT.match(line):
        yield _Token("prompt", prompt, "")
        line = line[prompt.end() :]
    summary = _SUMMARY.search(line)
    text = (line[: summary.start()] if summary else line).strip()
    for kind, pattern in _PATTERNS:
        if match := pattern.search(text):
            yield _Token(kind, match, text)
            break
    if summary:
        yield _Token("summary", summary, "")


def _opens_next(current: _Open, token: _Token) -> bool:
    """Whether a token belongs to the start after the current one."""
    kind = token.kind
    if kind in ("panic", "error"):
        refused = any(text.startswith("docker:") for _, text in current.errors)
        again = refused and token.text.startswith("docker:")
        return again or (current.complete and token.text.startswith(("docker:", "sudo:")))
    stage = _STAGES[kind]
    if "panic" in current.values and current.stage <= _STAGES["prompt"]:
        # The meter gave up before the command said anything: did the command run at all?
        return kind == "prompt" or not _RUNS_ON.search(str(current.values["panic"]))
    if kind == "pass":
        return current.complete and not _REPEATED.search(token.text)
    if kind == "banner":
        # A container prints its banner once: the same again is the next start's.
        name = _banner_name(token)
        again = name in current.banners if name else "no_driver_line" in current.values
        return stage < current.stage or again
    if kind == "pull":
        return current.stage > stage or (current.stage == stage and bool(token.match["ref"]))
    return stage < current.stage or (kind in _ONCE and stage == current.stage)


def _take(current: _Open, token: _Token, number: int) -> None:
    """Note one token."""
    kind, match, values = token.kind, token.match, current.values
    current.stage = max(current.stage, _STAGES.get(kind, _STAGES["prompt"]))
    if kind in ("device", "sizes", "pass", "took"):
        _take_work(current, token, number)
    elif kind == "panic":
        values.update(panic=token.text[:200], panic_line=number)
    elif kind == "error":
        current.errors.append((number, token.text[:200]))
    elif kind == "pull":
        current.pull = (current.pull[0] if current.pull else number, number)
        values.update({k: v for k, v in match.groupdict().items() if v})
        current.layers += "Pull complete" in token.text
    elif kind == "banner":
        values.setdefault("banner_line", number)
        if name := _banner_name(token):
            current.banners.append(name)
            current.banner_lines.append(number)
        else:
            values.setdefault("no_driver_line", number)
    elif kind == "summary":
        values.update(
            summary_j=float(match["joules"]),
            summary_s=float(match["seconds"]),
            summary_line=number,
        )


def _banner_name(token: _Token) -> str | None:
    """A vendor's banner or version; None for a line that says that no driver is visible."""
    if "name" not in token.match.groupdict():
        return None
    return str(token.match["name"] or token.match["version"]).strip()


def _take_work(current: _Open, token: _Token, number: int) -> None:
    """Note one token of the workload's own prints."""
    kind, match = token.kind, token.match
    if "panic_line" in current.values:
        current.after_panic.append(number)
    if kind == "sizes":
        current.sizes = tuple(int(s) for s in match["sizes"].split(","))
        return
    wording = _NUMBER.sub("#", token.text)
    if kind == "device":
        wording = wording.replace(match["device"], "@")
        current.values.update(device=match["device"].lower(), device_line=number)
    elif kind == "pass":
        current.passes.append(Pass(int(match["size"]), None, number))
    else:
        running = current.passes and current.passes[-1].seconds is None
        size = current.passes.pop().size if running else None
        current.passes.append(Pass(size, float(match["seconds"]), number))
    current.wording.append(wording)


def _freeze(file: str, current: _Open) -> Start:
    return Start(
        file=file,
        line=current.line,
        last_line=current.last_line,
        pull=current.pull,
        sizes=current.sizes,
        passes=tuple(current.passes),
        banners=tuple(current.banners),
        banner_lines=tuple(current.banner_lines),
        wording=tuple(dict.fromkeys(current.wording)),
        after_panic=tuple(current.after_panic),
        errors=tuple(current.errors),
        layers_downloaded=current.layers,
        **current.values,
    )
