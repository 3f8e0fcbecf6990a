"""Keys in the object store: pure functions from names to keys.

Keys don't hold the store's prefix; :class:`wattbench.store.Store` puts it in front. Names are
letters, digits, ``-``, ``.`` and ``_`` and begin with a letter or a digit, so a key can't leave its
folder.
"""

from __future__ import annotations

from wattbench.analysis.model.errors import InputError
from wattbench.storage.keys import MANIFEST, checked_key, checked_name

__all__ = ["MANIFEST", "checked_key", "checked_name"]

RUNS = "runs"
PAST = "hosts"
CLAIMS = "leases"
OPEN = "open"


def trial_name(planned_position: int, image: str) -> str:
    """``003-pip-torch``: the trial's folder, on the host and in the store."""
    if planned_position < 1:
        raise InputError(f"planned position {planned_position}: positions count from 1")
    return f"{planned_position:03d}-{checked_name(image, 'image')}"


def run_key(run_id: str, *names: str) -> str:
    """``runs/<run_id>``, or what lies below it."""
    parts = [checked_name(run_id, "run id"), *(checked_name(name) for name in names)]
    return "/".join([RUNS, *parts])


def host_key(run_id: str, host: str, *names: str) -> str:
    """``runs/<run_id>/hosts/<host>``, or what lies below it."""
    return run_key(run_id, "hosts", checked_name(host, "host"), *names)


def trial_key(run_id: str, host: str, trial: str, attempt: int, *names: str) -> str:
    """The folder of one attempt, or what lies below it; ``trial`` as by :func:`trial_name`."""
    if attempt < 1:
        raise InputError(f"attempt {attempt} of {trial}: attempts count from 1")
    return host_key(run_id, host, "trials", checked_name(trial, "trial"), str(attempt), *names)


def run_json_key(run_id: str) -> str:
    """The plan and everything that was known before the first trial."""
    return run_key(run_id, "run.json")


def file_key(run_id: str, sha256: str) -> str:
    """A file of the workload, by its content."""
    return run_key(run_id, "files", sha256)


def host_json_key(run_id: str, host: str) -> str:
    """Facts, problems, lease and pulls of one host."""
    return host_key(run_id, host, "host.json")


def trials_parquet_key(run_id: str) -> str:
    """One tidy row per trial."""
    return run_key(run_id, "trials.parquet")


def report_key(run_id: str, *names: str) -> str:
    """The report's folder, or what lies below it."""
    return run_key(run_id, "report", *names)


def trends_key(run_id: str, *names: str) -> str:
    """The folder of the nights up to a run, or what lies below it."""
    return run_key(run_id, "trends", *names)


def past_key(host: str, run_id: str | None = None) -> str:
    """``hosts/<host>/runs``, or what one run left there: what later runs may know of the host."""
    folder = f"{PAST}/{checked_name(host, 'host')}/runs"
    return folder if run_id is None else f"{folder}/{checked_name(run_id, 'run id')}.json"


def claim_key(host: str | None = None, run_id: str | None = None) -> str:
    """``leases``, ``leases/<host>``, or one run's claim on a host."""
    parts = [CLAIMS]
    if host is not None:
        parts.append(checked_name(host, "host"))
        if run_id is not None:
            parts.append(f"{checked_name(run_id, 'run id')}.json")
    return "/".join(parts)


def open_run_key(run_id: str | None = None) -> str:
    """``open``, or the record of a run that is not over."""
    return OPEN if run_id is None else f"{OPEN}/{checked_name(run_id, 'run id')}.json"


def attempt_id(run_id: str, host: str, trial: str, attempt: int) -> str:
    """``run/host/nnn-image/attempt``."""
    trial_key(run_id, host, trial, attempt)
    return f"{run_id}/{host}/{trial}/{attempt}"
