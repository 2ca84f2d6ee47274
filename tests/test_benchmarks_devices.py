"""The benchmark of several devices in small, as two CPU processes: what it compares is the same on one and on two."""

import json
from pathlib import Path

import pytest

from benchmarks import devices
from benchmarks.devices_parts import STAGES
from benchmarks.devices_read import Step, loss_differences, pairs_per_second, rows_per_second, rows_that_differ

SIZES = {
    "--pairs": "16",
    "--step_pairs": "8",
    "--epochs": "2",
    "--warm_steps": "1",
    "--prompt_words": "3",
    "--units": "2",
    "--unit_prompts": "2",
    "--unit_rows": "8",
    "--tokens": "8",
    "--rank": "4",
    "--rate": "0.01",
}
TINY = [
    "--shape",
    "tiny",
    "--device",
    "cpu",
    "--response_words",
    "3",
    "8",
    *(word for one in SIZES.items() for word in one),
]


def test_one_device_and_two_make_the_same(tmp_path: Path) -> None:
    parts = ["--only", "one", "ddp", "predict", "adapters", "spread"]
    limits = ["--most_loss", "1e-4", "--json", str(tmp_path / "again.json")]
    assert devices.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *TINY, *parts, *limits]) == 0
    found = json.loads((tmp_path / "out/devices.json").read_text(encoding="utf-8"))
    rows = {(row["work"], row["GPUs"]): row for row in found["rows"]}
    assert rows["align, DDP", 2]["steps"] == 4
    assert len(found["curves"]["ddp"]) == 4
    for stage in STAGES:
        assert rows[stage, 2]["rows that differ"] == rows[f"{stage}, layers spread", 2]["rows that differ"] == 0
        assert rows[stage, 1]["rows"] == rows[stage, 2]["rows"] > 8 * (stage == "score")
    apart = found["notes"]["plain peft, logits of ddp beside one"]
    assert apart["finite"]
    assert apart["mean_difference"] < 0.01 * apart["mean_change_from_base"]
    assert "| align, DDP | 2 |" in (tmp_path / "out/devices.md").read_text(encoding="utf-8")


def test_what_fails_is_named_and_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert devices.main(["--out", str(tmp_path), *TINY, "--only", "ddp", "--seconds", "0"]) == 1
    assert "ddp: left out, the time was over" in capsys.readouterr().out


def test_rates_by_hand(tmp_path: Path) -> None:
    steps = {step: Step(10.0 + 2 * step, 0.7) for step in range(5)}
    assert pairs_per_second(steps, 8, 2) == pytest.approx(8 / 2)
    assert loss_differences({1: Step(0.0, 0.5), 9: Step(0.0, 0.1)}, steps) == pytest.approx([0.2])
    clocks = [[[3.0, 10], [5.0, 10], [7.0, 10]], [[4.0, 20], [6.0, 20]]]
    for rank, ends in enumerate(clocks):
        (tmp_path / f"clock-{rank}.json").write_text(json.dumps({"start": 2.0, "ends": ends}), encoding="utf-8")
    assert rows_per_second(tmp_path) == pytest.approx((70 / 5, 20 / 4 + 20 / 3))


def test_rows_that_differ_are_counted(tmp_path: Path) -> None:
    for name, lines in (("one", "a\nb\nc\n"), ("two", "a\nB\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "unit-00000.jsonl").write_text(lines, encoding="utf-8")
    assert rows_that_differ(tmp_path / "one", tmp_path / "one") == 0
    assert rows_that_differ(tmp_path / "one", tmp_path / "two") == 2
