"""The load: wait until the server is ready, warm it up, run the steps, report each as event lines."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import time

from wattbench.workloads.load.answers import STREAMED, Plain, Stream
from wattbench.workloads.load.connection import Client
from wattbench.workloads.load.plan import Request, Step
from wattbench.workloads.load.records import Records, Row
from wattbench.workloads.load.timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wattbench.workloads.load.connection import Exchange, Reader
    from wattbench.workloads.load.plan import Plan

#: Time between two questions whether the server is ready, s.
READY_EVERY_S = 0.1
#: How long such a question waits for its answer: one that is lost on its way costs no more, s.
READY_ANSWER_S = 5.0
#: How long a worker waits after a refused connection: the server's end is known by then, s.
REFUSED_S = 0.1
#: Time between two looks at how late the generator is, in a step without planned times, s.
TICK_S = 0.05
#: So many failures without a success between them: the server is not there any more.
MOST_FAILURES = 100
#: The generator is one thread: it uses one CPU at most.
CORES = 1


class LoadError(Exception):
    """Why the load can't go on, in one line."""


def say(event: str, **fields: Any) -> None:
    """Print an event line, whole."""
    stamps = {"unix_s": time.time(), "mono_s": time.monotonic()}
    line = json.dumps({"event": event, **stamps, **fields}) + "\n"
    data = line.encode()
    while data:
        data = data[os.write(1, data) :]


class Tally:
    """What came of a step's requests so far."""

    def __init__(self) -> None:
        self.sent = self.good = self.tokens = self.failed_in_a_row = 0
        self.late_s: list[float] = []
        self.first_failure: str | None = None

    def late(self, share: float) -> float:
        """A quantile of the lateness, s; 0 without any."""
        ordered = sorted(self.late_s)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


