"""Secrets of the services of a state folder: generated once, readable by the owner only."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field

from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local.state_folder import StateFolder


@dataclass(frozen=True)
class Credentials:
    """Passwords and keys of one state folder's services.

    Attributes:
        store_key: access key of the object store; rclone refuses short ones.
        store_secret: its secret.
        airflow_user: who triggers the run.
        airflow_password: with which password.
        jwt_secret: signs the tokens between Airflow's parts.
        api_secret: signs the web session.
        fernet_key: encrypts connections in Airflow's database.
    """

    store_key: str = field(default_factory=lambda: f"wattbench{secrets.token_hex(4)}")
    store_secret: str = field(default_factory=lambda: secrets.token_hex(20))
    airflow_user: str = "admin"
    airflow_password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(64))
    api_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    fernet_key: str = field(
        default_factory=lambda: base64.urlsafe_b64encode(os.urandom(32)).decode()
    )


def ensure(state: StateFolder) -> Credentials:
    """The state folder's credentials, made at the first call."""
    file = state.folder() / "credentials.json"
    try:
        return Credentials(**json.loads(file.read_text()))
    except FileNotFoundError:
        made = Credentials()
        write_atomically(file, json.dumps(asdict(made), indent=2) + "\n", mode=0o600)
        return made
