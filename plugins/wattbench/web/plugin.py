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

from wattbench.web import PREFIX

ICON_GROUND, ICON_BOLT = "#22303f", "#ffd98a"
_BASE = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + PREFIX


def _icon() -> str:
    """A bolt on a ground of its own: readable on the light, the dark and the active entry alike.

    It is a picture that needs no request of its own, so it can't follow the colour of the text.
    """
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'>"
        f"<rect width='24' height='24' rx='6' fill='{ICON_GROUND}'/>"
        f"<path d='M13 3 6 14h5l-1 7 8-11h-5z' fill='{ICON_BOLT}'/></svg>"
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
            "icon": _icon(),
            "url_route": "wattbench",
        },
        {
            "name": "Energy report",
            "href": f"{_BASE}/dag-run?dag_id={{DAG_ID}}&dag_run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "wattbench-report",
        },
    ]
