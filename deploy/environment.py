"""The file .env: a deployment's addresses and secrets, made once, never overwritten."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from wattbench.analysis.model.errors import UserError

_REQUIRED = re.compile(r"\$\{(\w+):\?")
_TEMPLATE = """\
# Made by `make secrets`. Keep a copy in a safe place: a backup's connections can't be
# read without FERNET_KEY.
COMPOSE_FILE=docker-compose.airflow.yml
COMPOSE_PROJECT_NAME=wattbench

# Where Airflow listens, and the address that people use. docs/deploy.md: behind a proxy with TLS.
WATTBENCH_ADDRESS=127.0.0.1
WATTBENCH_PORT=8080
WATTBENCH_URL=http://127.0.0.1:8080

# The first user. Others, and a new password: docs/deploy.md.
WATTBENCH_ADMIN=admin
WATTBENCH_ADMIN_PASSWORD={password}

# The object store. For another one change these three.
STORE_ENDPOINT=http://store:8333
STORE_ACCESS_KEY={store_key}
STORE_SECRET_KEY={store_secret}

POSTGRES_PASSWORD={database}
BROKER_PASSWORD={broker}
FERNET_KEY={fernet}
JWT_SECRET={jwt}
API_SECRET={api}
"""


def make(file: Path) -> None:
    """Writes the file with fresh secrets, readable by its owner alone.

    Raises:
        UserError: it is there already, or can't be written.
    """
    text = _TEMPLATE.format(
        password=secrets.token_urlsafe(12),
        store_key=f"wattbench{secrets.token_hex(4)}",
        store_secret=secrets.token_hex(20),
        database=secrets.token_hex(20),
        broker=secrets.token_hex(20),
        fernet=base64.urlsafe_b64encode(os.urandom(32)).decode(),
        jwt=secrets.token_urlsafe(64),
        api=secrets.token_urlsafe(32),
    )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(
            f"deploy: {file} is there already and stays as it is; a deployment's secrets are made once"
        ) from None
    except OSError as error:
        raise UserError(f"deploy: {file} can't be written ({error.strerror})") from None
    with os.fdopen(descriptor, "w") as out:
        out.write(text)


def read(file: Path) -> dict[str, str]:
    """The variables of the file, as Compose reads plain lines.

    Raises:
        UserError: it is missing, or others can read it.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise UserError(f"deploy: {file} is missing; make it with: make secrets") from None
    if file.stat().st_mode & 0o077:
        raise UserError(f"deploy: {file} can be read by others; run: chmod 600 {file}")
    lines = (line.partition("=") for line in text.splitlines() if re.match(r"\w+=", line))
    return {key: value.strip() for key, _, value in lines}


def check(file: Path, variables: Mapping[str, str], compose: Path) -> None:
    """Refuses a file without something that the compose file requires.

    Raises:
        UserError: names what is missing.
    """
    required = sorted(set(_REQUIRED.findall(compose.read_text())))
    missing = [name for name in required if not (os.environ.get(name) or variables.get(name))]
    if missing:
        raise UserError(
            f"deploy: {file} lacks {', '.join(missing)}; take it from your copy of the file, or for a "
            "new deployment move the file away and run: make secrets"
        )
