"""The published study, as far as it lies in this repository: each defect with file and line, and no other error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.study import STUDY
from wattbench.analysis.audit import mapping, run
from wattbench.analysis.audit.run import Audit

LOGS = "sample_campaign/{0}/energy_logs_{1}.txt"
RAW = "sample_campaign/{0}/results/energy_results_{1}.csv"
TABLE = "preprocessed_results/{0}_output.csv"


@pytest.fixture(scope="module")
def study() -> Audit:
    printed = mapping.load(Path(STUDY.parent / "published_study.yaml"))
    return run.audit(STUDY, printed.model_copy(update={"versions": {"CUDA": "12.6"}}))


def places(
    audit: Audit, severity: str, *codes: str
) -> set[tuple[str, str, str | None, int | None]]:
    return {
        (f.code, f.subject, f.evidence.get("file"), f.evidence.get("line"))
        for f in audit.findings
        if f.verdict == "found" and f.severity == severity and (not codes or f.code in codes)
    }


def test_each_error_has_its_subject_file_and_line_and_there_is_no_other(study):
    first = RAW.format("cuda-base", "cuda-base_10")
    cuda = LOGS.format("cuda-base", "cuda-base")
    assert places(study, "error") == {
        ("device-mismatch", "campaign", cuda, 20),
        ("gpu-idle", "campaign", first, 1),
        ("order-not-randomised", "campaign", first, 1),
        (
            "pull-in-window", f"trial {RAW.format('ubuntu_idle', 'ubuntu_0')}",
            LOGS.format("ubuntu_idle", "ubuntu"), 1,
        ),
        # The text says CUDA 12.6; a row that no reading of a counter gives; two rows of Table 6 are swapped.
        ("row-untraceable", "image cuda-base", cuda, 6),
        ("row-untraceable", "image pytorch-base", TABLE.format("pytorch-base"), 31),
        ("row-untraceable", "image python-base", None, None),
        ("row-untraceable", "image ubuntu-base", None, None),
    }  # fmt: skip


def test_runs_lost_to_a_wrap_and_steps_between_sessions_are_named(study):
    assert places(study, "warning", "counter-wrap", "drift") == {
        (
            "counter-wrap", f"trial {RAW.format('cuda-base', 'cuda-base_11')}",
            LOGS.format("cuda-base", "cuda-base"), 33,
        ),
        ("counter-wrap", f"trial {RAW.format('ubuntu', 'ubuntu_3')}", LOGS.format("ubuntu", "ubuntu"), 23),
        ("drift", "image ubuntu", TABLE.format("ubuntu_idle"), 26),
        ("drift", "image ubuntu-base", TABLE.format("ubuntu-base"), 17),
    }  # fmt: skip


def test_rows_of_runs_that_are_not_here_give_no_finding(study):
    """Idle runs of one treatment are thousandths of a joule apart: only the printed digits identify one."""
    near = {(TABLE.format("nvcr_idle"), 4), (TABLE.format("ubuntu_idle"), 24)}
    accused = {
        (f.evidence.get("file"), f.evidence.get("line")) for f in study.findings if f.is_found_error
    }
    assert not near & accused
    assert len(study.campaign.support) == 7
