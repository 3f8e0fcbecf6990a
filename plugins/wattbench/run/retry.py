"""Which failed attempts are measured again."""

from __future__ import annotations

from wattbench.analysis.model.records import Record

#: Faults that another attempt would only repeat.
DETERMINISTIC_CODES = frozenset({"device-mismatch", "unequal-work", "gpu-idle"})


def is_deterministic(record: Record) -> bool:
    """Whether an attempt failed in a way that another one would repeat.

    Of one that broke off, only the device counts: its work is unequal because it is unfinished.
    """
    codes = {f.code for f in record.findings if f.is_found_error}
    if record.row.status != "invalid":
        codes &= {"device-mismatch"}
    return bool(codes & DETERMINISTIC_CODES)
