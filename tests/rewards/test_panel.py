"""Several rewards over many texts: in chunks, each scored once, by whatever starts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


class Returns(Reward):
    """Whatever a person's code may return."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def score(self, rows: Sequence[TextRow]) -> Any:
        lengths = [float(len(row.response)) for row in rows]
        return {
            "numpy numbers": [np.float32(one) for one in lengths],
            "numpy": np.array(lengths, dtype=np.float16),
            "column": np.array(lengths)[:, None],
            "torch": torch.tensor(lengths, dtype=torch.bfloat16, requires_grad=True),
            "torch numbers": [torch.tensor(one) for one in lengths],
            "ints": tuple(int(one) for one in lengths),
            "iterator": iter(lengths),
            "bools": [one > 2 for one in lengths],
            "short": lengths[1:],
            "none": None,
            "holds none": [*lengths[1:], None],
            "text": "3" * len(rows),
            "texts": [str(one) for one in lengths],
            "mapping": dict.fromkeys(range(len(rows)), 1.0),
            "complex": [1j for _ in rows],
            "nan": [np.nan for _ in rows],
            "huge": [10**400 for _ in rows],
            "scalar": torch.tensor(3.0),
        }[self.kind]


class Fails(Reward):
    def score(self, rows: Sequence[TextRow]) -> list[float]:
        return [1 / len(row.response.strip("a")) for row in rows]


def panel(**arguments: object) -> RewardPanel:
    made = {"class_path": f"{__name__}.Counted", "init_args": arguments}
    return RewardPanel({"a": made}, lambda name: f"objectives.{name}.label")


TEXTS = [TextRow("p", "aa"), TextRow("p", "aaa")]


def returned(kind: str) -> RewardPanel:
    made = {"class_path": f"{__name__}.Returns", "init_args": {"kind": kind}}
    return RewardPanel({"a": made}, lambda name: f"objectives.{name}.reward")


@pytest.mark.parametrize("kind", ["numpy numbers", "numpy", "column", "torch", "torch numbers", "ints", "iterator"])
def test_numbers_are_numbers_whoever_made_them(kind: str) -> None:
    found = returned(kind).score(TEXTS)["a"]
    assert found == [2.0, 3.0]
    assert {type(one) for one in found} == {float}
    assert returned("bools").score(TEXTS)["a"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("short", "expected 2 numbers, one for each response, found 1"),
        ("none", "expected a list of 2 numbers, found None"),
        ("holds none", "expected a number for the response 'aaa', found None"),
        ("text", "expected a list of 2 numbers, found str '33'"),
        ("texts", "expected a number for the response 'aa', found str '2.0'"),
        ("mapping", "expected a list of 2 numbers, found dict"),
        ("complex", "expected a number for the response 'aa', found complex 1j"),
        ("nan", "the reward is nan for the response 'aa'"),
        ("huge", "the reward is inf for the response 'aa'"),
        ("scalar", r"expected a list of 2 numbers, found Tensor tensor\(3\.\)"),
    ],
)
def test_what_is_no_list_of_numbers_names_objective_and_type(kind: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"^objectives\.a\.reward: Returns\.score: {message}"):
        returned(kind).score(TEXTS)


def test_a_reward_that_fails_is_one_line_with_its_place() -> None:
    made = {"class_path": f"{__name__}.Fails"}
    with pytest.raises(UserError, match=r"^objectives\.a: Fails\.score: ZeroDivisionError: .* \(test_panel\.py:\d+\)$"):
        RewardPanel({"a": made}, lambda name: f"objectives.{name}").score(TEXTS)


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


@pytest.mark.parametrize("harm", [lambda text: text[:-9], lambda text: text.replace("1", "2", 1), lambda text: "[]"])
def test_scores_that_were_damaged_are_made_anew(tmp_path: Path, harm: Callable[[str], str]) -> None:
    rows = ROWS[:3]
    panel().score_all(rows, tmp_path, "label")
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(harm(whole))
    assert panel().score_all(rows, tmp_path, "label")["a"] == [len(row.response) for row in rows]
    assert file.read_text() == whole


def test_a_reward_that_is_no_number_is_an_error_and_kept_nowhere(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"objectives\.a\.label: Counted\.score: the reward is nan for the response '0'"
    ):
        panel(scale=float("nan")).score_all(ROWS[:1], tmp_path, "label")
    assert not list(tmp_path.iterdir())
