"""Every function and class of the product is used by the product: nothing is kept for the tests alone."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("plugins", "analysis", "dags", "images", "demo", "deploy")
#: Files whose words call Python by name: templates, entry points, commands.
CALLERS = ("*.py", "*.j2", "*.toml", "*.yml", "*.sh", "Makefile")
#: Methods that a library calls by their name.
CALLBACKS = {
    "connection_made", "data_received", "eof_received", "connection_lost",  # asyncio.Protocol
    "missing_host_key",  # paramiko
    "log_message",  # http.server
    "serialize",  # Airflow's triggers
}  # fmt: skip
#: The agent finds the function of a verb by its name.
DISPATCHED = re.compile(r"verb_\w+|__\w+__")
WORD = re.compile(r"[A-Za-z_]\w*")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def sources(pattern: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob(pattern):
            if path.is_file() and not any(p.is_symlink() for p in path.parents):
                yield path
    yield from ROOT.glob(pattern)


def definitions(path: Path) -> Iterator[Definition]:
    """Functions, methods and classes; a decorator may register what it decorates."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Definition) and not node.decorator_list:
            yield node


def test_what_is_defined_is_named_elsewhere_in_the_product() -> None:
    words: Counter[str] = Counter()
    for pattern in CALLERS:
        for path in sources(pattern):
            words.update(WORD.findall(path.read_text("utf-8")))
    assert words["import"] > 1000
    unused = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources("*.py")
        for node in definitions(path)
        if words[node.name] == 1
        and node.name not in CALLBACKS
        and not DISPATCHED.fullmatch(node.name)
    ]
    assert unused == []
