"""The workflow that docs/ci.md offers: its structure, whom it trusts, and when it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOW = Path(__file__).resolve().parents[2] / "docs/ci/energy.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return loaded


def steps_of(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_jobs_and_steps_have_what_the_format_needs(workflow: dict[Any, Any]) -> None:
    assert set(workflow) == {"name", True, "permissions", "concurrency", "jobs"}  # YAML's `on`
    assert workflow[True] == {"pull_request": {"branches": ["main"]}}
    jobs = workflow["jobs"]
    assert list(jobs) == ["audit", "measure", "comment"]
    assert {job["needs"] for job in jobs.values() if "needs" in job} <= set(jobs)
    assert all(job["runs-on"] for job in jobs.values())
    for step in steps_of(workflow):
        assert ("uses" in step) != ("run" in step), step
        assert set(step) <= {"name", "uses", "run", "with", "env", "if", "shell"}, step
        if "uses" in step:
            assert step["uses"].startswith("actions/")
            assert step["uses"].partition("@")[2].startswith("v")


def test_only_the_job_that_comments_may_write_and_it_runs_no_code_of_the_pull_request(
    workflow: dict[Any, Any],
) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    writers = {
        name for name, job in workflow["jobs"].items() if "write" in str(job.get("permissions"))
    }
    assert writers == {"comment"}
    used = [step.get("uses", "") for step in workflow["jobs"]["comment"]["steps"]]
    assert not any(name.startswith("actions/checkout") for name in used)


def test_the_machine_with_the_meter_runs_no_code_of_a_fork(workflow: dict[Any, Any]) -> None:
    for job in workflow["jobs"].values():
        if "self-hosted" in job["runs-on"]:
            assert "head.repo.full_name == github.repository" in job["if"]


def test_the_artifact_that_is_read_is_the_one_that_is_kept(workflow: dict[Any, Any]) -> None:
    kept, read = (
        [s["with"]["name"] for s in steps_of(workflow) if s.get("uses", "").startswith(action)]
        for action in ("actions/upload-artifact", "actions/download-artifact")
    )
    assert kept == read == ["energy"]


def test_text_of_a_pull_request_reaches_no_shell(workflow: dict[Any, Any]) -> None:
    assert [step["run"] for step in steps_of(workflow) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize(("outcome", "code"), [("<failure type='more'/>", 1), ("<skipped/>", 0)])
def test_the_last_step_fails_where_a_test_of_the_report_has_failed(
    workflow: dict[Any, Any], tmp_path: Path, outcome: str, code: int
) -> None:
    (tmp_path / "energy").mkdir()
    (tmp_path / "energy/junit.xml").write_text(f"<testsuites><x>{outcome}</x></testsuites>")
    script = workflow["jobs"]["comment"]["steps"][-1]["run"]
    assert subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path).returncode == code
