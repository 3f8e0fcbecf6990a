"""Waking up in time: asyncio's own timers are a millisecond coarse, the kernel's are not."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1


class Timer:
    """One moment at a time on the monotonic clock. Where the kernel's timer is absent, asyncio's is used."""

    def __init__(self) -> None:
        self._due: asyncio.Future[None] | None = None
        self._set: Any = None
        self._file = -1
        try:
            library = ctypes.CDLL(None, use_errno=True)
            self._file = library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            self._set = library.timerfd_settime
        except (OSError, AttributeError):
            return
        if self._file >= 0:
            asyncio.get_running_loop().add_reader(self._file, self._fire)

    def _fire(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set again meanwhile
            return
        if self._due is not None and not self._due.done():
            self._due.set_result(None)

    async def until(self, moment_s: float) -> None:
        """Sleep; at least let others have their turn."""
        left_s = moment_s - time.monotonic()
        if left_s <= 0 or not self._wind(moment_s):
            await asyncio.sleep(max(left_s, 0))
            return
        self._due = asyncio.get_running_loop().create_future()
        await self._due

    def _wind(self, moment_s: float) -> bool:
        """Set the kernel's timer; whether it was."""
        if self._file < 0:
            return False
        whole_s = int(moment_s)
        # no interval; the moment in seconds and nanoseconds
        moment = (ctypes.c_long * 4)(0, 0, whole_s, int((moment_s - whole_s) * 1e9))
        return bool(self._set(self._file, _ABSOLUTE, ctypes.byref(moment), None) == 0)

    def close(self) -> None:
        """Give it back."""
        if self._file >= 0:
            asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)
            self._file = -1
