"""What programs say: the end of their output, and the line that says why they failed."""

from __future__ import annotations

import os
import re


def tail(path: str, size: int = 2000) -> str:
    """The end of a text file; empty if there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(file, "rb") as stream:
        try:
            stream.seek(max(0, os.fstat(file).st_size - size))
            return stream.read(size).decode("utf-8", "replace")
        except OSError:
            return ""


def reason_in(text: str) -> str:
    """The line that says why a program failed: the panic's, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = re.compile(r"'docker run --help'|^\[WARNING\]")
    lines = [line for line in lines if not noise.search(line)]
    for number, line in enumerate(lines):
        if "panicked at" in line:
            return " ".join(lines[number : number + 2])
    return lines[-1] if lines else ""


def complaint(path: str) -> str:
    """:func:`reason_in` the end of a file."""
    return reason_in(tail(path, 8000))
