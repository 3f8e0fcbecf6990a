"""Documents of a run: what is agreed passes as it is, what is not is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import simulated_run
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.run_document import (
    read_facts,
    read_host,
    read_outcome,
    read_pull,
    read_run,
)
from wattbench.analysis.runs.assemble import assemble
from wattbench.analysis.runs.load import load
from wattbench.analysis.storage.source import open_source

TRIAL = {"planned_position": 1, "block": 1, "kind": "workload", "image": "torch"}
RUN = {"schema": 1, "run_id": "night-1", "plan": {"gpu-a": [TRIAL]}, "hosts": {}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = simulated_run.small(blocks=2, steady_s=2.0)
    return simulated_run.write(tmp_path_factory.mktemp("run"), design)


def test_a_stored_run_is_read_as_it_is_with_the_keys_of_other_versions(stored: Path) -> None:
    content = json.loads((stored / "run.json").read_text()) | {"of_a_later_version": [1]}
    document, faults = read_run(content, "run.json")
    assert document == content
    assert faults == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"plan": None}, "run.json holds no plan"),
        ({"run_id": 7}, "run.json: run_id: "),
        ({"schema": 2}, "of schema 2, this version reads up to 1; upgrade wattbench"),
        ({"plan": {"gpu-a": [TRIAL | {"block": "1"}]}}, r"run.json: plan.gpu-a.0.block: "),
        ({"plan": {"gpu-a": [{"image": "x"}]}}, r"planned_position: Field required \(and 2 more\)"),
        ({"hosts": [1]}, "run.json: hosts: is not an object"),
        ({"seed": 3}, "run.json: seed: "),
        ({"experiment": {"images": ["a"]}}, r"run\.json: experiment\.images: "),
        (
            {"experiment": {"images": {"a": {"size_bytes": "1 GB"}}}},
            r"experiment\.images\.a\.size_bytes: ",
        ),
        (
            {"experiment": {"analysis": {"alpha": "5 %"}}},
            r"run\.json: experiment\.analysis\.alpha: ",
        ),
        (
            {"experiment": {"ladders": {"a": [{"image": "a"}]}}},
            r"experiment\.ladders\.a\.0\.number: ",
        ),
    ],
)
def test_what_is_no_run_s_document_is_one_line_with_the_place(
    change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_run(RUN | change, "run.json")
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = [
    "host",
    "facts",
    "problems",
    "pulls",
    "outcomes",
    "clock_offset_s",
    "warm_up",
    "quarantine",
]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), json_values)
def test_whatever_a_host_leaves_is_that_host_s_fault_and_never_the_run_s(
    entry: dict[str, Any], other: Any
) -> None:
    good = {"host": "c", "problems": [], "clock_offset_s": 0}
    document, faults = read_run(RUN | {"hosts": {"a": entry, "b": other, "c": good}}, "run.json")
    assert document["hosts"]["c"] == good
    assert "c" not in faults
    for name in ("a", "b"):
        read_host(document["hosts"][name], name)  # what is left of it is sound
    kept, facts = dict(document["hosts"]["a"]), entry.get("facts")
    assert kept.pop("facts", {}).items() <= (
        facts.items() if isinstance(facts, dict) else {}.items()
    )
    assert kept.items() <= entry.items()
    assert ("a" in faults) == (document["hosts"]["a"] != entry)


def test_malformed_facts_take_only_their_own_group_away() -> None:
    facts = {
        "cpu": {"governor": 3},
        "gpu": [{"driver": "550"}, {"driver": 570}],
        "host": {"kernel": "6.1"},
    }
    document, faults = read_run(RUN | {"hosts": {"a": {"facts": facts, "host": "a"}}}, "run.json")
    assert document["hosts"]["a"] == {"facts": {"host": {"kernel": "6.1"}}, "host": "a"}
    assert faults["a"].startswith("facts.cpu.governor: ")
    with pytest.raises(InputError, match=r"^the agent's facts: cpu\.governor: .* \(and 1 more\)"):
        read_facts(facts, "the agent's facts")


@pytest.mark.parametrize("read", [read_host, read_pull, read_outcome])
def test_a_list_is_no_document(read: Any) -> None:
    with pytest.raises(InputError, match=r"a/b\.json: "):
        read([], "a/b.json")


def test_malformed_documents_of_a_worker_are_findings_and_the_report_goes_on(stored: Path) -> None:
    content = json.loads((stored / "run.json").read_text())
    host = next(iter(content["hosts"]))
    content["hosts"][host]["problems"] = "none"
    (stored / "run.json").write_text(json.dumps(content))
    (stored / "manifest.json").unlink(missing_ok=True)
    outcome = stored / "hosts" / host / "outcomes" / "001-x.json"
    outcome.parent.mkdir(parents=True, exist_ok=True)
    outcome.write_text('{"status": 1}')
    data = assemble(load(open_source(stored)))
    assert len(data.trials) > 0
    found = {f.subject: f.message for f in data.findings if f.code == "row-untraceable"}
    assert "problems: " in found[f"host {host}"]
    assert "001-x.json: status: " in found[f"trial {host}/001-x"]
