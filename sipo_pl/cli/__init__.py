"""The command table, the two parsers' commands, exit codes."""

from sipo_pl.cli.main import entry  # where console scripts look that were installed by an earlier version

__all__ = ["entry"]
