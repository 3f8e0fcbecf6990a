"""Identity of a checkout, from which all names, labels, ports and files of its test bed derive."""

from __future__ import annotations

from pathlib import Path

from wattbench.local.state_folder import StateFolder, short_hash

LABEL = "wattbench.checkout"


class Checkout(StateFolder):
    """One clone of the repository; two clones never share a name, a port or a file.

    Args:
        root: the clone's folder; the test bed's own is `var/demo` in it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root / "var" / "demo")

    @property
    def root(self) -> Path:
        """The clone's folder."""
        return self.path.parents[1]

    @property
    def id(self) -> str:
        """Eight hex digits of the SHA-256 of the clone's path."""
        return short_hash(self.root)

    @property
    def prefix(self) -> str:
        """What the names of containers, networks, volumes and images start with."""
        return f"wattbench-{self.id}"

    @property
    def label(self) -> str:
        """The label by which `make clean` finds what is ours."""
        return f"{LABEL}={self.id}"

    @property
    def labels(self) -> dict[str, str]:
        """The same label as Docker's API takes it."""
        return {LABEL: self.id}

    @property
    def var(self) -> Path:
        """Everything that the test bed writes."""
        return self.path.parent

    @property
    def demo(self) -> Path:
        """The demo's own part of `var`."""
        return self.path


def here() -> Checkout:
    """The checkout that this file belongs to."""
    return Checkout(Path(__file__).resolve().parent.parent)
