"""Backup and restore of database and object store: one folder, checked before anything is restored.

The store is copied object by object over S3, so a backup can be restored into another kind of store.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.stack import Stack, show
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside

_DATABASE, _STORE, _INDEX = "airflow.dump", "store.tar", "backup.json"
_INSIDE = ("run", "--rm", "--no-deps", "-T", "init", "python3", "-m", "wattbench.deployment")
_IN_DATABASE = ("exec", "-T", "postgres")
_TABLES = "select count(*) from pg_tables where schemaname = 'public'"


def save(stack: Stack, folder: Path) -> None:
    """Writes a backup while the deployment runs.

    The database first: what it refers to is then in the store.

    Raises:
        UserError: the folder is there already, or a part could not be read.
    """
    if folder.exists():
        raise UserError(f"deploy: {folder} is there already; name a new folder for the backup")
    with written_beside(folder) as staging:
        staging.mkdir(mode=0o700)
        with (staging / _DATABASE).open("wb") as out:
            stack.compose(
                *_IN_DATABASE,
                "pg_dump",
                "--username=airflow",
                "--format=custom",
                "airflow",
                stdout=out,
            )
        with (staging / _STORE).open("wb") as out:
            stack.compose(*_INSIDE, "save", stdout=out)
        index = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "fernet_key": _fingerprint(stack),
            "sha256": {name: _sha256(staging / name) for name in (_DATABASE, _STORE)},
        }
        (staging / _INDEX).write_text(json.dumps(index, indent=2) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    show(f"backup in {folder}, {size / 1e6:.1f} MB; keep a copy of {stack.env_file} elsewhere")


def load(stack: Stack, folder: Path) -> None:
    """Restores a backup into a deployment that holds nothing yet.

    Raises:
        UserError: the backup is damaged or made with other secrets, or there is something already:
            nothing has been changed then.
    """
    _check(stack, folder)
    stack.check_secrets()
    stack.compose("build")
    stack.compose("up", "--detach", "postgres", "store")
    _wait_for_database(stack)
    tables = _query(stack, _TABLES)
    if tables != "0":
        raise UserError(
            f"deploy: the database holds {tables} tables already; restore only into a new deployment "
            "(another COMPOSE_PROJECT_NAME in .env, say)"
        )
    with (folder / _STORE).open("rb") as archive:  # it refuses to overwrite, so it goes first
        stack.compose(*_INSIDE, "load", stdin=archive)
    with (folder / _DATABASE).open("rb") as dump:
        stack.compose(
            *_IN_DATABASE, "pg_restore", "--username=airflow", "--dbname=airflow", "--no-owner",
            "--exit-on-error", "--single-transaction", stdin=dump,
        )  # fmt: skip
    show("restored; now: make up")


def _check(stack: Stack, folder: Path) -> None:
    try:
        index: dict[str, Any] = json.loads((folder / _INDEX).read_text())
        wrong = [name for name, known in index["sha256"].items() if _sha256(folder / name) != known]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"deploy: {folder} is not a backup: {error}") from None
    if wrong:
        raise UserError(f"deploy: {folder}/{wrong[0]} is damaged; take another copy of the backup")
    if index["fernet_key"] != _fingerprint(stack):
        raise UserError(
            f"deploy: {stack.env_file} has another FERNET_KEY than the deployment of {folder}; take the "
            "copy of .env that belongs to it"
        )


def _wait_for_database(stack: Stack, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while _query(stack, "select 1") != "1":
        if time.monotonic() > deadline:
            raise UserError(
                f"deploy: postgres does not answer within {within_s:.0f} s; see its log"
            )
        time.sleep(0.5)


def _query(stack: Stack, sql: str) -> str:
    psql = ("psql", "--username=airflow", "--dbname=airflow", "--no-align", "--tuples-only")
    return stack.output(*_IN_DATABASE, *psql, "--command", sql)


def _fingerprint(stack: Stack) -> str:
    return hashlib.sha256(stack.variables["FERNET_KEY"].encode()).hexdigest()[:12]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
