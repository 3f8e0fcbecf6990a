"""``requests.csv`` of a load generator: one line per request.

Read in blocks and by columns; a line that is not what the generator writes is an error that names it, since
percentiles and answers of the others would look complete.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from wattbench.analysis.model.errors import InputError

#: Among an attempt's raw files.
FILE = "requests.csv"
COLUMNS = (
    "step", "number", "intended_unix_s", "sent_unix_s", "first_byte_unix_s", "done_unix_s", "status",
    "error", "answer", "bytes_out", "bytes_in", "tokens_in", "tokens_out",
)  # fmt: skip
ERRORS = ("connect", "reset", "timeout", "status", "redirect", "protocol", "parse", "answer")

#: Requests of one attempt that are read.
MOST_REQUESTS = 2_000_000
#: Characters of a line.
MOST_LINE = 512
#: Bytes that are split at a time.
_BLOCK = 1 << 22

_EMPTY_ALLOWED = frozenset(
    {"first_byte_unix_s", "done_unix_s", "status", "tokens_in", "tokens_out"}
)
_TEXTS = ("step", "error", "answer")
_NEXT = "fetch the file again, or run the trial again"

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.bytes_]


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests in the order of the file; unknown times and numbers are NaN.

    Attributes:
        step: ``warmup``, or the step's name.
        number: within the step, from 1.
        intended_s: when it was to be sent, Unix seconds.
        sent_s: when it was.
        first_byte_s: of the answer.
        done_s: last byte.
        error: empty, or one of :data:`ERRORS`.
        answer: digest of what must be the same for all images, or empty.
        tokens_in: as the server counts them.
        tokens_out: likewise, or the chunks of the stream.
    """

    step: Texts
    number: Floats
    intended_s: Floats
    sent_s: Floats
    first_byte_s: Floats
    done_s: Floats
    error: Texts
    answer: Texts
    tokens_in: Floats
    tokens_out: Floats

    def of(self, step: str) -> Requests:
        """The requests of one step."""
        mine = self.step == step.encode()
        return Requests(**{f.name: getattr(self, f.name)[mine] for f in fields(self)})

    def __len__(self) -> int:
        return int(self.number.size)


def read(files: Mapping[str, bytes]) -> Requests | None:
    """Read an attempt's requests; None: it has none.

    Raises:
        InputError: a line is broken, or there are too many.
    """
    if data := files.get(FILE):
        return _read(io.BytesIO(data))
    if packed := files.get(f"{FILE}.gz"):
        try:
            return _read(gzip.GzipFile(fileobj=io.BytesIO(packed)))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{FILE}.gz can't be unpacked ({error}); {_NEXT}") from error
    return None


def _read(stream: io.BufferedIOBase | io.BytesIO) -> Requests:
    head = stream.readline(MOST_LINE).rstrip(b"\r\n").decode("ascii", "replace")
    if head != ",".join(COLUMNS):
        raise InputError(f"{FILE}: line 1: {head[:80]!r} is not the header of requests; {_NEXT}")
    texts: dict[str, list[Texts]] = {name: [] for name in _TEXTS}
    numbers: dict[str, list[Floats]] = {name: [] for name in COLUMNS if name not in _TEXTS}
    number = 2
    for block in _blocks(stream):
        own_texts, own_numbers = _columns(block, number)
        for name in texts:
            texts[name].append(own_texts[name])
        for name in numbers:
            numbers[name].append(own_numbers[name])
        number += len(block)
        if number - 2 > MOST_REQUESTS:
            raise InputError(
                f"{FILE} holds more than {MOST_REQUESTS} requests; use fewer or shorter steps"
            )
    if number == 2:
        raise InputError(f"{FILE} holds no request; {_NEXT}")
    said = {name: np.concatenate(parts) for name, parts in texts.items()}
    whole = {name: np.concatenate(parts) for name, parts in numbers.items()}
    found = Requests(
        said["step"], whole["number"], whole["intended_unix_s"], whole["sent_unix_s"],
        whole["first_byte_unix_s"], whole["done_unix_s"], said["error"], said["answer"],
        whole["tokens_in"], whole["tokens_out"],
    )  # fmt: skip
    _check_numbers(found)
    return found


def _blocks(stream: io.BufferedIOBase | io.BytesIO) -> Iterator[list[bytes]]:
    """Whole lines, some megabytes at a time."""
    rest, number = b"", 2
    while data := stream.read(_BLOCK):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        if len(rest) > MOST_LINE:
            raise _broken(number + len(lines), f"is longer than {MOST_LINE} characters")
        if lines:
            yield lines
            number += len(lines)
    if rest:
        raise _broken(number, "has no end: the generator was stopped while it wrote")


def _broken(line: int, why: str) -> InputError:
    return InputError(f"{FILE}: line {line}: {why}; {_NEXT}")


def _columns(lines: list[bytes], first: int) -> tuple[dict[str, Texts], dict[str, Floats]]:
    """The columns of a block whose first line has a number: texts and numbers."""
    cells: list[bytes] = []
    for place, line in enumerate(lines):
        own = line.rstrip(b"\r").split(b",")
        if len(own) != len(COLUMNS):
            raise _broken(first + place, f"has {len(own)} cells instead of {len(COLUMNS)}")
        cells += own
    columns = {
        name: np.array(cells[place :: len(COLUMNS)], dtype=np.bytes_)
        for place, name in enumerate(COLUMNS)
    }
    texts = {name: columns.pop(name) for name in _TEXTS}
    numbers = {name: _numbers(column, name, first) for name, column in columns.items()}
    _check(texts, numbers, first)
    return texts, numbers


def _numbers(texts: Texts, name: str, first: int) -> Floats:
    empty = texts == b""
    if name not in _EMPTY_ALLOWED and empty.any():
        raise _broken(first + int(empty.argmax()), f"{name} is empty")
    try:
        values = np.where(empty, b"nan", texts).astype(np.float64)
    except ValueError:
        values = np.array([_number(text) for text in texts])
    odd = ~empty & ~(np.isfinite(values) & (values >= 0))
    if odd.any():
        place = int(odd.argmax())
        text = texts[place].decode("ascii", "replace")[:40]
        raise _broken(first + place, f"{name} is {text!r}, not a number from 0 on")
    return values


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _check(texts: Mapping[str, Texts], numbers: Mapping[str, Floats], first: int) -> None:
    error, done, number = texts["error"], numbers["done_unix_s"], numbers["number"]
    faults = (
        (texts["step"] == b"", "step is empty"),
        (
            ~np.isin(error, [b"", *(e.encode() for e in ERRORS)]),
            f"error is none of {', '.join(ERRORS)}",
        ),
        (done < numbers["intended_unix_s"], "it is done before it was due"),
        (
            np.isnan(done) & (error == b""),
            "it has neither an error nor a time at which it was done",
        ),
        ((number % 1 != 0) | (number < 1), "number is not a whole number from 1 on"),
    )
    for odd, why in faults:
        if odd.any():
            raise _broken(first + int(odd.argmax()), why)


def _check_numbers(found: Requests) -> None:
    """Each number once per step."""
    order = np.lexsort((found.number, found.step))
    step, number = found.step[order], found.number[order]
    same = (step[1:] == step[:-1]) & (number[1:] == number[:-1])
    if same.any():
        place = int(order[1:][same].min())
        raise _broken(
            place + 2,
            f"request {int(found.number[place])} of step {found.step[place].decode()} stands there twice",
        )
