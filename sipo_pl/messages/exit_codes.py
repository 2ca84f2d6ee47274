"""Exit codes of every command: done, failed, wrong use, stopped and resumable."""

DONE, FAILED, WRONG_USE, RESUMABLE = 0, 1, 2, 75
