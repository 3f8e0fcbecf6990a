"""Client of the Airflow REST API: log in, trigger, follow, read logs and reports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from wattbench.analysis.model.errors import UserError
from wattbench.dag_runs import REFUSED_TAG, RUN_GOING_ON, TAG, Run, Task
from wattbench.run.run_id import parse_run_id

if TYPE_CHECKING:
    import requests


_PAGE = 100  # Airflow's upper limit
#: Pauses between tries while a server restarts, s.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0)


class NotFoundError(UserError):
    """Airflow has no such DAG, run, task or connection."""


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


@dataclass(frozen=True)
class Dag:
    """An experiment's DAG, as Airflow lists it.

    Attributes:
        is_paused: whether its schedule is held.
        schedule: summary of its timetable; empty: it has none.
        is_stale: whether its file is gone, or has not been parsed since it came back.
        is_refused: whether it stands for an experiment whose file is refused.
    """

    is_paused: bool
    schedule: str
    is_stale: bool
    is_refused: bool

    @property
    def is_runnable(self) -> bool:
        """Whether Airflow has the experiment's file, and accepts it."""
        return not self.is_stale and not self.is_refused


@dataclass(frozen=True)
class LogLine:
    """One line of a task's log.

    Attributes:
        event: its text.
        time: when it was written, ISO 8601; empty: not given.
        level: ``info``, ``error``, …; empty: not given.
        errors: type and message of each exception of a traceback, the outermost first.
    """

    event: str
    time: str = ""
    level: str = ""
    errors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Connection:
    """An Airflow connection of type SSH, secrets masked.

    Attributes:
        host: address.
        login: user there; empty: not given.
        port: of its sshd.
        extra: ``host_key``, ``key_file``, ….
    """

    host: str
    login: str
    port: int
    extra: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """As Airflow's command line takes it."""
        return {
            "conn_type": "ssh", "host": self.host, "login": self.login, "port": self.port,
            "extra": dict(self.extra),
        }  # fmt: skip


class _Request(NamedTuple):
    verb: str
    path: str
    params: Mapping[str, str | int | list[str]] | None = None
    json: Mapping[str, object] | None = None


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

    def dag(self, dag_id: str) -> Dag | None:
        """Airflow's view of an experiment; None if it has none of that name."""
        found = self._call("GET", f"/dags/{dag_id}", absent_ok=True)
        return None if found is None else _dag(found)

    def experiments(self) -> list[str]:
        """The ids of all DAGs that are wattbench's."""
        answer = self._call(
            "GET", "/dags", params={"tags": [TAG], "limit": _PAGE, "exclude_stale": False}
        )
        return sorted(str(dag["dag_id"]) for dag in answer["dags"])

    def wait_for_dag(self, dag_id: str, within_s: float) -> Dag:
        """Airflow's view of an experiment, once it has parsed the file as it is now.

        Raises:
            UserError: not in time; the refusal or the import error where there is one.
        """
        deadline = time.monotonic() + within_s
        while (known := self.dag(dag_id)) is None or not known.is_runnable:
            if time.monotonic() > deadline:
                why = (self.refusal(dag_id) if known and known.is_refused else None) or next(
                    iter(self.import_errors().values()),
                    "its file was not parsed; see the dag-processor log",
                )
                raise UserError(f"Airflow: no DAG {dag_id!r} after {within_s:.0f} s: {why}")
            time.sleep(0.5)
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
        self, dag_id: str, conf: Mapping[str, object] | None = None, *, release: bool = True
    ) -> Run:
        """Starts a run; a paused DAG is released first, where ``release`` is true."""
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

    def log(self, run: Run, task: Task) -> list[LogLine]:
        """The lines of a task's log so far."""
        answer = self._call(
            "GET",
            f"/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances/{task.task_id}"
            f"/logs/{max(task.try_number, 1)}",
            params={"map_index": task.map_index, "full_content": True},
            absent_ok=True,
        )
        return [] if answer is None else [_log_line(line) for line in answer["content"]]

    # ── connections, and wattbench's own pages ──────────────────────────────────────────────────

    def connection(self, conn_id: str) -> Connection | None:
        """A connection as Airflow shows it; None if there is none.

        Raises:
            UserError: its extra can't be read, or the user may not see it.
        """
        found = self._call("GET", f"/connections/{conn_id}", absent_ok=True)
        if found is None:
            return None
        try:
            extra = dict(json.loads(found.get("extra") or "{}"))
        except (TypeError, ValueError):
            raise UserError(
                f"the extra of connection {conn_id!r} is not JSON; correct it in Airflow"
            ) from None
        return Connection(
            found.get("host") or "", found.get("login") or "", found.get("port") or 22, extra
        )

    def add_connection(self, conn_id: str, connection: Connection) -> None:
        """Creates a connection.

        Raises:
            UserError: there is one of that id, or the user may not.
        """
        body = connection.document() | {
            "connection_id": conn_id, "extra": json.dumps(dict(connection.extra))
        }  # fmt: skip
        self._call("POST", "/connections", json=body)

    def remove_connection(self, conn_id: str) -> bool:
        """Removes a connection; false: its database has none of that id.

        Raises:
            UserError: the user may not.
        """
        try:
            self._response(_Request("DELETE", f"/api/v2/connections/{conn_id}"))
        except NotFoundError:
            return False
        return True

    def fetch(self, path: str) -> bytes:
        """The content of one of wattbench's own pages, `path` below Airflow's address.

        Raises:
            NotFoundError: there is none.
        """
        return bytes(self._response(_Request("GET", path)).content)

    # ── underneath ──────────────────────────────────────────────────────────────────────────────

    def _call(
        self,
        verb: str,
        path: str,
        *,
        params: Mapping[str, str | int | list[str]] | None = None,
        json: Mapping[str, object] | None = None,
        absent_ok: bool = False,
    ) -> Any:
        try:
            return self._response(_Request(verb, f"/api/v2{path}", params, json)).json()
        except NotFoundError:
            if absent_ok:
                return None
            raise

    def _response(self, request: _Request) -> requests.Response:
        import requests
        from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

        # Only the first request waits: each of many would wait as long again.
        for wait_s in (*(() if self._gave_up else self._waits_s), None):
            try:
                response = self._once(request)
            except requests.RequestException as error:
                # A run goes on while the server restarts, so following it does too.
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
            # A locked database is such an answer; a run that is triggered twice would be two.
            if response.status_code >= 500 and request.verb != "POST" and wait_s is not None:
                time.sleep(wait_s)
                continue
            kind = NotFoundError if response.status_code == 404 else UserError
            raise kind(
                f"Airflow: {request.verb} {request.path}: {response.status_code} {_detail(response)}"
            )
        raise AssertionError("the loop ends by returning or raising")

    def _once(self, request: _Request) -> requests.Response:
        for attempt in (1, 2):
            if "Authorization" not in self._session.headers:
                self._log_in()
            response = self._session.request(
                request.verb, f"{self.login.url}{request.path}",
                params=request.params, json=request.json, timeout=30,
            )  # fmt: skip
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


