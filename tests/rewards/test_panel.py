"""Several rewards over many texts: in chunks, each scored once, by whatever starts."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.base import Reward
from sipo_pl.rewards.panel import CHUNK, RewardPanel
from sipo_pl.text.prompt import TextRow

ROWS = [TextRow("p", "a" * (index % 7) + str(index)) for index in range(2 * CHUNK + 3)]
SCORED: list[int] = []


class Counted(Reward):
    """The length of a response; notes how many it is asked for."""

    def __init__(self, scale: float = 1.0, stop_after: int | None = None) -> None:
        self.scale, self.stop_after = scale, stop_after

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        if self.stop_after is not None and len(SCORED) >= self.stop_after:
            raise KeyboardInterrupt
        SCORED.append(len(rows))
        return [self.scale * len(row.response) for row in rows]


def panel(**arguments: object) -> RewardPanel:
    made = {"class_path": f"{__name__}.Counted", "init_args": arguments}
    return RewardPanel({"a": made}, lambda name: f"objectives.{name}.label")


def test_what_a_stopped_run_scored_is_not_scored_again(tmp_path: Path) -> None:
    SCORED.clear()
    stopped = panel()
    stopped.rewards["a"].stop_after = 2  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        stopped.score_all(ROWS, tmp_path, "label")
    assert SCORED == [CHUNK, CHUNK]
    assert panel().score_all(ROWS, tmp_path, "label")["a"] == [len(row.response) for row in ROWS]
    assert SCORED == [CHUNK, CHUNK, 3]
    panel().score_all(ROWS, tmp_path, "label")
    assert len(SCORED) == 3
    assert panel(scale=2.0).score_all(ROWS, tmp_path, "label")["a"][0] == 2 * len(ROWS[0].response)
    assert len(SCORED) == 6  # another reward, other scores


def test_a_reward_that_is_no_number_is_an_error_and_kept_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"objectives\.a\.label: the reward is nan for the response '0'"):
        panel(scale=float("nan")).score_all(ROWS[:1], tmp_path, "label")
    assert not list(tmp_path.iterdir())
