"""Airflow of the test bed: this checkout's DAGs, plugins and sources."""

from __future__ import annotations

from pathlib import Path

from demo.checkout import Checkout
from wattbench.cli.airflow_api import Client, Login
from wattbench.local import airflow_services
from wattbench.local.airflow_services import Airflow, Layout
from wattbench.local.credentials import Credentials


def describe(checkout: Checkout, credentials: Credentials, config: Path) -> Airflow:
    """Where Airflow is and how it is set up; starts nothing.

    Args:
        checkout: whose Airflow.
        credentials: its passwords and keys.
        config: the folder with hosts.yaml and experiments.
    """
    root = checkout.root
    sources = {"PYTHONPATH": f"{root}:{root / 'plugins'}"}
    layout = Layout(
        home=checkout.var / "airflow",
        dags=root / "dags",
        plugins=root / "plugins",
        config=config,
        environment=airflow_services.PROMPT | sources,
    )
    return airflow_services.describe(checkout, credentials, layout)


def parse_again(checkout: Checkout) -> None:
    """Have Airflow parse all experiments now, not in its next half minute."""
    (checkout.root / "dags" / "experiments.py").touch()


def connect(airflow: Airflow) -> Client:
    """A logged-in user of this Airflow."""
    return Client(
        Login(airflow.url, airflow.user, airflow.password),
        advice="run make demo again, it will follow the run that is going on",
    )