def _detail(response: requests.Response) -> str:
    """Airflow's reason for a refusal, one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    if isinstance(detail, list):  # a form that does not validate
        detail = "; ".join(str(part.get("msg", part)) for part in detail)
    return " ".join(str(detail).split())[:300]


def reasons(client: Client, run: Run, tasks: Sequence[Task], limit: int = 5) -> Iterator[str]:
    """Why a run failed: one line per failed task, the verdict's first, then the report's."""
    failed = [task for task in tasks if task.state == "failed"]
    first = ("verdict", "analyze", "prepare")
    failed.sort(key=lambda t: (first.index(t.task_id) if t.task_id in first else 9, str(t.ended)))
    for task in failed[:limit]:
        name = task.task_id + (f" [{task.label or task.map_index}]" if task.map_index >= 0 else "")
        yield f"{name}: {last_error(client.log(run, task)) or 'its log gives no reason'}"
    if len(failed) > limit:
        yield f"and {len(failed) - limit} more failed tasks"


def last_error(lines: Sequence[LogLine]) -> str:
    """The reason in a task's log: its last exception's message, else its last error line."""
    raised = (line.errors[0][1] for line in reversed(lines) if line.errors)
    logged = (line.event for line in reversed(lines) if line.level in {"error", "critical"})
    return next(chain(raised, logged), "").strip().partition("\n")[0]


# What Airflow answers is JSON of its documented schema; here alone it is read by key.


def _dag(data: Any) -> Dag:
    tags = [tag["name"] for tag in data.get("tags") or ()]
    return Dag(
        bool(data["is_paused"]),
        data.get("timetable_summary") or "",
        bool(data.get("is_stale")),
        REFUSED_TAG in tags,
    )


def _log_line(data: Any) -> LogLine:
    if not isinstance(data, dict):
        return LogLine(str(data))
    errors = tuple(
        (str(error.get("exc_type", "")), str(error.get("exc_value", "")))
        for error in data.get("error_detail") or ()
    )
    time = str(data.get("timestamp") or "")
    return LogLine(str(data.get("event", "")), time, str(data.get("level") or ""), errors)


def _run(data: Any) -> Run:
    return Run(
        data["dag_id"],
        data["dag_run_id"],
        datetime.fromisoformat(data["run_after"]),
        data["state"],
    )


def _task(data: Any) -> Task:
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
