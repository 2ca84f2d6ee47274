"""`run --estimate`: sizes and costs against numbers worked by hand, and the table of a run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Command, write_recipe

from sipo_pl.messages.errors import UsageError
from sipo_pl.run.estimate.counts import Counts
from sipo_pl.run.estimate.rates import measure, rates_of
from sipo_pl.run.estimate.size import ModelSize
from sipo_pl.run.estimate.stages import Setting, cost_of

LLAMA = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def counts(**changes: Any) -> Counts:
    usual = {"pairs": 1000, "conflicts": 100, "validation": 0, "test": 50, "responses": 2000}
    return Counts(**{"source": "here", **usual, "prompt": 60.0, "response": 196.0, **changes})


def setting(**changes: Any) -> Setting:
    size, rates = ModelSize.of(LLAMA), rates_of("h200", "bfloat16")
    usual = {"dtype": "bfloat16", "quantized": False, "objectives": 2, "sampled": 4, "evaluated": 6, "rewrites": True}
    return Setting(**{"counts": counts(), "size": size, "rates": rates, **usual, **changes})


def test_the_size_of_llama_2_7b() -> None:
    size = ModelSize.of(LLAMA)
    assert size.parameters == pytest.approx(6.738e9, rel=1e-3)
    assert size.adapter(64, TARGETS) == 32 * 4 * 64 * 2 * 4096
    assert size.cached * 2 == 2**19  # bytes of a token in bfloat16
    assert size.weight_bytes("bfloat16", quantized=True) < size.weight_bytes("bfloat16", quantized=False) / 3
    grouped = ModelSize.of({**LLAMA, "num_key_value_heads": 8, "tie_word_embeddings": True})
    assert size.cached == 4 * grouped.cached
    assert size.parameters - grouped.parameters == 32 * 2 * 4096 * 3072 + 32000 * 4096


@pytest.mark.parametrize(
    ("pairs_a_step", "graphs", "pairs_a_second", "gib"),
    [(2, True, 36.9, 16.9), (8, True, 45.1, 24.6), (18, True, 47.0, 36.8), (2, False, 13.2, 16.5)],
)
def test_an_alignment_takes_what_was_measured(
    pairs_a_step: int, graphs: bool, pairs_a_second: float, gib: float
) -> None:
    config = {
        "model": {"forwards": {"graphs": graphs}},
        "data": {"micro_batch_size": pairs_a_step},
        "trainer": {"max_epochs": 1},
        "saving": {"validations": 0},
    }
    found = cost_of("align", config, setting())
    assert found is not None
    reference = 2 * ModelSize.of(LLAMA).linear * 1000 * 452 / 5.5e14
    assert 1000 / (found.seconds - reference) == pytest.approx(pairs_a_second, rel=0.05)
    assert found.memory == pytest.approx(gib, rel=0.05)


def test_decoding_and_scoring_take_what_was_measured() -> None:
    texts = setting(counts=counts(conflicts=3200, prompt=224.0, response=128.0))
    made = cost_of("sample", {"model": {"decoding": {"batch_rows": 128}}}, texts)
    assert made is not None
    assert made.rows == 3200 * 4
    assert made.tokens / made.seconds == pytest.approx(6777, rel=0.25)
    scored = setting(counts=counts(conflicts=24, prompt=224.0, response=256.0), rewrites=False, sampled=4)
    found = cost_of("score", {}, scored)
    assert found is not None
    assert found.rows / found.seconds == pytest.approx(16.9, rel=0.3)


def test_more_devices_take_less_time_and_zero_3_less_memory() -> None:
    config: dict[str, Any] = {"trainer": {"strategy": "deepspeed_stage_3"}}
    alone, eight = (cost_of("align", config, setting(), devices) for devices in (1, 8))
    assert alone is not None
    assert eight is not None
    assert eight.seconds == pytest.approx(alone.seconds / 8)
    assert alone.memory - eight.memory > 0.8 * ModelSize.of(LLAMA).parameters * 2 / 2**30
    assert cost_of("filter", {}, setting()) is None


def test_a_reward_model_trains_all_weights_in_float32() -> None:
    size = ModelSize.of(LLAMA)
    found = cost_of("reward_model", {"trainer": {"max_epochs": 1}}, setting())
    assert found is not None
    assert found.rows == 2000  # responses
    assert found.tokens == pytest.approx(2000 * 256)
    assert found.memory > 16 * size.parameters / 2**30  # weights, gradients, two states of the optimizer
    assert found.seconds > 6 * size.linear * 2000 * 256 / rates_of("h200", "bfloat16").training
    assert found.disk == pytest.approx(4 * size.parameters * 10)


def test_a_judge_reads_every_answer_and_twice_beside_the_baselines() -> None:
    compared = setting(entrants=30, mixes=20)
    answers, alone = (cost_of(stage, {}, compared) for stage in ("answer", "judge"))
    with_judge = cost_of("judge", {"model": {"judge": {"class_path": "x"}}}, compared)
    assert answers is not None
    assert alone is not None
    assert with_judge is not None
    assert (answers.rows, alone.rows) == (50 * 20, 50 * 30)
    assert alone.tokens == 1500 * 256
    assert with_judge.tokens - alone.tokens == 1500 * 2 * (60 + 2 * 196)
    assert with_judge.seconds > alone.seconds > 0


def test_rates_are_named_or_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such device; did you mean 'h200'\?"):
        rates_of("h20", "bfloat16")
    here = measure("float32")
    assert here.training > 1e8
    assert here.bandwidth > 1e8
    own = tmp_path / "rates.yaml"
    own.write_text("mine: {source: guessed, training: 1.0e+14, memory: 20}\n")
    with pytest.raises(UsageError, match="mine: no 'bandwidth'"):
        rates_of(f"{own}:mine", "bfloat16")


def test_stages_that_work_on_others_texts_take_as_many_as_those_make() -> None:
    asked = tuple(f"prompt {index // 4}" for index in range(100))
    configs = {
        "sample": {"model": {"max_rows": 40, "samples_per_weight": 3}},
        "evaluate-align": {"model": {"max_rows": 9}},
    }
    given = setting(counts=counts(asked=asked), configs=configs, judged=False)
    rows = {}
    for stage in ("review", "rewrite", "score", "evaluate", "measure"):
        found = cost_of(stage, configs.get("evaluate-align" if stage == "evaluate" else stage, {}), given)
        assert found is not None
        rows[stage] = found.rows
    candidates = 10 * 4 * 3  # prompts, weights, samples
    assert rows["review"] == rows["rewrite"] == candidates
    assert rows["score"] == 2 * candidates + 2 * 40
    assert rows["evaluate"] == rows["measure"] == 9 * 7
    formulas, models = cost_of("measure", {}, given), cost_of("measure", {}, setting(configs=configs))
    assert formulas is not None
    assert models is not None
    assert formulas.seconds == 0 < models.seconds


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("quickstart", ["--limit", "8"]),
        ("quickstart", ["--set", "recipe.seed=3", "--set", "align.trainer.max_epochs=2"]),
        ("compare", ["--set", "recipe.rounds=2"]),
    ],
)
def test_a_shipped_recipe_is_estimated_before_it_is_prepared(
    tmp_path: Path, tiny_model: Path, command: Command, recipe: str, options: list[str]
) -> None:
    place = ["--set", f"recipe.run_dir={tmp_path}", "--set", f"recipe.base_model={tiny_model}"]
    said = command("run", "--config", f"{recipe}/recipe.yaml", *place, *options, "--estimate", "h200")
    assert said.code == 0, said.err
    assert re_line(said.out, "align-detail")[1] == "1"
    if "--limit" in options:
        assert re_line(said.out, "align-detail")[2] == "8"


def test_a_run_is_estimated_before_and_after_its_data_is_prepared(
    tmp_path: Path, talkative_model: Path, finished_run: Path, command: Command
) -> None:
    recipe = write_recipe(tmp_path, talkative_model)
    before = command("run", "--config", recipe, "--estimate", "h200")
    assert before.code == 0, before.err
    lines = {line.split()[0]: line.split() for line in before.out.splitlines() if line}
    assert lines["align-kind"][1:3] == ["1", "6"]
    assert lines["sample"][2] == "24"  # six conflicts, two weights, two samples
    assert lines["filter"][1:] == ["seconds"]
    assert "in the raw data" in before.out
    assert "measured with a 7B model" in before.out
    assert not (tmp_path / "run").exists()
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    after = command("run", "--config", recipe, "--estimate", "--set", "sample.trainer.devices=4")
    assert after.code == 0, after.err
    assert f"counted in {tmp_path / 'run/prepare'}" in after.out
    assert re_line(after.out, "sample")[1:3] == ["4", "24"]


def re_line(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{name} "))
