"""Client of the Airflow REST API: log in, trigger, follow, read logs and reports."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.errors import UserError
from wattbench.dag_runs import REFUSED_TAG, RUN_GOING_ON, TAG, Run, Task
from wattbench.run.run_id import parse_run_id

if TYPE_CHECKING:
    import requests


_PAGE = 100  # Airflow's upper limit
#: Pauses between tries while a server restarts, s.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0)


class NotFoundError(UserError):
    """Airflow knows no such DAG, run, task or connection."""


@dataclass(frozen=True)
class Login:
    """Where an Airflow is and how to get in.

    Attributes:
        url: its address for people, without the slash at the end.
        user: who may trigger runs.
        password: with which password.
        token: instead of user and password, a token that Airflow gave out.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str | None = field(default=None, repr=False)


class Client:
    """A logged-in user of one Airflow.

    Args:
        login: where and who.
        advice: what to do when Airflow does not answer, the end of the message.
        waits_s: pauses between tries.
    """

    def __init__(
        self,
        login: Login,
        advice: str = "check the address and that its api-server runs",
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        import requests

        self.login = login
        self._advice = advice
        self._waits_s = tuple(waits_s)
        self._gave_up = False
        self._session = requests.Session()
        self._session.trust_env = False  # ~/.netrc would replace the token

    # ── experiments and runs ────────────────────────────────────────────────────────────────────

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """Airflow's view of an experiment; None if it has none of that name."""
        found = self._call("GET", f"/dags/{dag_id}", absent_ok=True)
        return None if found is None else dict(found)

    def experiments(self) -> list[str]:
        """The ids of all DAGs that are wattbench's."""
        dags: list[dict[str, Any]] = self._call(
            "GET", "/dags", params={"tags": [TAG], "limit": _PAGE, "exclude_stale": False}
        )["dags"]
        return sorted(dag["dag_id"] for dag in dags)

    def wait_for_dag(self, dag_id: str, within_s: float) -> dict[str, Any]:
        """Airflow's view of an experiment, once it has parsed the file as it is now.

        Raises:
            UserError: not in time; the refusal or the import error where there is one.
        """
        deadline = time.monotonic() + within_s
        while not is_runnable(known := self.dag(dag_id)):
            if time.monotonic() > deadline:
                why = (self.refusal(dag_id) if is_refused(known) else None) or next(
                    iter(self.import_errors().values()),
                    "its file was not parsed; see the dag-processor log",
                )
                raise UserError(f"Airflow: no DAG {dag_id!r} after {within_s:.0f} s: {why}")
            time.sleep(0.5)
        assert known is not None  # is_runnable
        return known

    def refusal(self, dag_id: str) -> str:
        """The reason in the documentation of a refused experiment's DAG."""
        doc = str(self._call("GET", f"/dags/{dag_id}/details").get("doc_md") or "")
        return " ".join(doc.rpartition("\n\n")[2].split())

    def import_errors(self) -> dict[str, str]:
        """The DAG files that Airflow can't import, each with the last line of its traceback."""
        found = self._call("GET", "/importErrors", params={"limit": _PAGE})["import_errors"]
        return {
            str(error["filename"]): (error["stack_trace"].strip().splitlines() or ["?"])[-1]
            for error in found
        }

    def runs(self, dag_id: str, limit: int, **filters: Any) -> list[Run]:
        """The newest runs of a DAG (`~`: of all), newest first; none if there is no such DAG."""
        answer = self._call(
            "GET",
            f"/dags/{dag_id}/dagRuns",
            params={"order_by": "-run_after", "limit": limit, **filters},
            absent_ok=True,
        )
        return [_run(data) for data in answer["dag_runs"]] if answer else []

    def running(self, dag_id: str) -> Run | None:
        """The newest run that is still going, or None."""
        found = self.runs(dag_id, 1, state=RUN_GOING_ON)
        return found[0] if found else None

    def find(self, name: str) -> Run:
        """The run that a person names: by wattbench's run id, or an experiment's newest.

        Raises:
            UserError: there is none.
        """
        parts = parse_run_id(name)
        if parts is None:
            newest = self.runs(name, 1) if re.fullmatch(r"[a-z0-9-]+", name) else []
            if newest:
                return newest[0]
        else:
            near = self.runs(
                parts.experiment, _PAGE, run_after_gte=parts.due.isoformat(),
                run_after_lt=(parts.due + timedelta(seconds=1)).isoformat(),
            )  # fmt: skip
            for run in near:
                if run.run_id == name:
                    return run
        raise NotFoundError(
            f"{name}: Airflow at {self.login.url} has no such run; wattbench status lists the newest"
        )

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, release: bool = True
    ) -> Run:
        """Starts a run; a paused DAG is released first, unless told not to."""
        if release:
            self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        return _run(
            self._call(
                "POST",
                f"/dags/{dag_id}/dagRuns",
                json={"logical_date": None, "conf": dict(conf or {})},
            )
        )

    def end(self, run: Run) -> None:
        """Marks a run failed: its trial is ended, and its last tasks collect, free the host and report."""
        self._call("PATCH", f"/dags/{run.dag_id}/dagRuns/{run.id}", json={"state": "failed"})

    def run(self, run: Run) -> Run:
        """The same run as it is now."""
        return _run(self._call("GET", f"/dags/{run.dag_id}/dagRuns/{run.id}"))

    def tasks(self, run: Run) -> list[Task]:
        """All task instances of a run."""
        found: list[Task] = []
        while True:
            page = self._call(
                "GET",
                f"/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances",
                params={"limit": _PAGE, "offset": len(found), "order_by": "id"},
            )["task_instances"]
            found += [_task(item) for item in page]
            if len(page) < _PAGE:
                return found

    def plan(self, run: Run, host: str) -> list[str]:
        """The readable names of a host's trials in planned order; empty before the plan is out."""
        answer = self._call(
            "GET",
            f"/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances/{host}.plan"
            "/xcomEntries/return_value",
            params={"deserialize": False},
            absent_ok=True,
        )
        return [str(spec["label"]) for spec in (answer["value"] if answer else None) or ()]

    def log(self, run: Run, task: Task) -> list[dict[str, Any]]:
        """The lines of a task's log so far; each has at least `event`."""
        answer = self._call(
            "GET",
            f"/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances/{task.task_id}"
            f"/logs/{max(task.try_number, 1)}",
            params={"map_index": task.map_index, "full_content": True},
            absent_ok=True,
        )
        lines = [] if answer is None else answer["content"]
        return [line if isinstance(line, dict) else {"event": str(line)} for line in lines]

    # ── connections, and wattbench's own pages ──────────────────────────────────────────────────

    def connection(self, conn_id: str) -> dict[str, Any] | None:
        """A connection as Airflow shows it, secrets masked; None if there is none."""
        found = self._call("GET", f"/connections/{conn_id}", absent_ok=True)
        return None if found is None else dict(found)

    def add_connection(self, body: Mapping[str, Any]) -> None:
        """Creates a connection.

        Raises:
            UserError: there is one of that id, or the user may not.
        """
        self._call("POST", "/connections", json=body)

    def remove_connection(self, conn_id: str) -> bool:
        """Removes a connection; false: its database has none of that id.

        Raises:
            UserError: the user may not.
        """
        try:
            self._response("DELETE", f"/api/v2/connections/{conn_id}", None, None)
        except NotFoundError:
            return False
        return True

    def fetch(self, path: str) -> bytes:
        """The content of one of wattbench's own pages, `path` below Airflow's address.

        Raises:
            NotFoundError: there is none.
        """
        return bytes(self._response("GET", path, None, None).content)

    # ── underneath ──────────────────────────────────────────────────────────────────────────────

    def _call(
        self,
        verb: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        absent_ok: bool = False,
    ) -> Any:
        try:
            return self._response(verb, f"/api/v2{path}", params, json).json()
        except NotFoundError:
            if absent_ok:
                return None
            raise

    def _response(
        self,
        verb: str,
        path: str,
        params: Mapping[str, Any] | None,
        json: Mapping[str, Any] | None,
    ) -> requests.Response:
        import requests
        from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

        # Waited for once: of many questions each would wait as long again.
        for wait_s in (*(() if self._gave_up else self._waits_s), None):
            try:
                response = self._once(verb, path, params, json)
            except requests.RequestException as error:
                # A restarting server is no reason to lose sight of a run that goes on without it.
                if wait_s is None or isinstance(error, (InvalidSchema, InvalidURL, MissingSchema)):
                    self._gave_up = True
                    raise UserError(
                        f"Airflow at {self.login.url} does not answer: {type(error).__name__}; "
                        f"{self._advice}"
                    ) from error
                time.sleep(wait_s)
                continue
            self._gave_up = False
            if response.ok:
                return response
            kind = NotFoundError if response.status_code == 404 else UserError
            raise kind(f"Airflow: {verb} {path}: {response.status_code} {_said(response)}")
        raise AssertionError("the loop ends by returning or raising")

    def _once(
        self,
        verb: str,
        path: str,
        params: Mapping[str, Any] | None,
        json: Mapping[str, Any] | None,
    ) -> requests.Response:
        for attempt in (1, 2):
            if "Authorization" not in self._session.headers:
                self._log_in()
            response = self._session.request(
                verb, f"{self.login.url}{path}", params=params, json=json, timeout=30
            )
            if response.status_code != 401 or attempt == 2 or self.login.token:
                break
            del self._session.headers["Authorization"]  # expired
        return response

    def _log_in(self) -> None:
        token = self.login.token
        if token is None:
            answer = self._session.post(
                f"{self.login.url}/auth/token",
                json={"username": self.login.user, "password": self.login.password},
                timeout=30,
            )
            if answer.status_code in (401, 403, 422):
                raise UserError(
                    f"Airflow at {self.login.url} refuses the login of {self.login.user!r}; "
                    "check WATTBENCH_AIRFLOW_USER and WATTBENCH_AIRFLOW_PASSWORD"
                )
            answer.raise_for_status()
            try:
                token = answer.json()["access_token"]
            except (ValueError, KeyError):
                raise UserError(
                    f"{self.login.url} gives no token at /auth/token: is it Airflow 3? "
                    "correct WATTBENCH_AIRFLOW_URL, or give WATTBENCH_AIRFLOW_TOKEN"
                ) from None
        self._session.headers["Authorization"] = f"Bearer {token}"


