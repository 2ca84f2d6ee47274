"""Config files, the options of commands, and their errors in one line."""
