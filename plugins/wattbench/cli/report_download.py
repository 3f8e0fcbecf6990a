"""Download of a run's report through the Airflow pages of wattbench, without store credentials."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside
from wattbench.cli.airflow_api import NotFoundError
from wattbench.run import store_keys

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client

#: Where Airflow serves wattbench's pages.
PREFIX = "/wattbench"


def fetch_report(client: Client, run_id: str, out: Path) -> Path:
    """Copy a report file by file, each held against the report's manifest.

    Args:
        client: a user who may see the run.
        run_id: which run.
        out: a folder that does not exist or is empty; appears whole or not at all.

    Returns:
        The page, `index.html`.

    Raises:
        UserError: no report, a damaged file, or a folder that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something; name a new folder")
    base = f"{PREFIX}/runs/{store_keys.checked_name(run_id, 'run')}/report"
    try:
        listed = json.loads(client.fetch(f"{base}/{store_keys.MANIFEST}"))["objects"]
    except NotFoundError:
        raise NotFoundError(
            f"{run_id}: has no report (yet); see wattbench status {run_id}"
        ) from None
    except ValueError:  # Airflow answers with its own page where it has no other
        raise UserError(
            f"Airflow at {client.login.url} has no page {base}: its api-server runs without "
            "plugins/wattbench_plugin.py; restart it with plugins_folder set"
        ) from None
    with written_beside(out) as part:
        for entry in listed:
            name = store_keys.checked_key(entry["key"])
            data = client.fetch(f"{base}/{name}")
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise UserError(f"{run_id}: {name} differs from the manifest; fetch it again")
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)
    return out / "index.html"


def report_text(client: Client, run_id: str) -> str:
    """The answer of a run's report as text for a terminal; empty where it has none."""
    path = f"{PREFIX}/runs/{store_keys.checked_name(run_id, 'run')}/report/report.txt"
    try:
        return client.fetch(path).decode()
    except UserError:
        return ""
