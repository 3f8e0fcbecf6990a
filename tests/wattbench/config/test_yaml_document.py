"""YAML of people: values as PyYAML reads them, lines, and one declared error for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattbench.config.yaml_document import read_yaml
from wattbench.errors import ConfigError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
fresh = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@fresh
@given(st.dictionaries(st.text(max_size=8), plain, max_size=5))
def test_values_are_those_of_pyyaml(tmp_path: Path, value: dict[str, object]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    assert read_yaml(path).data == value


@fresh
@given(
    st.binary(max_size=300) | st.text("{}[]:,-&*!|>?<a0 \n\"'#%@~", max_size=200).map(str.encode)
)
def test_any_bytes_are_a_mapping_or_one_line_of_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    said = []
    try:
        read_yaml(path)
    except ConfigError as error:
        said = str(error).splitlines()
    assert len(said) <= 1


def test_merge_keys_are_those_of_pyyaml(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 9}\nd: {<<: *b, q: {<<: *a}}\n"
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml").data == yaml.safe_load(text)


def test_each_key_and_list_entry_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\nb:\n  - c: 2\n  - d:\n      e: 3\n")
    document = read_yaml(tmp_path / "x.yaml")
    assert document.lines[("b", 1, "d", "e")] == 5
    assert document.at(("b", 1, "missing")).endswith("x.yaml line 4")


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "", "# nothing\n"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match="not a mapping"):
        read_yaml(tmp_path / "x.yaml")
