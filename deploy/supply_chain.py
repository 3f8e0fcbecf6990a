"""Bills of materials of what is installed, licences, and known vulnerabilities of the locked packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from deploy.stack import ROOT
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside

#: Environments made for this alone, and the bills of materials.
_ENVIRONMENTS = ROOT / "var" / "supply-chain"
SBOM = ROOT / "var" / "sbom"
LICENCES = ROOT / "docs" / "licences.md"
LOCKS = ("requirements.txt", "requirements-torch.txt", "deploy/requirements.txt")
_TOOLS = "deploy/requirements-tools.txt"
_CLASSIFIER = "License :: OSI Approved :: "
_NOT_DECLARED = "not declared"
#: As words of licence expressions and of classifiers.
_COPYLEFT = ("GPL", "GNU", "MPL", "Mozilla", "EPL", "Eclipse", "CDDL", "EUPL")

Say = Callable[[str], None]


class _LicenceName(TypedDict):
    id: NotRequired[str]
    name: NotRequired[str]


class _Licence(TypedDict):
    expression: NotRequired[str]
    license: NotRequired[_LicenceName]


class Component(TypedDict):
    """A package in a CycloneDX document."""

    name: str
    version: str
    licenses: NotRequired[list[_Licence]]


class Package(NamedTuple):
    """An installed package."""

    name: str
    version: str
    licence: str

    @property
    def is_copyleft(self) -> bool:
        """Whether a licence among those declared asks that changes be published."""
        return any(word in self.licence for word in _COPYLEFT)


class Vulnerability(NamedTuple):
    """A known vulnerability of a locked package."""

    package: str
    id: str
    fixed_in: str


# Bills of materials -----------------------------------------------------------------------------


def write_sbom(say: Say) -> None:
    """Write a bill of materials of this checkout and of the controller, and the list of licences.

    Raises:
        UserError: an installation or the tool failed.
    """
    controller = _environment("controller", "deploy/requirements.txt", say)
    tool = _tool("cyclonedx-py", say)
    SBOM.mkdir(parents=True, exist_ok=True)
    found: dict[str, set[Package]] = {}
    for name, python, lock in (
        ("controller", controller, "deploy/requirements.txt"),
        ("checkout", Path(sys.executable), "requirements.txt"),
    ):
        file = SBOM / f"{name}.cdx.json"
        _run([tool, "environment", python, "--pyproject", ROOT / "pyproject.toml",
              "--mc-type", "application", "--output-reproducible", "-o", file])  # fmt: skip
        installed = packages(json.loads(file.read_text(encoding="utf-8"))["components"])
        say(f"{file.relative_to(ROOT)}: {len(installed)} packages")
        found[name] = _locked(installed, ROOT / lock)
    with written_beside(LICENCES) as part:
        part.write_text(licences_page(found["controller"], found["checkout"]), encoding="utf-8")
    say(f"{LICENCES.relative_to(ROOT)}: written")


def pins(lock: Path) -> set[tuple[str, str]]:
    """Name and version of every package of a lock."""
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\n]+)", lock.read_text(), re.MULTILINE))


def _locked(installed: set[Package], lock: Path) -> set[Package]:
    wanted = pins(lock)
    found = {one for one in installed if (one.name, one.version) in wanted}
    missing = sorted(wanted - {(one.name, one.version) for one in found})
    if missing:
        raise UserError(
            f"deploy: {missing[0][0]}=={missing[0][1]} of {lock.name} is not installed; run: make setup"
        )
    return found


def packages(components: list[Component]) -> set[Package]:
    """The packages of a bill of materials, without wattbench itself."""
    return {
        Package(_normal(one["name"]), one["version"], _licence(one))
        for one in components
        if one["name"] != "wattbench"
    }


_PAGE = """\
# Licences

Licences of the Python packages that wattbench's locks install, as the packages' own metadata
declare them; `make sbom` writes this page from the bills of materials. *Controller* is what a
deployment installs; *checkout* adds tests, documentation and the libraries of the measured program.
torch (BSD-3-Clause; its CUDA build comes with libraries of NVIDIA) is not listed: each machine
takes the build that it offers. wattbench itself is under Apache-2.0.

Of {count} packages {copyleft} name a licence with copyleft, alone or for choice: {names}.

| package | version | licence | in |
| --- | --- | --- | --- |
"""


def licences_page(controller: set[Package], checkout: set[Package]) -> str:
    """The page of licences: one row per package of the locks."""
    rows = sorted(controller | checkout)
    copyleft = [one.name for one in rows if one.is_copyleft]
    page = _PAGE.format(count=len(rows), copyleft=len(copyleft), names=", ".join(copyleft))
    return page + "".join(
        f"| {one.name} | {one.version} | {one.licence} | {_where(one, controller, checkout)} |\n"
        for one in rows
    )


def _where(package: Package, controller: set[Package], checkout: set[Package]) -> str:
    return ", ".join(
        name
        for name, known in (("controller", controller), ("checkout", checkout))
        if package in known
    )


def _licence(component: Component) -> str:
    names: list[str] = []
    for one in component.get("licenses", []):
        known = one.get("license", {})
        name = one.get("expression") or known.get("id") or known.get("name", "")
        names.append(name.removeprefix(_CLASSIFIER).partition("\n")[0].replace("|", "/")[:100])
    return "; ".join(dict.fromkeys(filter(None, names))) or _NOT_DECLARED


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


# Vulnerabilities --------------------------------------------------------------------------------


def known_vulnerabilities(say: Say) -> list[Vulnerability]:
    """Known vulnerabilities of everything in the locks.

    Raises:
        UserError: no data could be had for a package; nothing is said about the others then.
    """
    argv: list[str | Path] = [_tool("pip-audit", say), "--disable-pip", "--require-hashes"]
    argv += ["--strict", "--format", "json", "--progress-spinner", "off"]
    for lock in LOCKS:
        argv += ["--requirement", ROOT / lock]
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True)
    return read_audit(done.stdout, done.stderr)


def read_audit(output: str, errors: str) -> list[Vulnerability]:
    """What pip-audit found, from its output.

    Raises:
        UserError: the document is absent or lacks a package: there was no data.
    """
    try:
        document = json.loads(output)
        return [
            Vulnerability(
                f"{one['name']} {one['version']}",
                known["id"],
                ", ".join(known["fix_versions"]) or "no release",
            )
            for one in document["dependencies"]
            for known in one["vulns"]
        ]
    except (ValueError, KeyError, TypeError):
        why = (errors.strip() or "no output").splitlines()[-1].removeprefix("ERROR:")
        raise UserError(
            f"deploy: no data about vulnerabilities ({why[:300]}); nothing was audited. "
            "Run it where the package index also answers for advisories, as pypi.org does"
        ) from None


# Environments -----------------------------------------------------------------------------------


def _environment(name: str, lock: str, say: Say) -> Path:
    """The Python of an environment with exactly a lock's packages, hashes verified."""
    folder = _ENVIRONMENTS / name
    python = folder / "bin" / "python"
    say(f"installing {lock} into {folder.relative_to(ROOT)}")
    if not python.exists():
        _run([_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, folder])
    _run([_uv(), "pip", "sync", "--quiet", "--require-hashes", "--python", python, ROOT / lock])
    return python


def _tool(name: str, say: Say) -> Path:
    return _environment("tools", _TOOLS, say).with_name(name)


def _uv() -> Path:
    return Path(sys.executable).with_name("uv")


def _run(argv: list[str | Path]) -> None:
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise UserError(f"deploy: failed: {Path(argv[0]).name} {argv[1]}: {words[:300]}")