class Load:
    """One load on one server.

    Args:
        plan: what is sent when.
        records: of the requests.
        clock: asks the server's machine for its clock, where it is another one.
    """

    def __init__(
        self, plan: Plan, records: Records, clock: Callable[[], dict[str, float]] | None = None
    ) -> None:
        self.plan, self._records, self._clock = plan, records, clock
        self._client = Client(plan.host, plan.port, plan.timeout_s)
        self._timer = Timer()
        self._sent_before = 0
        self._counted = False
        self.phase = "start"

    async def run(self) -> None:
        """From the first question whether the server is ready to the last answer.

        Raises:
            LoadError: the server is not, or no longer, what the plan expects.
        """
        plan = self.plan
        await self._until_ready()
        say("start", protocol=1, unit=plan.unit, program="load")
        self._compare_clocks()
        if plan.warmup:
            self._begin("warmup")
            step = Step("warmup", concurrency=plan.warmup_concurrency, requests=plan.warmup)
            self._check(await self._closed(step))
            self._end()
        for step in plan.steps:
            await self._step(step)
        if self._counted:
            say("tokens", counted="chunks")
        self._compare_clocks()
        self._client.close()
        self._timer.close()
        say("end")

    def _compare_clocks(self) -> None:
        """On both sides of what is measured, while nothing is under way."""
        if self._clock is not None:
            say("clock", **self._clock())

    # -- ready -----------------------------------------------------------------------------------------

    async def _until_ready(self) -> None:
        plan, request = self.plan, Request("GET", self.plan.ready_path)
        deadline_s = time.monotonic() + plan.ready_timeout_s
        answer_s, last = min(plan.timeout_s, READY_ANSWER_S), None
        while True:
            within_s = max(min(deadline_s - time.monotonic(), answer_s), 0.001)
            client = Client(plan.host, plan.port, within_s)
            exchange = await client.ask(request, lambda: Plain(None))
            client.close()
            if exchange.error is None and 200 <= (exchange.status or 0) < 300:
                return
            if exchange.error == "protocol":
                raise LoadError("%s: %s" % (request.what, exchange.message))
            # A question that only the deadline cut short says less than the one before it.
            if last is None or exchange.error != "timeout" or within_s >= answer_s:
                last = exchange.message or "it is answered %s" % exchange.status
            if time.monotonic() + READY_EVERY_S > deadline_s:
                raise LoadError(
                    "the server was not ready after %g s: GET %s on port %d: %s"
                    % (plan.ready_timeout_s, plan.ready_path, plan.port, last)
                )
            await asyncio.sleep(READY_EVERY_S)

    # -- steps -----------------------------------------------------------------------------------------

    async def _step(self, step: Step) -> None:
        gc.collect()  # now, and less of it in the step
        self._begin("steady:" + step.name)
        begin_s, cpu_s = time.monotonic(), time.process_time()
        tally = await (self._closed(step) if step.concurrency else self._open(step, begin_s))
        duration_s, cpu_s = time.monotonic() - begin_s, time.process_time() - cpu_s
        phase = self._end()
        say(
            "load", phase=phase, concurrency=step.concurrency, rate_per_s=step.rate_per_s,
            planned=step.planned(self.plan.seed), sent=tally.sent, duration_s=duration_s, cpu_s=cpu_s,
            cores=CORES, late_p99_s=tally.late(0.99), late_max_s=tally.late(1.0),
        )  # fmt: skip
        units = tally.tokens if self.plan.api in STREAMED else tally.good
        say("result", phase=phase, units=units, duration_s=duration_s)
        self._check(tally)

    async def _closed(self, step: Step) -> Tally:
        """Workers that send their next request when they have an answer."""
        assert step.concurrency is not None
        assert step.requests is not None
        tally, numbers = Tally(), iter(range(1, step.requests + 1))

        async def work() -> None:
            for number in numbers:
                if await self._one(step, number, None, tally) == "connect":
                    await asyncio.sleep(REFUSED_S)

        count = min(step.concurrency, step.requests)
        ticks = asyncio.ensure_future(self._tick(tally))
        try:
            await _all([asyncio.ensure_future(work()) for _ in range(count)])
        finally:
            ticks.cancel()
        self._sent_before += step.requests
        return tally

    async def _tick(self, tally: Tally) -> None:
        """See how late a timer fires: so late are answers stamped and next requests sent."""
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + TICK_S, time.monotonic())
            await self._timer.until(due_s)
            tally.late_s.append(time.monotonic() - due_s)

    async def _open(self, step: Step, begin_s: float) -> Tally:
        """Requests at their planned times, whatever became of the earlier ones."""
        assert step.seconds is not None
        tally, offsets_s = Tally(), step.offsets_s(self.plan.seed)
        under_way: set[asyncio.Future[Any]] = set()
        failed: list[asyncio.Future[Any]] = []

        def over(request: asyncio.Future[Any]) -> None:
            under_way.discard(request)
            if not request.cancelled() and request.exception():
                failed.append(request)

        for number, offset_s in enumerate(offsets_s, start=1):
            due_s = begin_s + offset_s
            await self._timer.until(due_s)
            if failed:
                break
            request = asyncio.ensure_future(self._one(step, number, due_s, tally))
            under_way.add(request)
            request.add_done_callback(over)
        await _all([*failed, *under_way])
        await asyncio.sleep(max(begin_s + step.seconds - time.monotonic(), 0))
        self._sent_before += len(offsets_s)
        return tally

    async def _one(self, step: Step, number: int, due_s: float | None, tally: Tally) -> str | None:
        """One request from its sending to its record.

        Args:
            step: it belongs to.
            number: within the step, from 1.
            due_s: when it was to be sent; None: when its worker is free, which is now.
            tally: to be kept.

        Returns:
            The word for what went wrong; None: nothing.
        """
        plan = self.plan
        tally.sent += 1
        request = plan.request(self._sent_before + number - 1)
        exchange = await self._client.ask(request, self._reader)
        answer = exchange.judge(plan.status)
        intended_s = exchange.sent_s
        if due_s is not None:
            intended_s = due_s
            tally.late_s.append(exchange.sent_s - due_s)
        reader = exchange.reader
        done_s = exchange.done_s if exchange.done_s is not None else time.monotonic()
        self._records.add(
            Row(
                step.name, number, intended_s, exchange.sent_s, reader.first_s, done_s, exchange.status,
                exchange.error, answer, exchange.bytes_out, exchange.bytes_in, reader.tokens_in,
                reader.tokens_out,
            )
        )  # fmt: skip
        self._count(exchange, tally)
        return exchange.error

    def _reader(self) -> Reader:
        plan = self.plan
        return Stream(plan.api, plan.path) if plan.api in STREAMED else Plain(plan.path)

    def _count(self, exchange: Exchange, tally: Tally) -> None:
        if exchange.error is None:
            tally.good += 1
            tally.failed_in_a_row = 0
            tally.tokens += exchange.reader.tokens_out or 0
            self._counted = self._counted or exchange.reader.counted
            return
        failure = "%s: %s" % (exchange.request.what, exchange.message)
        tally.first_failure = tally.first_failure or failure
        tally.failed_in_a_row += 1
        if self.plan.strict:
            raise LoadError(self._although(failure))
        if tally.failed_in_a_row >= MOST_FAILURES:
            raise LoadError("%d requests failed in a row: %s" % (MOST_FAILURES, failure))

    def _check(self, tally: Tally) -> None:
        """A phase without a single good answer measures nothing."""
        if tally.sent and not tally.good:
            raise LoadError("no request succeeded: %s" % self._although(tally.first_failure or ""))

    def _although(self, failure: str) -> str:
        return "%s (GET %s had been answered with success)" % (failure, self.plan.ready_path)

    # -- phases ----------------------------------------------------------------------------------------

    def _begin(self, phase: str) -> None:
        self.phase = phase
        say("phase", name=phase, edge="begin")

    def _end(self) -> str:
        say("phase", name=self.phase, edge="end")
        return self.phase


async def _all(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for all; the first failure ends the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
