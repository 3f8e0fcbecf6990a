"""The command ``wattbench``."""

from wattbench.cli.command_line import main

__all__ = ["main"]
