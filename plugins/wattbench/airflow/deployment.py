"""What a deployment's containers do beside Airflow itself: `python -m wattbench.deployment VERB`.

docker-compose.airflow.yml calls `init` and `healthy`; `python -m deploy` calls `save` and `load`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO
from urllib.request import urlopen

from wattbench.errors import StoreError, UserError
from wattbench.storage.object_store import Store

HEALTH_URL = "http://api-server:8080/api/v2/monitor/health"
PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_WAITS_S = (2.0,) * 30  # the store may only be starting


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        0 done; 1 not healthy; 2 a mistake of the user, reported in one line.
    """
    options = _parser().parse_args(argv)
    try:
        if options.verb == "healthy":
            return 0 if healthy(options.part) else 1
        with _binary_stdout() as out:  # Airflow's own log goes to standard output too
            store = _configured_store()
            if options.verb == "init":
                init(store)
            elif options.verb == "save":
                save(store, out)
            else:
                load(store, sys.stdin.buffer)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def healthy(part: str, url: str = HEALTH_URL) -> bool:
    """Whether Airflow's API calls a part healthy."""
    try:
        with urlopen(url, timeout=8) as answer:  # noqa: S310 (http, our own)
            return bool(json.load(answer)[part]["status"] == "healthy")
    except (OSError, ValueError, KeyError):
        return False


def init(store: Store) -> None:
    """Makes bucket, database and first user; what is there already stays as it is.

    Raises:
        StoreError: the store does not come up, or the bucket belongs to another account.
    """
    made = store.ensure_bucket()
    sys.stderr.write(f"{store.target.place}: {'made' if made else 'is there'}\n")
    user, password = os.environ["WATTBENCH_ADMIN"], os.environ["WATTBENCH_ADMIN_PASSWORD"]
    for command in (
        ["db", "migrate"],
        ["users", "create", "--role", "Admin", "--username", user, "--password", password,
         "--firstname", user, "--lastname", "wattbench", "--email", f"{user}@localhost"],
        # Who may see runs may see their reports; by default only Op and Admin see plugins' pages.
        ["roles", "add-perms", "Viewer", "User", "--resource", "Plugins", "--action", "can_read"],
    ):  # fmt: skip
        _airflow(command)


def save(store: Store, out: IO[bytes]) -> None:
    """Writes every object below the store's prefix into a tar archive."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for listed in store.list():
            data = store.get(listed.key)
            entry = tarfile.TarInfo(listed.key)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def load(store: Store, archive: IO[bytes]) -> int:
    """Puts every object of such an archive into the store, read back and compared.

    Returns:
        How many there were.

    Raises:
        StoreError: the store holds objects already: nothing is put.
    """
    store.ensure_bucket()
    there = store.list()
    if there:
        raise StoreError(
            f"{store.target.place}: holds {len(there)} objects already, {there[0].key} for one; restore "
            "into an empty bucket, or name another store.bucket or store.prefix in hosts.yaml"
        )
    count = 0
    for key, data in _members(archive):
        store.put(key, data)
        count += 1
    return count


def _members(archive: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:
                yield entry.name, content.read()


def _configured_store() -> Store:
    from wattbench.airflow.connections import open_store
    from wattbench.config.loader import config_dir, load_hosts

    return Store(open_store(load_hosts(config_dir())).target, _WAITS_S)


def _airflow(command: Iterable[str]) -> None:
    """Airflow's command line in this process: no argument of it shows in the process list."""
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", *command]
    airflow()  # type: ignore[no-untyped-call]


@contextmanager
def _binary_stdout() -> Iterator[IO[bytes]]:
    """Standard output for data alone: whatever libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        yield out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wattbench.deployment", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("init", help="bucket, database and first user")
    check = verbs.add_parser("healthy", help="exit code 0 if Airflow calls the part healthy")
    check.add_argument("part", choices=PARTS)
    verbs.add_parser("save", help="the store's objects as a tar archive on standard output")
    verbs.add_parser("load", help="such an archive from standard input into an empty store")
    return parser


if __name__ == "__main__":
    sys.exit(main())
