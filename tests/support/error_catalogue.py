"""Every error that a user can get, read from the code that raises it; docs/troubleshooting.md is made from it.

``python -m tests.support.error_catalogue > docs/troubleshooting.md`` renews the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wattbench.analysis.model.finding_codes import CODES
from wattbench.config.mistakes import EXPECTED
from wattbench.errors import HOST_CODES
from wattbench.worker.agent import preparation
from wattbench.worker.agent.preflight import PROBES

REPO = Path(__file__).resolve().parents[2]
#: Stands for what differs from case to case.
ELISION = "…"

#: Where errors come from → the section of the page. The longest path that fits decides.
AREAS = {
    "plugins/wattbench/config": "Experiments and hosts.yaml",
    "plugins/wattbench/workloads": "Workloads",
    "plugins/wattbench/images": "Workloads",
    "plugins/wattbench/worker": "Hosts",
    "plugins/wattbench/steps": "Runs",
    "plugins/wattbench/run": "Runs",
    "plugins/wattbench/history": "Runs",
    "plugins/wattbench/airflow": "Airflow",
    "plugins/wattbench/web": "Airflow",
    "plugins/wattbench": "Airflow",
    "plugins/wattbench/container": "Images and registries",
    "plugins/wattbench/storage": "Object store",
    "analysis/storage": "Runs and files to be read",
    "analysis/model": "Runs and files to be read",
    "analysis/runs": "Runs and files to be read",
    "analysis/meters": "Runs and files to be read",
    "plugins/wattbench/local": "This machine",
    "plugins/wattbench/cli": "Command line",
    "analysis": "Reports, comparisons and audits",
    "analysis/commands/image.py": "Audit of an image",
    "analysis/image": "Audit of an image",
    "images": "Image builds, demo and deployment",
    "demo": "Image builds, demo and deployment",
    "deploy": "Image builds, demo and deployment",
}
#: Errors of validators: they reach the user as a line with file, line and key in front.
VALIDATORS = ("plugins/wattbench/config/", "plugins/wattbench/workloads/")
_AGENT_ERROR = "wattbench.worker.agent.base.AgentError"
_USER_ERROR = "wattbench.analysis.model.errors.UserError"


@dataclass(frozen=True)
class Raised:
    """A place that raises an error.

    Attributes:
        path: of the module, from the repository's root.
        line: of the call.
        error: the class by its full name.
        message: its text, :data:`ELISION` for what differs; None: another function makes it.
        action: what to do, where that is an argument of its own.
        codes: of a host's errors, the code or codes it may have.
    """

    path: str
    line: int
    error: str
    message: str | None
    action: str
    codes: tuple[str, ...]

    @property
    def area(self) -> str:
        """The section of the page."""
        fits = [place for place in AREAS if f"{self.path}/".startswith(f"{place}/")]
        return AREAS[max(fits, key=len)]

    @property
    def row(self) -> tuple[str, str] | None:
        """What the line says after its place, and what to do; None where no word of it is known."""
        said = re.sub(rf"{ELISION}{{2,}}", ELISION, self.message or "")
        symptom, _, action = said.partition("; ")
        symptom = re.sub(rf"^(?:{ELISION}(?:: ?| )?)+", "", symptom).strip()
        if not re.search(r"[a-z]{3,}", symptom):
            return None
        return symptom, self.action or action


@cache
def modules() -> Mapping[str, tuple[str, ast.Module]]:
    """Path → module name and syntax tree of all that users run."""
    found = {}
    for root in ("analysis", "plugins/wattbench", "demo", "images", "deploy"):
        for path in sorted((REPO / root).rglob("*.py")):
            place = path.relative_to(REPO).as_posix()
            if place.startswith("plugins/wattbench/analysis/"):
                continue  # the same files under another name
            name = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            name = name.removeprefix("plugins.")
            name = f"wattbench.{name}" if root == "analysis" else name
            found[place] = (name, ast.parse(path.read_text(encoding="utf-8")))
    return found


@cache
def _nodes(path: str) -> tuple[ast.AST, ...]:
    """All of a module's syntax tree: walking it takes longer than reading the module."""
    return tuple(ast.walk(modules()[path][1]))


