"""wattbench's pages as a plugin of Airflow's UI.

Every Airflow process imports this module, and only the api-server serves pages: what they need is
imported with the first request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/wattbench"
_BASE = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + PREFIX


def _icon(colour: str) -> str:
    """A bolt, as a picture that needs no request of its own."""
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{colour}' "
        "stroke-width='2' stroke-linejoin='round'><path d='M13 3 5 14h6l-1 7 8-11h-6z'/></svg>"
    )
    return f"data:image/svg+xml,{quote(svg)}"


async def pages(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The pages' ASGI application, see `wattbench.web.app`."""
    from wattbench.web.app import app

    await app(scope, receive, send)


class WattbenchPlugin(AirflowPlugin):
    """An entry in the navigation, and a tab at each DAG run."""

    name = "wattbench"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "wattbench"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "wattbench",
            "href": f"{_BASE}/",
            "destination": "nav",
            "nav_top_level": True,
            "icon": _icon("#3f5166"),
            "icon_dark_mode": _icon("#d3dbe6"),
            "url_route": "wattbench",
        },
        {
            "name": "Energy report",
            "href": f"{_BASE}/dag-run?dag_id={{DAG_ID}}&dag_run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "wattbench-report",
        },
    ]
