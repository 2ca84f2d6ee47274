import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model, make_tiny_tokenizer
from transformers import AutoTokenizer, LlamaConfig, OPTConfig, PreTrainedConfig

from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.lengths import Lengths
from sipo_pl.data.prepared_splits import Splits, divide
from sipo_pl.data.readers import read_all
from sipo_pl.data.splits import Split
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.data import Mixture
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.stages.prepare import prepare
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest
from sipo_pl.text.prompt import prompt_id
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.tokenizers import load_template, load_tokenizer

TEMPLATE = Template(text="{raw_prompt}:")
GOOD, LONG, BOTH, POOR = (3, 1), (1, 3), (4, 4), (0, 0)  # scores of helpful and verbose


def write(path: Path, prompts: dict[str, list[tuple[int, int]]]) -> Path:
    """Write one row a response; the text of the k-th response of prompt p is 'p k'."""
    rows = [
        {"prompt": prompt, "response": f"{prompt} {k}", "helpful": helpful, "verbose": verbose}
        for prompt, scores in prompts.items()
        for k, (helpful, verbose) in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Recipe:
    """Ten train prompts, alternately in conflict and not, and two of validation."""
    train = {f"train{i}": [GOOD, LONG] if i % 2 else [GOOD, BOTH] for i in range(10)}
    data = Data(
        train=[write(tmp_path / "train.jsonl", train)],  # type: ignore[list-item]
        validation=[write(tmp_path / "val.jsonl", {"val0": [GOOD, LONG], "val1": [BOTH, POOR]})],  # type: ignore[list-item]
    )
    objectives = [Objective("helpful"), Objective("verbose")]
    return Recipe("x", str(tiny_model), objectives, data, TEMPLATE, run_dir=str(tmp_path / "run"))


def with_data(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, data=replace(recipe.data, **changes))


def rows(recipe: Recipe, split: str) -> list[dict[str, Any]]:
    return read_jsonl(recipe.layout.pairs(split))


def prompts(recipe: Recipe, split: str) -> list[str]:
    return [row["prompt"] for row in rows(recipe, split)]


def dropped(recipe: Recipe) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = read_json(recipe.layout.stage("prepare") / "statistics.json")["dropped"]
    return found


def test_test_prompts_are_drawn_from_train_and_leave_it(recipe: Recipe) -> None:
    prepare(recipe)
    train, test = prompts(recipe, "train"), prompts(recipe, "test")
    assert len(test) == 2
    assert sorted(train + test) == [f"train{i}" for i in range(10)]
    assert train == sorted(train)  # file order
    assert prompts(recipe, "train_conflict") == [name for name in train if int(name[5:]) % 2]
    assert prompts(recipe, "validation") == ["val0", "val1"]
    assert rows(recipe, "test")[0] == {"prompt_id": prompt_id(test[0]), "prompt": test[0]}
    assert dropped(recipe) == {"train": {"pairs of prompts drawn for test": 2}, "validation": {}, "test": {}}
    manifest = Manifest.read(recipe.layout.stage("prepare"))
    assert manifest is not None
    assert manifest.complete
    assert manifest.rows == 8 + len(prompts(recipe, "train_conflict")) + 2 + 2


def test_another_seed_draws_other_prompts(recipe: Recipe) -> None:
    drawn = set()
    for seed in range(5):
        prepare(replace(recipe, seed=seed), overwrite=True)
        drawn.add(tuple(prompts(recipe, "test")))
    assert len(drawn) > 1


def test_given_test_files_are_used_as_they_are(recipe: Recipe, tmp_path: Path) -> None:
    test = tmp_path / "test.json"
    test.write_text(json.dumps([{"prompt": "b"}, {"prompt": "a"}, {"prompt": "b", "response": "r"}]))
    recipe = with_data(recipe, test=[test])
    prepare(recipe)
    assert prompts(recipe, "test") == ["b", "a"]
    assert len(prompts(recipe, "train")) == 10


def test_a_pair_over_max_length_on_either_side_is_filtered(recipe: Recipe) -> None:
    template = PromptTemplate(load_tokenizer(recipe.base_model), TEMPLATE)
    prepare(recipe)
    assert dropped(recipe)["train"] == {"pairs of prompts drawn for test": 2}
    raw = [{"prompt": "p", "response": text, "helpful": k, "verbose": k} for k, text in enumerate(("a", "b" * 20))]
    train = Path(recipe.data.train[0])
    train.write_text(train.read_text() + "".join(json.dumps(row) + "\n" for row in raw))
    longest = len(template.encode("p", "b" * 20).input_ids)
    prepare(with_data(recipe, max_length=longest), overwrite=True)
    assert dropped(recipe)["train"] == {"pairs of prompts drawn for test": 2}
    prepare(with_data(recipe, max_length=longest - 1), overwrite=True)
    assert dropped(recipe)["train"] == {
        f"pairs over {longest - 1} tokens": 1,
        "pairs of prompts drawn for test": 2,
    }


def test_lengths_in_the_statistics_are_those_of_the_template(recipe: Recipe) -> None:
    prepare(recipe)
    tokens = read_json(recipe.layout.stage("prepare") / "statistics.json")["tokens"]
    # one token a byte: BOS + "train0:" = 8, "train0 0" + EOS = 9
    assert set(tokens["train"]["prompt"].values()) == {8}
    assert set(tokens["train"]["response"].values()) == {9}
    assert set(tokens["train"]["whole"].values()) == {17}
    assert set(tokens["test"]["prompt"].values()) == {8}


def test_a_tie_keeps_a_pair_out_of_the_conflicting_part_and_a_tie_of_all_drops_it(recipe: Recipe) -> None:
    write(Path(recipe.data.train[0]), {"tied": [GOOD, GOOD], "half": [GOOD, (3, 4)], **_prompts("more", 4)})
    test = write(Path(recipe.data.train[0]).with_name("test.jsonl"), _prompts("test", 1))
    recipe = with_data(recipe, test=[test])
    prepare(recipe)
    assert prompts(recipe, "train") == ["half", "more0", "more1", "more2", "more3"]
    assert rows(recipe, "train")[0]["preferred"] == {"helpful": -1, "verbose": 1}
    assert "half" not in prompts(recipe, "train_conflict")
    assert dropped(recipe)["train"] == {"pairs tied in every objective": 1}


def _prompts(name: str, count: int) -> dict[str, list[tuple[int, int]]]:
    return {f"{name}{i}": [GOOD, LONG] for i in range(count)}


def test_prompts_of_other_splits_leave_train_with_a_warning(
    recipe: Recipe, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    test = write(tmp_path / "test.jsonl", {"train3": [GOOD], "val0": [GOOD]})
    validation = write(tmp_path / "val.jsonl", {"train1": [GOOD, LONG, POOR], "val0": [GOOD, LONG]})
    recipe = with_data(recipe, test=[test], validation=[validation])
    prepare(recipe)
    assert not {"train1", "train3"} & set(prompts(recipe, "train"))
    assert prompts(recipe, "test") == ["train3", "val0"]
    assert dropped(recipe)["train"] == {
        "pairs of prompts that validation holds": 1,
        "pairs of prompts that test holds": 1,
    }
    warnings = [record.message for record in logged.records if record.levelno == logging.WARNING]
    assert "prepare: train: dropped 1 pairs of 1 prompts that validation holds" in warnings
    assert any("validation and test share 1 prompts" in warning for warning in warnings)


def test_limit_keeps_a_few_rows_of_each_split(recipe: Recipe, logged: pytest.LogCaptureFixture) -> None:
    logged.set_level(logging.INFO, "sipo_pl")
    recipe = replace(recipe, limit=1)
    prepare(recipe)
    assert len(prompts(recipe, "train")) == len(prompts(recipe, "train_conflict")) == 1
    assert prompts(recipe, "validation") == ["val0"]
    assert len(prompts(recipe, "test")) == 1
    assert dropped(recipe)["validation"] == {"pairs over the limit of 1": 1}
    assert "limit 1" in logged.text


def test_three_objectives(recipe: Recipe) -> None:
    recipe.objectives.append(Objective("brief", column="verbose", direction="min"))
    prepare(recipe)
    assert rows(recipe, "train") == rows(recipe, "train_conflict")  # verbose and brief always conflict
    assert rows(recipe, "validation")[0]["preferred"] == {"helpful": 0, "verbose": 1, "brief": 0}
    assert rows(recipe, "validation")[0]["scores"]["brief"] == [-1.0, -3.0]


def test_chat_prompts_under_a_chat_template(recipe: Recipe, tmp_path: Path) -> None:
    raw = [json.loads(line) for line in Path(recipe.data.train[0]).read_text().splitlines()]
    for row in raw:
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    Path(recipe.data.train[0]).write_text("".join(json.dumps(row) + "\n" for row in raw))
    recipe = replace(recipe, template=Template(kind="chat"))
    prepare(recipe)
    assert rows(recipe, "test")[0]["prompt"][0]["role"] == "user"


def test_a_complete_stage_is_not_made_again_and_files_may_move(recipe: Recipe, tmp_path: Path) -> None:
    prepare(recipe)
    before = recipe.layout.pairs("train").stat().st_mtime_ns
    moved = Path(recipe.data.train[0]).rename(tmp_path / "moved.jsonl")
    prepare(with_data(recipe, train=[moved]))
    assert recipe.layout.pairs("train").stat().st_mtime_ns == before


def test_the_same_recipe_gives_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    other = replace(recipe, run_dir=str(tmp_path / "other"))
    prepare(recipe)
    prepare(other)
    for name in ("train", "train_conflict", "validation", "test"):
        assert recipe.layout.pairs(name).read_bytes() == other.layout.pairs(name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 42 there, 1 asked"),
        ({"limit": 4}, "limit: null there, 4 asked"),
        ({"template": Template(text="{raw_prompt}")}, "template.text"),
        ({"objectives": [Objective("helpful"), Objective("verbose", direction="min")]}, "objectives"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(recipe: Recipe, change: dict[str, Any], message: str) -> None:
    prepare(recipe)
    before = recipe.layout.pairs("train").read_bytes()
    with pytest.raises(UserError, match=f"was made by other settings: .*{message}"):
        prepare(replace(recipe, **change))
    assert recipe.layout.pairs("train").read_bytes() == before


def test_other_raw_data_is_refused(recipe: Recipe) -> None:
    prepare(recipe)
    write(Path(recipe.data.validation[0]), {"val9": [GOOD, LONG]})
    with pytest.raises(UserError, match="input validation/0"):
        prepare(recipe)


def test_no_conflict_is_a_warning(recipe: Recipe, logged: pytest.LogCaptureFixture) -> None:
    write(Path(recipe.data.train[0]), {f"train{i}": [GOOD, BOTH] for i in range(5)})
    prepare(recipe)
    assert prompts(recipe, "train_conflict") == []
    assert "no pair of train conflicts" in logged.text


def test_a_mended_file_needs_no_overwrite(recipe: Recipe) -> None:
    train = Path(recipe.data.train[0])
    good = train.read_text()
    train.write_text(good + '{"prompt": "p", "response"\n')
    with pytest.raises(UserError, match=r"train\.jsonl:21: not JSON"):
        prepare(recipe)
    train.write_text(good)
    prepare(recipe)
    assert len(prompts(recipe, "train")) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": [Objective("helpful")]}, "objectives: at least two are needed, found 1: helpful"),
        ({"objectives": [Objective("a"), Objective("b"), Objective("a")]}, "the name 'a' appears 2 times"),
        ({"limit": 0}, "limit: must be at least 1, found 0"),
        ({"data": {"max_length": 0}}, r"data\.max_length: must be at least 1"),
        ({"data": {"train": []}}, r"data\.train: names no file"),
        ({"data": {"validation": []}}, r"data\.validation: names no file"),
        ({"data": {"converter": {"class_path": "sipo_pl.data.converters.helpsteer.Help"}}}, "did you mean 'HelpSteer'"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_read(
    recipe: Recipe, change: dict[str, Any], message: str
) -> None:
    recipe = replace(recipe, base_model="/nowhere")
    recipe = with_data(recipe, **change["data"]) if "data" in change else replace(recipe, **change)
    with pytest.raises(UsageError, match=message):
        prepare(recipe)


def test_a_missing_file_is_named_before_the_model(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(with_data(recipe, train=[tmp_path / "no.jsonl"]), base_model="/nowhere")
    with pytest.raises(UserError, match=r"no\.jsonl: cannot be read: No such file"):
        prepare(recipe)


def test_a_misspelt_objective_names_the_column(recipe: Recipe) -> None:
    recipe = replace(recipe, objectives=[Objective("helpfull"), Objective("verbose")])
    with pytest.raises(UserError, match=r"train\.jsonl:1: no key 'helpfull'; did you mean 'helpful'\?"):
        prepare(recipe)


def test_a_split_left_empty_names_the_filters(recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"data\.train: nothing is left; dropped: 10 pairs over 9 tokens"):
        prepare(with_data(recipe, max_length=9))
    write(Path(recipe.data.validation[0]), {"v": [GOOD, GOOD], "w": [GOOD]})
    with pytest.raises(
        UserError,
        match=r"data\.validation: .* dropped: 1 prompts with one response, 1 pairs tied in every objective",
    ):
        prepare(recipe)
    write(Path(recipe.data.validation[0]), {"v": [GOOD]})
    with pytest.raises(UserError, match=r"data\.validation: nothing is left; dropped: 1 prompts with one response"):
        prepare(recipe)


def test_train_used_as_validation_leaves_nothing(recipe: Recipe) -> None:
    recipe = with_data(recipe, validation=recipe.data.train)
    with pytest.raises(UserError, match=r"data\.train: .* 10 pairs of prompts that validation holds"):
        prepare(recipe)


def test_test_prompts_without_room_for_a_response(recipe: Recipe, tmp_path: Path) -> None:
    test = write(tmp_path / "test.jsonl", {"a" * 30: [GOOD]})
    with pytest.raises(UserError, match=r"data\.test: .* 1 prompts without room for a response in 20 tokens"):
        prepare(with_data(recipe, test=[test], max_length=20))


def test_a_draw_that_would_leave_no_train_prompt(recipe: Recipe) -> None:
    write(Path(recipe.data.train[0]), _prompts("train", 2))
    with pytest.raises(UserError, match=r"a draw of 2 prompts, .* would leave none of the 2 of train; name test files"):
        prepare(recipe)


def test_chat_messages_under_a_plain_template(recipe: Recipe) -> None:
    row = {"prompt": [{"role": "user", "content": "p"}], "helpful": 1, "verbose": 1}
    lines = [json.dumps({**row, "response": text}) + "\n" for text in "ab"]
    Path(recipe.data.train[0]).write_text("".join(lines))
    with pytest.raises(UserError, match=r"use template\.kind: chat"):
        prepare(recipe)


def test_a_folder_that_holds_something_else_is_kept(recipe: Recipe) -> None:
    folder = recipe.layout.stage("prepare")
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds files but no manifest|not a stage folder"):
            prepare(recipe, overwrite=overwrite)
    assert (folder / "thesis.txt").read_text() == "mine"


# mixtures, drawn validation, responses for SFT


AGREE = (4, 2)  # with POOR, both objectives prefer it


def mixture(recipe: Recipe, conflicting: int, others: int, ties: int = 0, **settings: Any) -> Recipe:
    """Rewrite train as prompts c0, c1, … that conflict, then m0, … that agree, then t0, … with one tie."""
    train = {f"c{i}": [GOOD, LONG] for i in range(conflicting)}
    train |= {f"m{i}": [AGREE, POOR] for i in range(others)}
    train |= {f"t{i}": [GOOD, (3, 4)] for i in range(ties)}
    path = Path(recipe.data.train[0])
    write(path, train)
    write(
        path.with_name("val.jsonl"), {"v0": [GOOD, LONG], "v1": [GOOD, LONG], "v2": [AGREE, POOR], "v3": [GOOD, (3, 4)]}
    )
    test = write(path.with_name("test.jsonl"), {"test": [GOOD]})
    return with_data(recipe, test=[test], mixture=Mixture(**settings))


def test_a_mixture_takes_its_share_and_shuffles(recipe: Recipe) -> None:
    recipe = mixture(recipe, 5, 6, ties=2, share=0.7)  # of min(5, 6): int(3.5) conflicting, 2 others
    prepare(recipe)
    assert sorted(prompts(recipe, "train")) == ["c0", "c1", "c2", "m0", "m1"]
    assert prompts(recipe, "train") == ["m0", "c1", "c2", "m1", "c0"]  # random.seed(42) orders five as 3 1 2 4 0
    assert prompts(recipe, "train_conflict") == ["c0", "c1", "c2"]
    assert prompts(recipe, "validation") == ["v0", "v1", "v2"]  # unmixed, without ties
    assert dropped(recipe)["train"] == {"pairs with a tie": 2, "pairs that the mixture leaves out": 6}


def test_a_mixture_of_beavertails(recipe: Recipe) -> None:
    recipe = mixture(recipe, 5, 6, share=0.7, take="last", validation=True, train_conflict="all")
    prepare(recipe)
    assert sorted(prompts(recipe, "train")) == ["c2", "c3", "c4", "m4", "m5"]
    assert prompts(recipe, "train_conflict") == ["c0", "c1", "c2", "c3", "c4"]
    assert prompts(recipe, "validation") == ["v2"]  # min(2, 1): int(0.7) conflicting


def test_a_share_of_zero_and_the_accident_of_the_last_none(recipe: Recipe) -> None:
    recipe = mixture(recipe, 3, 2, share=0.0, take="last")
    prepare(recipe)
    assert sorted(prompts(recipe, "train")) == ["m0", "m1"]
    assert prompts(recipe, "train_conflict") == []
    recipe = replace(recipe, compat=Compat(zero_share_takes_all=True))
    prepare(recipe, overwrite=True)
    assert sorted(prompts(recipe, "train")) == ["c0", "c1", "c2", "m0", "m1"]


def test_a_mixture_of_three_objectives_has_no_tie_in_any(recipe: Recipe) -> None:
    recipe = mixture(recipe, 2, 2, ties=1, share=0.5)
    recipe.objectives.append(Objective("brief", column="verbose", direction="min"))
    with pytest.raises(UserError, match=r"data\.train: .* 1 pairs with a tie, 4 pairs that the mixture leaves out"):
        prepare(recipe)  # verbose and brief always conflict, so that there are no other pairs


def test_a_limited_mixture(recipe: Recipe) -> None:
    recipe = replace(mixture(recipe, 9, 9, share=0.6), limit=2)  # int(5.4) = 5 and 4
    prepare(recipe)
    assert sorted(name[0] for name in prompts(recipe, "train")) == ["c", "m"]
    assert prompts(recipe, "train_conflict") == ["c0", "c1"]


def test_a_tie_counts_as_a_conflict_only_where_asked_for(recipe: Recipe) -> None:
    recipe = mixture(recipe, 1, 1, ties=1)
    prepare(recipe)
    assert prompts(recipe, "train_conflict") == ["c0"]
    prepare(replace(recipe, compat=Compat(tie_is_conflict=True)), overwrite=True)
    assert prompts(recipe, "train_conflict") == ["c0", "t0"]


def test_validation_is_drawn_from_train_in_the_order_of_a_permutation(recipe: Recipe) -> None:
    # numpy.random.default_rng(0).permutation(10) is 4 6 2 7 3 5 9 0 8 1
    recipe = with_data(recipe, validation=[], validation_share=0.15, test=recipe.data.validation)
    prepare(recipe)
    assert prompts(recipe, "validation") == ["train4", "train6"]  # ceil(1.5)
    assert prompts(recipe, "train") == [f"train{i}" for i in (2, 7, 3, 5, 9, 0, 8, 1)]


def test_shared_prompts_stay_where_splits_need_not_be_kept_apart(
    recipe: Recipe, logged: pytest.LogCaptureFixture
) -> None:
    recipe = with_data(recipe, validation=recipe.data.train, test=recipe.data.validation, keep_apart=False)
    prepare(recipe)
    assert prompts(recipe, "train") == prompts(recipe, "validation")
    assert "train and validation share 10 prompts" in logged.text


def test_the_first_or_last_rows_of_the_test_files(recipe: Recipe) -> None:
    test = write(Path(recipe.data.train[0]).with_name("test.jsonl"), {"a": [GOOD, GOOD], "b": [GOOD], "c": [GOOD]})
    prepare(with_data(recipe, test=[test], test_last=2))
    assert prompts(recipe, "test") == ["b", "c"]
    prepare(with_data(recipe, test=[test], test_first=3), overwrite=True)
    assert prompts(recipe, "test") == ["a", "b"]  # one row a prompt
    with pytest.raises(UserError, match=r"data\.test_last: asks for 5 rows, the test files hold 4"):
        prepare(with_data(recipe, test=[test], test_last=5), overwrite=True)


def test_nothing_is_filtered_by_length_where_there_is_no_limit(recipe: Recipe) -> None:
    raw = [{"prompt": "p", "response": text * 600, "helpful": k, "verbose": k} for k, text in enumerate("ab")]
    train = Path(recipe.data.train[0])
    train.write_text(train.read_text() + "".join(json.dumps(row) + "\n" for row in raw))
    recipe = with_data(recipe, max_length=None, test=recipe.data.validation)
    prepare(recipe)
    assert "p" in prompts(recipe, "train")


def test_the_loose_length_filter_counts_bos_twice_and_no_template(recipe: Recipe) -> None:
    # one token a byte: BOS + "train0" is 7, BOS + "train0 0" is 9; with the template 17
    loose = replace(recipe, compat=Compat(loose_length_filter=True))
    prepare(with_data(loose, max_length=16))
    with pytest.raises(UserError, match="10 pairs over 15 tokens"):
        prepare(with_data(loose, max_length=15), overwrite=True)
    with pytest.raises(UserError, match="10 pairs over 16 tokens"):
        prepare(with_data(recipe, max_length=16), overwrite=True)


def test_responses_for_sft_are_those_of_train_before_the_mixture(recipe: Recipe) -> None:
    recipe = replace(mixture(recipe, 2, 1, ties=1, share=1.0), stages={"sft": True})
    found: list[Split[Any]] = [
        Split(name, HelpSteer().pairs(read_all(recipe.data.files(name)), recipe.objectives).rows)
        for name in ("train", "validation")
    ]
    splits = Splits(*found, Split("test", HelpSteer().prompts(read_all(recipe.data.files("test"))).rows))
    divide(splits, Lengths(PromptTemplate(load_tokenizer(recipe.base_model), TEMPLATE)), recipe)
    assert [row["prompt"] for row in splits.train.rows] == ["c0"]  # of min(2, 1)
    assert [(row["response"], row["preferred_by"]) for row in splits.sft] == [
        ("c0 0", ["helpful"]),
        ("c0 1", ["verbose"]),
        ("c1 0", ["helpful"]),
        ("c1 1", ["verbose"]),
        ("m0 0", ["helpful", "verbose"]),
        ("m0 1", []),
        ("t0 0", []),
        ("t0 1", ["verbose"]),
    ]
    prepare(replace(recipe, stages={}))
    assert not (recipe.layout.stage("prepare") / "sft.jsonl").exists()


def test_files_by_objective_and_a_converter_that_wants_none(recipe: Recipe) -> None:
    files = recipe.data.train
    with pytest.raises(UserError, match="the converter HelpSteer takes a list of files, not files by objective"):
        prepare(with_data(recipe, train={"helpful": files, "verbose": files}))
    with pytest.raises(UsageError, match=r"data\.train: names no file for objective 'verbose'"):
        prepare(with_data(recipe, train={"helpful": files}))
    with pytest.raises(UserError, match="the converter TRL takes files by objective, such as"):
        prepare(with_data(recipe, converter={"class_path": "sipo_pl.data.converters.trl.TRL"}), overwrite=True)


def limited(folder: Path, kind: str, length: int) -> Path:
    """Write a model with so many learned positions, or with a rotary scaling that switches there, and a tokenizer."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": length}
    tokenizer = make_tiny_tokenizer()
    if kind == "learned":
        config: PreTrainedConfig = OPTConfig(**sizes, vocab_size=len(tokenizer), ffn_dim=32, word_embed_proj_dim=32)
    else:
        scaling = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        config = LlamaConfig(**sizes, vocab_size=len(tokenizer), intermediate_size=32, rope_parameters=scaling)
    config.save_pretrained(folder)  # no weights: they are not looked at
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["learned", "dynamic"])
def test_a_text_that_the_model_cannot_take_is_named_with_both_numbers(
    recipe: Recipe, tmp_path: Path, kind: str
) -> None:
    longest = len(PromptTemplate(load_tokenizer(recipe.base_model), TEMPLATE).encode("train0", "train0 0").input_ids)
    prepare(replace(recipe, base_model=str(limited(tmp_path / "fits", kind, longest))))
    short = replace(recipe, base_model=str(limited(tmp_path / "short", kind, longest - 1)))
    message = rf"train: pair '.*' \(data\.max_length leaves it out\): {longest} tokens, .*{kind}.* {longest - 1}$"
    with pytest.raises(UserError, match=message):
        prepare(short, overwrite=True)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_named_with_both_numbers(
    recipe: Recipe, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(recipe.base_model, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    recipe = replace(recipe, base_model=str(folder))
    prepare(recipe)  # which no text holds
    with pytest.raises(UserError, match=r"a text holds token 260, and the base model has embeddings of 260"):
        prepare(replace(recipe, template=Template(text="<image>{raw_prompt}:")), overwrite=True)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"its tokenizer has 262 tokens and the model 260 embeddings"):
        prepare(recipe, overwrite=True)


# a file that is there twice


def test_a_file_under_two_spellings_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    (tmp_path / "link.jsonl").symlink_to(train)
    for other in (train, tmp_path / "." / "x" / ".." / "train.jsonl", tmp_path / "link.jsonl"):
        with pytest.raises(UsageError, match=r"^data\.train: names .*: every row of it would count twice"):
            prepare(with_data(recipe, train=[train, str(tmp_path) + "/./" + other.name]))


def test_a_copy_of_a_file_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    (tmp_path / "copy.jsonl").write_bytes(train.read_bytes())
    with pytest.raises(UserError, match=r"data\.train: .*train\.jsonl and .*copy\.jsonl hold the same"):
        prepare(with_data(recipe, train=[train, tmp_path / "copy.jsonl"]))


# chat templates


def with_chat(recipe: Recipe, tmp_path: Path, jinja: str) -> Recipe:
    base = make_tiny_model(tmp_path / "model", chat_template=jinja)
    return replace(recipe, base_model=str(base), template=Template("chat"))


TURNS = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"


def test_a_run_keeps_the_date_that_its_template_shows(recipe: Recipe, tmp_path: Path) -> None:
    recipe = with_chat(recipe, tmp_path, "{{ strftime_now('%H:%M:%S ') }}" + TURNS)
    assert recipe.dated_template.date is None
    prepare(recipe)
    manifest = Manifest.read(recipe.layout.stage("prepare"))
    assert manifest is not None
    date = manifest.notes["date"]
    for later in (recipe, replace(recipe, round=2)):
        assert later.dated_template == Template("chat", date=date)
        assert later.keys()["template"]["date"] == date
    template = load_template(recipe.base_model, recipe.dated_template)
    assert template.render("x") == f"{date[11:]} <s>user: x</s>"
    prepare(recipe)  # complete, whatever the clock says now
    given = replace(recipe, template=Template("chat", date="2024-07-26"))
    assert load_template(given.base_model, given.dated_template).render("x").startswith("00:00:00 ")


def test_a_template_without_a_clock_leaves_the_keys_as_they_are(recipe: Recipe) -> None:
    prepare(recipe)
    assert recipe.dated_template == recipe.template


def test_a_run_keeps_one_date_for_what_else_shows_one(recipe: Recipe) -> None:
    prepare(recipe)
    manifest = Manifest.read(recipe.layout.stage("prepare"))
    assert manifest is not None
    assert recipe.date.isoformat() == replace(recipe, round=2).date.isoformat() == manifest.notes["date"]


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}</s>{% endfor %}", "leaves out the system"),
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system here') }}{% endif %}" + TURNS,
            "No system here",
        ),
    ],
)
def test_a_row_that_the_template_cannot_say_is_named(recipe: Recipe, tmp_path: Path, jinja: str, reason: str) -> None:
    recipe = with_chat(recipe, tmp_path, jinja)
    path = tmp_path / "train.jsonl"
    prompt = [{"role": "system", "content": 'Say "é".'}, {"role": "user", "content": "Why?"}]
    with path.open("a") as file:
        for response, helpful in (("a", 1), ("b", 0)):
            row = {"prompt": prompt, "response": response, "helpful": helpful, "verbose": helpful}
            file.write(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=rf"train\.jsonl:21: the tokenizer's chat template: {reason}"):
        prepare(recipe)
