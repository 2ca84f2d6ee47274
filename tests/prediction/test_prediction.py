"""Settings of a recipe that decide how the prediction stages fuse and score: divergence, beams, own base models."""

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.weights import WeightPlan
from sipo_pl.prediction.base import PredictionModule
from sipo_pl.prediction.review import Review
from sipo_pl.prediction.rewrite import Rewrite
from sipo_pl.prediction.sample import Sample
from sipo_pl.prediction.score import Score
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template

JSD = {"divergence": {"class_path": "sipo_pl.method.divergences.JensenShannon"}}
FORWARD = {"divergence": {"class_path": "sipo_pl.method.divergences.ForwardKL"}}
PROMPTS = [{"prompt_id": word, "prompt": word} for word in ("why", "how", "where")]
SHORT = Decoding(max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "other")):
        make_tiny_model(folder / name, seed=seed, spread=0.3)
        make_tiny_adapter(folder / f"on-{name}", folder / name, seed, spread=0.3)
    return folder


def recipe(folder: Path, own_base: bool = False, **settings: Any) -> Recipe:
    first = Objective("a", phrase="kinder", adapter=str(folder / "on-base"))
    second = Objective("b", phrase="shorter", adapter=str(folder / "on-other"))
    second.base_model = str(folder / "other") if own_base else None
    plan = WeightPlan(points=["0.6,0.4"])
    return Recipe(
        "t",
        str(folder / "base"),
        [first, second],
        Data([], []),
        Template(text="Q: {raw_prompt} A:"),
        sample_weights=plan,
        evaluate_weights=plan,
        run_dir=str(folder / "run"),
        **settings,
    )


def predict(module: PredictionModule, **rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    module.setup("predict")
    module.configure_model()
    return module.predict_step(Unit(0, Path(), {"prompts": PROMPTS, **rows}), 0)


def texts(recipe: Recipe, **settings: Any) -> tuple[str, ...]:
    return tuple(row["text"] for row in predict(Sample(recipe, decoding=Decoding(max_new_tokens=20, **settings))))


def test_the_recipes_divergence_fuses_the_samples(folder: Path) -> None:
    reverse, forward, jensen_shannon = (texts(recipe(folder, **changes)) for changes in ({}, FORWARD, JSD))
    raw = texts(recipe(folder, **FORWARD, compat=Compat(raw_logits=True)))
    # where both policies find a text far likelier than the base does, Jensen-Shannon is forward KL
    assert len({reverse, forward, raw}) == len({reverse, jensen_shannon, raw}) == 3


def test_beams_are_a_setting_of_decoding(folder: Path) -> None:
    assert texts(recipe(folder), beams=4) != texts(recipe(folder))


def test_policies_over_bases_of_their_own_go_through_the_generation_stages(folder: Path) -> None:
    settings = recipe(folder, own_base=True, **FORWARD)
    samples = predict(Sample(settings, base=True, decoding=SHORT))
    assert [row["point"] for row in samples] == ["0.6,0.4", "base"] * len(PROMPTS)
    shared = predict(Sample(recipe(folder, **FORWARD), base=True, decoding=SHORT))
    assert [one["text"] == two["text"] for one, two in zip(samples, shared, strict=True)] == [False, True] * 3
    samples, decoding = samples[:1], Decoding(max_length=8000, max_new_tokens=8)
    reviews = predict(Review(settings, skip_marked=False, decoding=decoding), sample=samples)
    rewrites = predict(Rewrite(settings, decoding=decoding), sample=samples, review=reviews)
    assert reviews[0]["tokens"] > 0 < rewrites[0]["tokens"]


def test_the_recipes_base_is_loaded_only_where_it_answers(folder: Path) -> None:
    settings = recipe(folder, own_base=True)
    settings.objectives[0].base_model = settings.objectives[1].base_model
    settings.objectives[0].adapter = settings.objectives[1].adapter
    for base, count in ((False, 1), (True, 2)):
        module = Sample(settings, base=base)
        module.configure_model()
        assert len(module.bases) == count


def test_what_needs_one_base_model_says_so(folder: Path) -> None:
    own = recipe(folder, own_base=True)
    with pytest.raises(UsageError, match=r"model\.soups: policies over 2 base models .*--model\.soups false"):
        Score(own)
    alone = Score(own, soups=False)
    assert alone.models == ["policy:a", "policy:b"]
    assert [policy.base_model for policy in alone.read_policies()] == [str(folder / "base"), str(folder / "other")]
    with pytest.raises(UsageError, match="divergence: JensenShannon fuses policies over one base model"):
        Sample(recipe(folder, own_base=True, **JSD))


def test_a_base_model_of_an_objectives_own_is_an_input(folder: Path) -> None:
    assert recipe(folder).base_models("first") == {"base model": str(folder / "base")}
    own = recipe(folder, own_base=True).base_models("first")
    assert own == {"base model": str(folder / "base"), "base model of b": str(folder / "other")}
