"""Plugin of pytest: tells how many golden numbers of each family the tests compared, and how far off they were."""

from typing import Any

import pytest

_seen: dict[str, tuple[int, float]] = {}  # family -> numbers or tokens compared, largest deviation


def note(family: str, count: int, deviation: float) -> None:
    """Note that `count` numbers or tokens of a family were compared, and their largest deviation."""
    before, largest = _seen.get(family, (0, 0.0))
    _seen[family] = before + count, max(largest, deviation)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was noted to the process that started this one to share the tests, if one did."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["golden"] = _seen


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what another process noted."""
    for family, (count, deviation) in getattr(node, "workeroutput", {}).get("golden", {}).items():
        note(family, count, deviation)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    if _seen:
        terminalreporter.section("golden cases")
        for family, (count, deviation) in sorted(_seen.items()):
            terminalreporter.write_line(f"{family:28} {count:7d} compared, largest deviation {deviation:.1e}")