def _said(response: requests.Response) -> str:
    """Airflow's own words about a refusal, one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    if isinstance(detail, list):  # a form that does not validate
        detail = "; ".join(str(part.get("msg", part)) for part in detail)
    return " ".join(str(detail).split())[:300]


def is_refused(dag: Mapping[str, Any] | None) -> bool:
    """Whether a DAG stands for an experiment whose file is refused."""
    return any(tag["name"] == REFUSED_TAG for tag in (dag or {}).get("tags") or ())


def is_runnable(dag: Mapping[str, Any] | None) -> bool:
    """Whether Airflow has the experiment's file, and accepts it.

    A file that was away and is back leaves a stale DAG until it is parsed again.
    """
    return dag is not None and not dag.get("is_stale") and not is_refused(dag)


def reasons(client: Client, run: Run, tasks: Sequence[Task], limit: int = 5) -> Iterator[str]:
    """Why a run failed: one line a failed task, the verdict's first, then the report's."""
    failed = [task for task in tasks if task.state == "failed"]
    first = ("verdict", "analyze", "prepare")
    failed.sort(key=lambda t: (first.index(t.task_id) if t.task_id in first else 9, str(t.ended)))
    for task in failed[:limit]:
        name = task.task_id + (f" [{task.label or task.map_index}]" if task.map_index >= 0 else "")
        yield f"{name}: {last_error(client.log(run, task)) or 'its log gives no reason'}"
    if len(failed) > limit:
        yield f"and {len(failed) - limit} more failed tasks"


def last_error(lines: Sequence[Mapping[str, Any]]) -> str:
    """The reason in a task's log: its last exception's message, else its last error line."""
    for line in reversed(lines):
        details = line.get("error_detail") or []
        if details:
            return str(details[0].get("exc_value", "")).strip().partition("\n")[0]
    for line in reversed(lines):
        if line.get("level") in {"error", "critical"}:
            return str(line["event"]).strip().partition("\n")[0]
    return ""


def _run(data: Mapping[str, Any]) -> Run:
    return Run(
        data["dag_id"],
        data["dag_run_id"],
        datetime.fromisoformat(data["run_after"]),
        data["state"],
    )


def _task(data: Mapping[str, Any]) -> Task:
    return Task(
        data["task_id"],
        data["map_index"],
        data.get("rendered_map_index") or "",
        data["state"],
        _time(data["start_date"]),
        _time(data["end_date"]),
        data["try_number"],
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