@cache
def user_errors() -> frozenset[str]:
    """Full names of `UserError` and all that derive from it."""
    bases = {
        f"{name}.{node.name}": {
            _full(base, name, _imports(path)) for base in node.bases if isinstance(base, ast.Name)
        }
        for path, (name, _) in modules().items()
        for node in _nodes(path)
        if isinstance(node, ast.ClassDef)
    }
    found = {_USER_ERROR}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return frozenset(found)


@cache
def _imports(path: str) -> Mapping[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in _nodes(path)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _full(node: ast.Name, module: str, imports: Mapping[str, str]) -> str:
    name = imports.get(node.id, f"{module}.{node.id}")
    # `errors` of the controller passes the base on.
    return _USER_ERROR if name == "wattbench.errors.UserError" else name


@cache
def raised() -> tuple[Raised, ...]:
    """Every place that makes an error for a user."""
    return tuple(_raised())


def _raised() -> Iterator[Raised]:
    for path, (name, _) in modules().items():
        imports = _imports(path)
        for call in _nodes(path):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args):
                continue
            error = _full(call.func, name, imports)
            words = [text(node) for node in call.args]
            named = {k.arg: k.value for k in call.keywords}
            if error == _AGENT_ERROR:
                action = words[2] if len(words) > 2 else None
                codes = _codes(call.args[0])
                yield Raised(path, call.lineno, error, words[1], action or "", codes)
            elif error in user_errors():
                codes = _codes(named["code"]) if "code" in named else ()
                yield Raised(path, call.lineno, error, words[0], "", codes)
            elif call.func.id == "ValueError" and path.startswith(VALIDATORS):
                yield Raised(path, call.lineno, "ValueError", words[0], "", ())


def _codes(node: ast.expr) -> tuple[str, ...]:
    """The words that a code may be: both of ``a if … else b``."""
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return tuple(p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str))


def text(node: ast.expr) -> str | None:
    """The constant text of an expression, :data:`ELISION` for the rest; None without any."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr():
            parts = [text(v) if isinstance(v, ast.Constant) else ELISION for v in node.values]
            return "".join(part or "" for part in parts)
        case ast.BinOp(op=ast.Mod(), left=left):
            known = text(left)
            return known and re.sub(r"%[-+.\d]*[a-z]", ELISION, known).replace("%%", "%")
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            known = (text(left), text(right))
            return None if known == (None, None) else "".join(part or ELISION for part in known)
        case _:
            return None


# The page -----------------------------------------------------------------------------------------


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _escaped(words: str) -> str:
    """Text for a table's cell: what stands between backticks stays code."""
    parts = re.split(r"(`[^`]+`)", " ".join(words.split()))
    plain = (re.sub(r"([\\*<>\[\]#|~`]|\b_|_\b(?!_))", r"\\\1", part) for part in parts[::2])
    code = (part.replace("|", "\\|") for part in parts[1::2])
    return "".join(part for pair in zip(plain, [*code, ""], strict=True) for part in pair)


