"""The benchmarks run, and what they compare is the same: texts and rewards of the project and of plain peft."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import decode, fidelity, offload, options, reward, scaling, seeds, tradeoff, train
from benchmarks.limits import scoring_operations, step_bytes
from benchmarks.models import Ours
from benchmarks.texts import prompt_requests, without_sharing
from sipo_pl.messages.errors import UserError
from sipo_pl.metrics.hypervolume import Frame
from sipo_pl.storage.json_lines import read_jsonl, write_json, write_jsonl
from sipo_pl.text.templates import Encoded

TINY = ["--shape", "tiny", "--device", "cpu", "--rank", "8"]
FEW = [*TINY, "--repeats", "1", "--prompt_tokens", "5", "12"]
DECODE = [*FEW, "--rows", "8", "--tokens", "6", "--batches", "4", "8", "--released_rows", "1"]
REWARD = [*FEW, "--prompts", "2", "--responses", "3", "--response_tokens", "4", "9"]


def results(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("header", ["0", "40"])
def test_decode_compares_equal_texts(tmp_path: Path, header: str) -> None:
    file = tmp_path / "decode.json"
    assert decode.main([*DECODE, "--policies", "2", "3", "--common_header", header, "--json", str(file)]) == 0
    rows = results(file)["rows"]
    assert [row["policies"] for row in rows] == [2, 3]
    assert {row["texts equal to peft's"] for row in rows} == {1.0}
    assert all(row["floor ms, prompts shared"] < row["floor ms, a cache each"] for row in rows)


def test_reward_compares_equal_rewards(tmp_path: Path) -> None:
    file = tmp_path / "reward.json"
    assert reward.main([*REWARD, "--json", str(file)]) == 0
    found = results(file)
    assert found["largest_difference_to_peft"] < 1e-3
    assert [row["way"] for row in found["rows"]] == ["ours", reward.ALONE, "peft", "as released"]


def test_a_fit_that_was_killed_ends_with_the_losses_of_an_unbroken_one(tmp_path: Path) -> None:
    file = tmp_path / "offload.json"
    few = ["--pairs", "6", "--accumulate", "1", "--prompt_words", "6", "--response_words", "9"]
    assert offload.main([*TINY, *few, "--folder", str(tmp_path), "--json", str(file)]) == 0
    unbroken, killed = results(file)["rows"]
    assert unbroken["steps"] == killed["steps"] == 6
    assert killed["losses"] == pytest.approx(unbroken["losses"], abs=1e-6)


@pytest.mark.parametrize("loss", ["dpo", "dpo_nll"])
def test_training_is_measured_beside_the_released_way(tmp_path: Path, loss: str) -> None:
    file = tmp_path / "train.json"
    few = ["--pairs", "4", "--response_tokens", "4", "9", "--prompt_tokens", "5", "12", "--trl_batches", "2"]
    assert train.main([*TINY, *few, "--loss", loss, "--released_pairs", "1", "--json", str(file)]) == 0
    rows = {row["way"]: row for row in results(file)["rows"]}
    ours = rows["ours, 2 pairs a step"]
    assert ours["x released"] == pytest.approx(ours["pairs/s"] / rows[train.RELEASED]["pairs/s"])


def test_a_missed_target_is_named_and_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reward.json"
    assert reward.main([*REWARD, "--least_peft", "1e9", "--json", str(file)]) == 1
    assert "missed: x peft" in capsys.readouterr().out
    assert len(results(file)["missed"]) == 1


def test_fidelity_in_bfloat16(tmp_path: Path) -> None:
    assert fidelity.main([*FEW, "--prompts", "3", "--response_tokens", "4", "12"]) == 0
    assert fidelity.main([*FEW, "--prompts", "3", "--response_tokens", "4", "12", "--most_difference", "-1"]) == 1


def test_scaling_fits_lines_and_plots(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    sizes = ["--rows", "2", "4", "6", "--policies", "1", "2", "3", "--batch_rows", "2", "--tokens", "3"]
    given = [*TINY, *sizes, "--repeats", "1", "--out", str(tmp_path), "--json", str(file), "--most_growth", "1.5"]
    assert scaling.main(given) == 0
    assert (tmp_path / "scaling.png").is_file()
    assert {row["grows with"] for row in results(file)["rows"] if "R2" in row} == {"rows", "policies"}


def test_data_is_refused_for_another_tokenizer() -> None:
    with pytest.raises(SystemExit):
        decode.main([*DECODE, "--data", "x.jsonl"])


def test_floor_and_operations_by_hand() -> None:
    setting = options.setting_of(options.parse(options.parser(None), TINY))
    ours = Ours(setting)
    factors = ours.random_factors(2)
    ours.policies(factors)
    low_rank = 2 * 2 * 4 * 2 * 8 * 64  # policies, layers, linears, A and B, rank x width
    layer = 4 * 64 * 64 + 3 * 64 * 128
    found = step_bytes(ours.model, factors, prompt_requests([(5,) * 10, (6,) * 20], 2), 4, behind=3)
    # head and norms besides the layers; the embedding is looked up only
    assert found.weights == 4 * (2 * layer + 300 * 64 + 5 * 64 + low_rank)
    token = 2 * 2 * 64 * 4 * 2  # keys and values, layers, width, bytes, policies
    assert found.cache_alone == (4 * 30 + 8 * 3) * token
    assert found.cache_shared == (4 + 6 + 16 + 8 * 3) * token
    rows = [Encoded([5] * 10 + [7] * 4, 10), Encoded([5] * 10 + [8] * 2, 10)]
    pairs = 10 * 10 / 2 + 4 * 12 + 2 * 11
    expected = 3 * (2 * 2 * layer * 16 + 4 * 2 * 64 * pairs + 2 * 300 * 64 * 6) + 2 * low_rank * 16
    assert scoring_operations(ours.model, factors, rows, groups=3) == expected


def test_rows_without_sharing_have_prompts_of_their_own() -> None:
    rows = without_sharing([Encoded([5, 6, 7], 2), Encoded([5, 6, 8], 2)])
    assert [row.input_ids for row in rows] == [[3, 6, 7], [4, 6, 8]]


def test_seeds_are_summed_up_with_the_gain_over_one_method() -> None:
    rng = np.random.default_rng(0)
    frame = Frame(np.array([-3.0, -3.0]), np.array([1.0, 1.0]))
    base = [rng.normal(size=(40, 2, 2)) for _ in range(3)]
    rewards = [{"mod": one, "sipo": one + 0.5 + 0.1 * seed} for seed, one in enumerate(base)]
    mod, sipo = seeds.summarise(rewards, ["mod", "sipo"], frame, "mod", resamples=200)
    assert mod["mean gain"] == mod["low"] == mod["high"] == 0
    gains = [sipo[f"gain {seed}"] for seed in (1, 2, 3)]
    assert sipo["mean gain"] == pytest.approx(np.mean(gains))
    assert gains == sorted(gains)
    assert 0 < sipo["low"] < sipo["mean gain"] < sipo["high"]


def test_methods_of_other_settings_stand_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting, value in (("plain", 1.0), ("strong", 3.0)):
        for seed in (1, 2):
            run = tmp_path / f"{setting}-{seed}"
            answer = {"method": "mod", "point": "", "words": 5, "kl": value, "finish_reason": "eos", "marks": []}
            answers = [{**answer, "prompt_id": str(k), "rewards": {"detail": value, "ease": 1.0}} for k in range(3)]
            write_jsonl(run / "judge/unit-00000.jsonl", answers)
            frame = {name: {"mean": 0.0, "scale": 1.0, "reference": 0.0} for name in ("detail", "ease")}
            write_json(run / "calibrate/frame.json", {"objectives": frame})
    plain, strong = ([str(tmp_path / f"{setting}-{seed}") for seed in (1, 2)] for setting in ("plain", "strong"))
    seeds.main([*plain, "--beside", "strong", *strong, "--resamples", "10", "--out", str(tmp_path / "table.csv")])
    rows = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert [row["method"] for row in rows] == ["mod", "strong mod"]
    assert [float(row["hypervolume 2"]) for row in rows] == [1.0, 3.0]
    assert [float(row["nats"]) for row in rows] == [1.0, 3.0]
    assert [float(row["mean gain"]) for row in rows] == [0.0, 2.0]
    with pytest.raises(SystemExit):
        seeds.main([*plain, "--beside", "strong", strong[0]])
    assert "--beside strong: give as many run folders as seeds, 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        seeds.main([*plain, "--beside", "strong", *strong, "--beside", "strong", *plain])
    assert "--beside: each needs a name of its own" in capsys.readouterr().err
    write_jsonl(tmp_path / "strong-2/judge/unit-00000.jsonl", answers[:2])
    with pytest.raises(UserError, match="answers to other test prompts"):
        seeds.main([*plain, "--beside", "strong", *strong])


def test_the_first_words_of_answers_are_measured_alone(tmp_path: Path) -> None:
    short, long = "Red stones fall.", "Red stones fall. Blue birds sing over green trees."
    rows = [
        {"method": method, "point": "", "prompt_id": str(k), "prompt": "What?", "text": text}
        for method, text in (("mod", short), ("sipo", long))
        for k in range(2)
    ]
    write_jsonl(tmp_path / "answer/unit-00000.jsonl", rows)
    whole, cut = (seeds.of_beginnings(tmp_path, ["detail", "brevity"], count) for count in (99, 3))
    assert whole["mod"].shape == (2, 1, 2)
    assert (whole["sipo"][..., 0] > whole["mod"][..., 0]).all()
    assert whole["sipo"][0, 0, 1] == -9
    assert (cut["sipo"] == cut["mod"]).all()
    assert cut["sipo"][0, 0, 1] == -3


def test_no_prompt_is_in_two_parts(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        names = [f"{split} {n}" for n in range(20)] + [f"{split} {'long ' * 100}"]
        rows = [{"prompt": name, "response": str(k)} for name in names for k in range(2)]
        write_jsonl(tmp_path / f"raw/{split}.jsonl", rows)
    args = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--steps", "divide"]
    tradeoff.main([*args, "--policy_prompts", "12", "--validation_prompts", "3"])
    parts = {
        name: {row["prompt"] for row in read_jsonl(tmp_path / f"out/data/{name}.jsonl", ["prompt", "response"])}
        for name in ("policy", "validation", "judge", "test")
    }
    assert [len(one) for one in parts.values()] == [12, 3, 5, 40]
    assert len(set().union(*parts.values())) == 60
