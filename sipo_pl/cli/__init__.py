"""The command table, the two parsers' commands, exit codes."""
