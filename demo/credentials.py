"""Secrets of the test bed: generated once, stored below `var`, readable by the owner only."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field

from demo.checkout import Checkout
from wattbench.analysis.storage.atomic import write_atomically


@dataclass(frozen=True)
class Credentials:
    """Passwords and keys of one checkout's services.

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


def ensure(checkout: Checkout) -> Credentials:
    """The checkout's credentials, made at the first call."""
    file = checkout.folder() / "credentials.json"
    try:
        return Credentials(**json.loads(file.read_text()))
    except FileNotFoundError:
        made = Credentials()
        write_atomically(file, json.dumps(asdict(made), indent=2) + "\n", mode=0o600)
        return made
