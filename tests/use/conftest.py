"""Fixtures of the tests of finished runs."""

from pathlib import Path

import pytest
from lively_run import Lively, make_lively_run


@pytest.fixture(scope="session")
def lively(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Lively:
    """A finished run whose greedy texts tell its policies apart. Not to be changed."""
    return make_lively_run(finished_run / "run", tmp_path_factory.mktemp("lively"))
