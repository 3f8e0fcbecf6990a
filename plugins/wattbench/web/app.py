"""The routes. Airflow does not protect a plugin's pages: every route here asks for its permission.

A user needs access to plugins, and sees the runs of those experiments only whose DAG runs he may see.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from wattbench.analysis.model.errors import InputError, UserError
from wattbench.run import versions
from wattbench.storage.object_store import ObjectMissingError, media_type
from wattbench.web import render
from wattbench.web import state as airflow
from wattbench.web.pages import Pages, experiment_of
from wattbench.web.rows import Filter, Known
from wattbench.web.stored import file_of

_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
router = APIRouter(dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])


def _may_see(user: Any, dag_id: str) -> bool:
    return get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.RUN, details=DagDetails(id=dag_id), user=user
    )


def _pages(session: SessionDep, user: GetUserDep) -> Pages:
    return Pages(session, [e for e in airflow.experiments(session) if _may_see(user, e)])


def _readable(run_id: str, user: GetUserDep) -> str:
    """A run id of an experiment that the user may see."""
    experiment = experiment_of(run_id)
    if experiment is None:
        raise HTTPException(404, f"{run_id!r} is not a run id")
    if not _may_see(user, experiment):
        raise HTTPException(403, f"you may not see runs of {experiment}")
    return run_id


PagesDep = Annotated[Pages, Depends(_pages)]
RunIdDep = Annotated[str, Depends(_readable)]


def _html(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    text, policy = render.page(name, request.scope.get("root_path", ""), **values)
    return HTMLResponse(text, status, {**_COMMON, "Content-Security-Policy": policy})


def _existing(pages: Pages, run_id: str) -> Known:
    known = pages.run(run_id)
    if known is None:
        raise HTTPException(404, f"Airflow has no run {run_id}")
    return known


@router.get("/")
def overview(request: Request, pages: PagesDep) -> HTMLResponse:
    """What needs a person, and what each experiment's last run says."""
    return _html(request, "overview", overview=pages.overview(), now=datetime.now(UTC))


@router.get("/version")
def version() -> JSONResponse:
    """What serves these pages, for `wattbench doctor`; an image of a checkout has no version."""
    known = {"code": versions.code(), **versions.installed("wattbench")}
    return JSONResponse(known, headers={**_COMMON, "Content-Security-Policy": "default-src 'none'"})


@router.get("/runs")
def runs(
    request: Request,
    pages: PagesDep,
    experiment: str = "",
    state: str = "",
    host: str = "",
    before: int | None = None,
) -> HTMLResponse:
    """Runs and their verdicts."""
    found = pages.runs(Filter(experiment, state, host), before)
    return _html(request, "runs", runs=found, first=before is None)


@router.get("/experiments")
def experiments(request: Request, pages: PagesDep) -> HTMLResponse:
    """Schedules, refused experiments and why."""
    return _html(request, "experiments", lines=pages.lines())


@router.get("/hosts")
def hosts(request: Request, pages: PagesDep) -> HTMLResponse:
    """Hosts and their health."""
    return _html(request, "hosts", hosts=pages.hosts())


@router.get("/trends")
def trends(request: Request, pages: PagesDep) -> HTMLResponse:
    """Experiments over their nights."""
    return _html(request, "trends", trends=pages.trends())


@router.get("/compare")
def compare(request: Request, pages: PagesDep) -> HTMLResponse:
    """Host beside host, run after run."""
    return _html(request, "compare", comparisons=pages.compare())


@router.get("/dag-run")
def dag_run(
    request: Request, pages: PagesDep, user: GetUserDep, dag_id: str, dag_run_id: str
) -> Response:
    """From a DAG run in Airflow to its page here."""
    if not _may_see(user, dag_id):
        raise HTTPException(403, f"you may not see runs of {dag_id}")
    known = pages.run_of(dag_id, dag_run_id)
    if known is None or dag_id not in pages.experiments:
        raise HTTPException(404, f"{dag_id} is not an experiment of wattbench, or has no such run")
    base = request.scope.get("root_path", "")
    return RedirectResponse(f"{base}/runs/{known.run.run_id}", 303)


@router.get("/runs/{run_id}")
def run(request: Request, pages: PagesDep, run_id: RunIdDep) -> HTMLResponse:
    """One run: how far it is, or its report."""
    known = _existing(pages, run_id)
    return _html(
        request, "run", known=known, run_id=run_id, answer=pages.answer(known),
        progress=pages.progress(known),
    )  # fmt: skip


@router.get("/runs/{run_id}/progress")
def progress(request: Request, pages: PagesDep, run_id: RunIdDep) -> HTMLResponse:
    """How far a run is: the part of its page that changes."""
    known = _existing(pages, run_id)
    return _html(request, "progress", known=known, progress=pages.progress(known))


@router.get("/runs/{run_id}/report/{path:path}")
def report(run_id: RunIdDep, path: str) -> Response:
    """A file of a run's report, as it lies in the store."""
    return _file(run_id, "report", path)


@router.get("/runs/{run_id}/trends/{path:path}")
def nights(run_id: RunIdDep, path: str) -> Response:
    """The page of the nights up to a run, or its answer for programs."""
    return _file(run_id, "trends", path)


def _file(run_id: str, folder: str, path: str) -> Response:
    name = path or "index.html"
    try:
        data = file_of(run_id, folder, name)
    except (InputError, ObjectMissingError):
        raise HTTPException(404, f"the {folder} of {run_id} has no {path!r}") from None
    headers = {**_COMMON, "Content-Security-Policy": render.REPORT_POLICY}
    return Response(data, media_type=media_type(name), headers=headers)


app = FastAPI(title="wattbench", openapi_url=None, docs_url=None, redoc_url=None)
app.include_router(router)


@app.exception_handler(UserError)
async def _one_clear_line(request: Request, error: UserError) -> HTMLResponse:
    """What a person can mend, as a page; never a traceback."""
    return _html(request, "trouble", 503, message=str(error))
