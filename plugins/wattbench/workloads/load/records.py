"""``requests.csv``: one line per request, as it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = (
    "step,number,intended_unix_s,sent_unix_s,first_byte_unix_s,done_unix_s,status,error,answer,"
    "bytes_out,bytes_in,tokens_in,tokens_out\n"
)


@dataclass(frozen=True)
class Row:
    """One request; times on the monotonic clock in seconds."""

    step: str
    number: int
    intended_s: float
    sent_s: float
    first_s: float | None
    done_s: float | None
    status: int | None
    error: str | None
    answer: str
    bytes_out: int
    bytes_in: int
    tokens_in: int | None
    tokens_out: int | None


class Records:
    """The file. Differences between its times are those of the monotonic clock."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w", encoding="ascii", buffering=1 << 20)
        self._file.write(HEADER)
        self._unix_minus_mono_s = time.time() - time.monotonic()

    def add(self, row: Row) -> None:
        """Write one line."""
        cells = (
            row.step, row.number, self._stamp(row.intended_s), self._stamp(row.sent_s),
            self._stamp(row.first_s), self._stamp(row.done_s), _cell(row.status), row.error or "",
            row.answer, row.bytes_out, row.bytes_in, _cell(row.tokens_in), _cell(row.tokens_out),
        )  # fmt: skip
        self._file.write("%s,%d,%s,%s,%s,%s,%s,%s,%s,%d,%d,%s,%s\n" % cells)

    def _stamp(self, mono_s: float | None) -> str:
        return "" if mono_s is None else "%.6f" % (mono_s + self._unix_minus_mono_s)

    def close(self) -> None:
        """Write what is held back."""
        self._file.close()


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
