"""The console blocks of README and docs: their commands, what they print, and what they need to run.

A comment stands above each block:

* ``<!-- runs -->``: in the checkout alone; its standard output is exactly what the page shows, where ``…``
  stands for any text and a line ``…`` for any lines; ``<!-- runs: exit 1 -->``: and it ends so;
* ``<!-- runs: demo -->``: with the demo's test bed; its output differs from run to run;
* ``<!-- shown: WHY -->``: is not run.

``python -m tests.support.console_blocks`` renews the output of the first kind in place.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))
_BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_EXPERIMENT = re.compile(
    r"^```yaml\n# config/experiments/([\w-]+)\.yaml(.*?)^```", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!-- (runs|shown)(?:: ([^\n]+?))? -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A console block.

    Attributes:
        page: the file it stands in.
        line: of its fence, from 1.
        mark: ``runs``, ``shown``; None: no comment stands above it.
        more: what the comment says after the colon.
        text: its lines.
    """

    page: Path
    line: int
    mark: str | None
    more: str | None
    text: str

    @property
    def name(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(REPO)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """What stands after ``$``."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def is_marked(self) -> bool:
        """Whether a known comment stands above it."""
        if self.mark == "runs":
            return self.more in (None, "exit 1", "demo")
        return self.mark == "shown" and self.more is not None

    @property
    def returncode(self) -> int | None:
        """How it ends where it needs the checkout alone; None: it needs more, or is not run."""
        if self.mark != "runs" or self.more == "demo":
            return None
        return 1 if self.more == "exit 1" else 0

    @property
    def prints(self) -> bool:
        """Whether the page shows any output."""
        return self.text.count("\n") > len(self.commands)

    @property
    def script(self) -> str:
        """The commands for bash, which shows each before it runs."""
        shown = (f"printf '%s\\n' {_quoted('$ ' + c)}\n{c}\n" for c in self.commands)
        return "".join(shown)

    def shows(self, output: str) -> bool:
        """Whether output is what the page prints."""
        lines = (re.escape(line).replace("…", ".*") for line in self.text.splitlines())
        pattern = "".join(r"(?:.*\n)*" if line == ".*" else f"{line}\n" for line in lines)
        return re.fullmatch(pattern, output) is not None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def blocks(page: Path) -> list[Block]:
    """All console blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()]
        comment = _COMMENT.search(before)
        inside = re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE)
        mark, more = comment.groups() if comment else (None, None)
        found.append(Block(page, before.count("\n") + 1, mark, more, inside))
    return found


def experiments(page: Path) -> list[tuple[str, str]]:
    """The experiments that a page has people write: name and YAML."""
    text = page.read_text(encoding="utf-8")
    return [(name, f"# {rest}") for name, rest in _EXPERIMENT.findall(text)]


def run(script: str, folder: Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run commands as a person in an activated checkout does."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("WATTBENCH_", "COLUMNS"))
    }
    environment["PATH"] = f"{REPO / '.venv/bin'}:{environment['PATH']}"
    environment["PYTHONPATH"] = f"{REPO}:{REPO / 'plugins'}"
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, text=True, timeout=timeout_s,
        capture_output=True, check=False,
    )  # fmt: skip


def checkout_in(folder: Path) -> Path:
    """A folder that looks like the checkout, so that what commands write lies beside it."""
    for path in REPO.iterdir():
        if path.name not in ("var", "out", ".git"):
            (folder / path.name).symlink_to(path)
    return folder


def renewed(page: Path) -> str:
    """The page's text with the output that its own commands print now."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        if block.returncode is None or not block.prints:
            continue
        with tempfile.TemporaryDirectory() as folder:
            done = run(block.script, checkout_in(Path(folder)))
        if not block.shows(done.stdout):
            text = text.replace(f"```console\n{block.text}```", f"```console\n{done.stdout}```")
    return text


def main() -> int:
    """Renew all pages; say which have changed."""
    for page in PAGES:
        if (text := renewed(page)) != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(REPO)}: renewed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
