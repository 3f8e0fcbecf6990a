"""``python3 load.pyz PLAN.json``: event lines on stdout, ``requests.csv`` where the plan says.

A line on stdin says why the load is to end (the server is gone); so does its end. Exit code 0, or 1 with the
reason as an ``error`` event and on stderr. A plan with ``link`` is of a server on another machine: a
connection there takes the place of stdin and stdout (:mod:`wattbench.workloads.load.link`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys

from wattbench.workloads.load.link import GONE, Link, LinkError
from wattbench.workloads.load.plan import Plan
from wattbench.workloads.load.records import Records
from wattbench.workloads.load.run import Load, LoadError, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Files that a process may have open, where the host lets it.
_OPEN_FILES = 4096


def main(argv: list[str]) -> int:
    """The command line."""
    if len(argv) != 1:
        print("usage: load PLAN.json", file=sys.stderr)
        return 2
    with open(argv[0], encoding="utf-8") as file:
        document = json.load(file)
    try:
        plan = Plan.of(document)
        if plan.cpus:
            os.sched_setaffinity(0, plan.cpus)
        link = Link(document["link"]) if document.get("link") else None
    except (OSError, ValueError, LinkError) as error:
        return _fail("the load can't start: %s" % error)
    _allow_connections()
    records = Records(document["output"])
    try:
        why = asyncio.run(_see_through(plan, records, link))
    finally:
        records.close()
    code = 0 if why is None else _fail(why)
    if link is not None:
        try:
            link.hand_over(document["output"])
        except LinkError as error:
            print(error if why is None else why, file=sys.stderr)
            return 1
    return code


def _fail(why: str) -> int:
    why = " ".join(why.split())
    print(why, file=sys.stderr)
    with contextlib.suppress(OSError):  # whoever listened is gone
        say("error", message=why)
    return 1


def _allow_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _see_through(plan: Plan, records: Records, link: Link | None) -> str | None:
    """Run the load until it is over or stdin says why it is to end; why it did not go to its end."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()

    def listen() -> None:
        try:
            said = os.read(0, 4096)
        except OSError:
            said = b""
        loop.remove_reader(0)
        if not stopped.done():
            unsaid = GONE if link else "the load was stopped"
            stopped.set_result(said.decode("utf-8", "replace").strip() or unsaid)

    loop.add_reader(0, listen)
    load = Load(plan, records, link.clock if link else None)
    running = asyncio.ensure_future(load.run())
    either: set[asyncio.Future[Any]] = {running, stopped}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, LoadError, LinkError, OSError):
                await running
            raise LoadError(stopped.result())
        loop.remove_reader(0)
        running.result()
    except (ConnectionError, TimeoutError):
        return GONE
    except (LoadError, LinkError) as error:
        return str(error) if load.phase == "start" else "%s (phase %s)" % (error, load.phase)
    return None
