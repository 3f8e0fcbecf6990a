"""Locks with hashes, what installs them, licences, and what an audit without data says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy import supply_chain
from wattbench.analysis.model.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [*supply_chain.LOCKS, "deploy/requirements-tools.txt"]


def blocks(lock: str) -> list[str]:
    """A lock's packages, each with its hashes."""
    text = "\n".join(x for x in (ROOT / lock).read_text().splitlines() if not x.startswith("#"))
    return [one for one in re.split(r"\n(?=\S)", text) if one.strip()]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_is_pinned_and_has_hashes(lock: str) -> None:
    assert blocks(lock)
    bare = [
        one
        for one in blocks(lock)
        if not re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", one.rstrip())
    ]  # fmt: skip
    assert bare == []


def test_the_controller_has_the_versions_that_the_tests_run_with() -> None:
    tested = dict(supply_chain.pins(ROOT / "requirements.txt"))
    deployed = dict(supply_chain.pins(ROOT / "deploy/requirements.txt"))
    both = tested.keys() & deployed.keys()
    assert len(both) > 100
    assert {name: deployed[name] for name in both} == {name: tested[name] for name in both}


def test_torch_has_a_lock_of_its_own() -> None:
    torch = dict(supply_chain.pins(ROOT / "requirements-torch.txt"))
    assert torch["torch"] in (ROOT / "pyproject.toml").read_text()
    assert torch.keys() & dict(supply_chain.pins(ROOT / "requirements.txt")).keys() == set()


@pytest.mark.parametrize(
    "file", ["demo/venv.sh", "deploy/Dockerfile", "tests/integration/local_stack.py"]
)
def test_whatever_installs_a_lock_requires_its_hashes(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    installs = [
        line
        for line in text.splitlines()
        if re.search(r"(-r|--requirements\"?,?) .*(requirements|lock|stdin)", line)
    ]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []


def test_the_page_of_licences_has_every_package_of_the_locks() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| (.+) \| (.+) \|$", supply_chain.LICENCES.read_text(), re.MULTILINE
    )
    listed = {(name, version) for name, version, _, _ in rows[2:]}
    wanted = {pin for lock in ("requirements.txt", "deploy/requirements.txt")
              for pin in supply_chain.pins(ROOT / lock)}  # fmt: skip
    assert listed == wanted, "run: make sbom"


def test_licences_are_read_from_a_bill_of_materials() -> None:
    found = supply_chain.packages(
        [
            {"name": "wattbench", "version": "1"},
            {"name": "A_b.c", "version": "1+cpu", "licenses": [{"expression": "MIT OR GPL-2.0"}]},
            {"name": "d", "version": "2", "licenses": [
                {"license": {"name": "License :: OSI Approved :: BSD License"}},
                {"license": {"id": "BSD-3-Clause"}}]},
            {"name": "e", "version": "3"},
        ]
    )  # fmt: skip
    assert sorted(found) == [
        ("a-b-c", "1+cpu", "MIT OR GPL-2.0"),
        ("d", "2", "BSD License; BSD-3-Clause"),
        ("e", "3", "not declared"),
    ]
    assert [one.name for one in found if one.is_copyleft] == ["a-b-c"]


def test_an_audit_lists_what_is_known_and_what_mends_it() -> None:
    document = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": []},
            {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3", "4"]}]},
            {"name": "c", "version": "5", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
        ]
    }
    assert supply_chain.read_audit(json.dumps(document), "") == [
        ("b 2", "PYSEC-1", "3, 4"),
        ("c 5", "PYSEC-2", "no release"),
    ]


@pytest.mark.parametrize(
    ("output", "errors", "says"),
    [
        ("", "WARNING: x\nERROR:pip_audit._cli:jinja2: not found on PyPI\n", "jinja2: not found"),
        ("", "", "no output"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', "", "no output"),
        ("[]", "Traceback", "Traceback"),
    ],
)
def test_an_audit_without_data_is_never_a_clean_one(output: str, errors: str, says: str) -> None:
    with pytest.raises(
        UserError, match=f"no data about vulnerabilities .*{says}.*nothing was audited"
    ):
        supply_chain.read_audit(output, errors)