def preflight() -> Iterator[list[str]]:
    """The problems that each probe of the preflight can report."""
    _, tree = modules()["plugins/wattbench/worker/agent/preflight.py"]
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    for probe in PROBES:
        look = functions[probe.look.__name__]  # one that can't refuse a host has no row
        parts = list(_with_delegates(look, functions))
        local = {
            target.id: node.value
            for node in parts
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in parts:
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                severity, message, action = node.value.elts
                if text(severity) != "unknown":
                    said, todo = (_resolved(part, local) for part in (message, action))
                    yield [f"`{probe.code}`", probe.asks, _escaped(said), _escaped(todo)]


def _with_delegates(look: ast.AST, functions: Mapping[str, ast.FunctionDef]) -> Iterator[ast.AST]:
    """The nodes of a function and of those that it yields from."""
    for node in ast.walk(look):
        yield node
        match node:
            case ast.YieldFrom(value=ast.Call(func=ast.Name(id=name))) if name in functions:
                yield from _with_delegates(functions[name], functions)


def _resolved(node: ast.expr, local: Mapping[str, ast.expr]) -> str:
    """As :func:`text`, through local names and the table of commands for new hosts."""
    match node:
        case ast.Name(id=name) if name in local:
            return _resolved(local[name], local)
        case ast.Call(func=ast.Attribute(attr="sudo"), args=[ast.Constant(value=str(step)), *_]):
            return f"`sudo {re.sub('{[a-z]+}', ELISION, preparation.STEPS[step][0])}`"
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _resolved(left, local) + _resolved(right, local)
        case ast.BoolOp(values=[*_, last]):
            return _resolved(last, local)
        case _:
            return text(node) or ELISION


def _messages(found: Iterable[Raised]) -> list[str]:
    rows = sorted({one.row for one in found if one.row is not None})
    cells = ([_escaped(symptom), _escaped(action) or "–"] for symptom, action in rows)
    return _table(("the line says", "what to do"), cells)


def page() -> str:
    """docs/troubleshooting.md."""
    lines = [*_INTRODUCTION.splitlines(), ""]
    by_area: dict[str, list[Raised]] = {area: [] for area in AREAS.values()}
    for one in raised():
        by_area[one.area].append(one)
    for area, found in by_area.items():
        lines += [f"## {area}", "", *_LEADS.get(area, "").splitlines(), ""]
        if area == "Hosts":
            codes = ([f"`{c}`", about.meaning, about.action] for c, about in HOST_CODES.items())
            lines += _table(("code", "meaning", "what to do"), codes)
            lines += [*_PREFLIGHT.splitlines(), ""]
            lines += _table(("code", "asks whether", "the line says", "what to do"), preflight())
            lines += ["Other lines about hosts:", ""]
        if area == "Experiments and hosts.yaml":
            lines += [*_VALUES.splitlines(), ""]
            values = dict.fromkeys(EXPECTED.values())
            lines += [f"* must {re.sub(r'{[a-z_]+}', ELISION, value)}" for value in values]
            lines += ["", "Others:", ""]
        lines += _messages(found)
    kinds = len(CODES)
    lines += [f"## Findings\n\n{_FINDINGS.format(count=kinds)}"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


_INTRODUCTION = """\
# Troubleshooting

Every error is one line: the thing or place it is about, what is wrong, and what to do. The exit code is 2 where a command could not be done, 1
where it was done and something is wrong. This page lists the lines, as `python -m tests.support.error_catalogue` reads them from the code; `…`
stands for what differs from case to case, and the place at a line's start is left out. Search the page for a few words of your line.

| where the line is | how to see it |
| --- | --- |
| a command in a terminal | it is the last line on standard error |
| a task of a run | `wattbench logs RUN`, or the task's log in Airflow |
| the controller | `wattbench doctor` |
| a host | `wattbench host check`, or the page *Hosts* |
| a report | under *Findings*: [all codes](findings.md) |

Lines of other programs (Docker, the operating system, a registry) appear within ours and are not listed. A traceback is a defect: please
report it with the command and the version."""

_LEADS = {
    "Experiments and hosts.yaml": (
        "`wattbench check` reads both files as Airflow does, without running anything. A line begins with file, line and key.\n"
        "`wattbench explain KEY` prints what a key means; [Settings](configuration.md) has all keys."
    ),
    "Hosts": "An error of a host has a code, which stays the same when the words change.",
    "Images and registries": "Each image is resolved to a digest once per run, by the controller; then each host pulls that digest.",
    "Command line": "`--help` after a command lists its options. A misspelt option is refused with the usage of its command.",
}
_PREFLIGHT = """\
The preflight looks at each host before a run. A hard problem refuses the host, a soft one becomes a finding; both are printed with the command
that mends them. [Prepare a host](hosts.md#prepare-a-host) has these commands. Its codes:"""
_VALUES = "A value that is not accepted is printed with what it must be:"
_FINDINGS = (
    "What is wrong with the data is not an error of a command. [Findings](findings.md) has the {count} codes with meaning, reason and what\n"
    "to do."
)

if __name__ == "__main__":
    print(page(), end="")
