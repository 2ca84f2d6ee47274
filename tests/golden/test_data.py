"""Data preparation: pairs of raw rows, the length filter, conflicts and mixtures."""

from collections import Counter
from typing import Any

import pytest
from golden import MODEL, cases
from golden_table import note

from sipo_pl.data.conflicts import has_tie, is_conflict
from sipo_pl.data.converters.base import Pairing, by_prompt, flaw
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.converters.pairs import Pairs
from sipo_pl.data.mixture import Mixed, end_of, mix
from sipo_pl.data.rows import PairRow
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.parts import chosen_part
from sipo_pl.recipe.recipe import Objective, Template
from sipo_pl.released.conflicts import is_conflict_or_tie
from sipo_pl.released.lengths import LooseLengths, loose_lengths
from sipo_pl.released.mixture import end_or_all
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.tokenizers import load_tokenizer

ATTRIBUTES = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
HELPSTEER = ["correctness", "verbosity"]
PKU = ["better", "safer"]


def pairing(compat: Compat) -> Pairing:
    return Pairing(chosen_part(by_prompt, compat), chosen_part(flaw, compat))


def helpsteer_pairs(rows: list[dict[str, Any]], **accidents: Any) -> list[PairRow]:
    converter = HelpSteer(sums={"overall": ATTRIBUTES})
    converter.pairing = pairing(Compat(keep_degenerate=True, **accidents))
    located = [(f"row {index}", row) for index, row in enumerate(rows)]
    return converter.pairs(located, [Objective(name) for name in (*ATTRIBUTES, "overall")]).rows


def as_prepared(pair: PairRow) -> dict[str, Any]:
    """Return a pair with the columns of the released preparation."""
    labels = {f"{name}_chosen_id": index for name, index in pair["preferred"].items()}
    return {key: pair[key] for key in ("prompt", "response_0", "response_1")} | labels  # type: ignore[literal-required]


def pairs_of(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[PairRow]:
    """Return prepared rows of the released code as pairs."""
    converter = Pairs()
    converter.pairing = pairing(Compat(keep_degenerate=True))
    located = [(f"row {index}", row) for index, row in enumerate(rows)]
    return converter.pairs(located, [Objective(name, column) for name, column in columns.items()]).rows


def formatted(pair: PairRow, objective: str, conflict: bool) -> dict[str, Any]:
    """Return a pair as the released data sets hold it for one objective."""
    responses, chosen = (pair["response_0"], pair["response_1"]), pair["preferred"][objective]
    return {
        "raw_prompt": pair["prompt"],
        "chosen": responses[chosen],
        "rejected": responses[1 - chosen],
        "contradict": conflict,
    }


def counted(rows: list[Any]) -> None:
    note("data rows", len(rows), 0.0)


# HelpSteer


def test_pairs_of_a_prompts_responses() -> None:
    golden = cases("helpsteer_preprocess")
    assert len(golden["transformed"]) == 76
    found = [as_prepared(pair) for pair in helpsteer_pairs(golden["train_rows"], map_batch=1000)]
    assert found == golden["transformed"]
    counted(found)


def test_equal_prompts_belong_together_wherever_they_stand() -> None:
    """The right behaviour finds all pairs of the released one, and those of prompts that come back later."""
    golden = cases("helpsteer_preprocess")
    pairs = [as_prepared(pair) for pair in helpsteer_pairs(golden["train_rows"])]
    assert all(row in pairs for row in golden["transformed"])


def test_a_batch_border_inside_a_prompt_loses_pairs() -> None:
    golden = cases("helpsteer_preprocess")
    index = golden["split_index"]
    first, second = golden["transformed_split"]
    rows = golden["train_rows"]
    assert [as_prepared(pair) for pair in helpsteer_pairs(rows[:index], map_batch=1000)] == first
    assert [as_prepared(pair) for pair in helpsteer_pairs(rows[index:], map_batch=1000)] == second
    assert len(first) + len(second) < len(golden["transformed"])
    by_batch = [as_prepared(pair) for pair in helpsteer_pairs(rows, map_batch=index)]
    assert by_batch[: len(first)] == first
    counted([*first, *second])


def test_the_loose_length_filter() -> None:
    golden = cases("helpsteer_preprocess")
    pairs = helpsteer_pairs(golden["train_rows"], map_batch=1000)
    template = PromptTemplate(load_tokenizer(MODEL), Template())
    lengths = LooseLengths(template)
    longest = golden["prefilter_max_length"]
    kept = [index for index, pair in enumerate(pairs) if lengths.fits(pair, longest)]
    assert kept == golden["prefilter_kept_idx"]
    for pair, tokens in zip(pairs, golden["token_lengths_with_bos"], strict=True):
        sides = (tokens["prompt"] + tokens["response_0"], tokens["prompt"] + tokens["response_1"])
        assert loose_lengths(template.tokenizer, pair) == sides
    counted(pairs)


@pytest.mark.parametrize(
    ("run", "shards"), [("np1_ml120_h0", 1), ("np4_ml120_h0", 4), ("np1_ml120_h1", 1), ("np1_ml4096_h0", 1)]
)
def test_the_whole_preparation(run: str, shards: int) -> None:
    """The test prompts are drawn by a set's order there, so that sizes and disjointness are what can be compared."""
    golden = cases("helpsteer_preprocess")
    expected, longest = golden["script_runs"][run], int(run.split("_ml")[1].split("_")[0])
    lengths = LooseLengths(PromptTemplate(load_tokenizer(MODEL), Template()))
    found = {
        split: [
            pair
            for pair in helpsteer_pairs(golden[f"{split}_rows"], map_batch=1000, map_shards=shards)
            if lengths.fits(pair, longest)
        ]
        for split in ("train", "validation")
    }
    assert len(found["validation"]) == expected["n_val"]
    assert len(expected["test"]) == len({pair["prompt"] for pair in found["validation"]})  # type: ignore[arg-type]
    train = [pair for pair in found["train"] if pair["prompt"] not in expected["test"]]
    assert len(train) == expected["n_train"]


def helpsteer_split(name: str) -> list[PairRow]:
    columns = {one: f"{one}_chosen_id" for one in (*ATTRIBUTES, "overall")}
    return pairs_of(cases("helpsteer_partition")["files"][name], columns)


def test_helpsteer_by_objective() -> None:
    """Without a mixture a tie elsewhere counts as a conflict there."""
    golden = cases("helpsteer_partition")["plain"]
    assert len(golden) == 7
    for name, expected in golden.items():
        objective, split = name.split("/")
        if split == "test":
            assert [row["raw_prompt"] for row in expected] == [
                row["prompt"] for row in cases("helpsteer_partition")["files"]["test"]
            ]
            continue
        pairs = helpsteer_split("val" if split == "validation" else split)
        found = [
            formatted(pair, objective, is_conflict_or_tie(pair, HELPSTEER))
            for pair in pairs
            if not has_tie(pair, [objective])
        ]
        assert found == [{key: row[key] for key in found[0]} for row in expected]
        counted(found)


def test_helpsteer_mixtures() -> None:
    golden = cases("helpsteer_partition")["mixed"]
    assert len(golden) == 32
    for name, expected in golden.items():
        dimension, split = name.split("/")
        objective, share = dimension.split("-")
        pairs = [p for p in helpsteer_split("val" if split == "validation" else "train") if not has_tie(p, HELPSTEER)]
        if split != "validation":  # which HelpSteer leaves as it is
            mixed = mixture(pairs, HELPSTEER, float(share), "first", accident=False)
            parts = {"train": mixed.merged, "train_conflict": mixed.conflicting, "train_nonconflict": mixed.others}
            pairs = parts[split]
        found = [formatted(pair, objective, is_conflict(pair, HELPSTEER)) for pair in pairs]
        assert found == expected, name
        counted(found)


def mixture(pairs: list[PairRow], names: list[str], share: float, take: Any, *, accident: bool) -> Mixed[PairRow]:
    conflicting = [pair for pair in pairs if is_conflict(pair, names)]
    others = [pair for pair in pairs if not is_conflict(pair, names)]
    return mix(conflicting, others, share, take, taken=end_or_all if accident else end_of)


def lists(name: str) -> tuple[float, list[str], list[str]]:
    share, conflicting, others = name.split("/")
    return float(share), [f"c{i}" for i in range(int(conflicting[:-1]))], [f"n{i}" for i in range(int(others[:-1]))]


def test_mixing_the_first_rows() -> None:
    golden = cases("helpsteer_partition")["merge"]
    assert len(golden) == 15
    for name, expected in golden.items():
        share, conflicting, others = lists(name)
        found = mix(conflicting, others, share, "first")
        assert found == (expected["conflict"], expected["nonconflict"], expected["merged"])
    counted(list(golden))


# PKU-SafeRLHF


def test_mixing_the_last_rows() -> None:
    """At a share of 0, and of 1 for the others, the released slice takes everything."""
    golden = cases("pku_partition")["conflict"]
    assert len(golden) == 15
    for name, expected in golden.items():
        share, conflicting, others = lists(name)
        assert mix(conflicting, others, share, "last", taken=end_or_all).merged == expected
        right = mix(conflicting, others, share, "last")
        assert len(right.merged) == min(len(conflicting), len(others))
        if share not in (0.0, 1.0):
            assert right.merged == expected
    counted(list(golden))


def pku_split(name: str) -> list[PairRow]:
    return pairs_of(cases("pku_partition")[name], {one: f"{one}_response_id" for one in PKU})


def test_pku_by_objective() -> None:
    golden = cases("pku_partition")["plain"]
    assert len(golden) == 8
    for name, expected in golden.items():
        objective, split = name.split("/")
        pairs = pku_split("train" if split == "train_conflict" else split)
        if split == "train_conflict":
            pairs = [pair for pair in pairs if is_conflict(pair, PKU)]
        found = [formatted(pair, objective, is_conflict(pair, PKU)) for pair in pairs]
        assert found == [{key: row[key] for key in found[0]} for row in expected]
        counted(found)


def test_pku_mixtures() -> None:
    golden = cases("pku_partition")["mixed"]
    assert len(golden) == 16
    for name, expected in golden.items():
        dimension, split = name.split("/")
        mixed = mixture(pku_split(split), PKU, float(dimension.split("-")[1]), "last", accident=True)
        assert [pair["prompt"] for pair in mixed.merged] == expected["raw_prompts"]
        conflicts = [is_conflict(pair, PKU) for pair in mixed.merged]
        assert conflicts == expected["contradict"]
        assert Counter(conflicts)[True] == expected["n_conflict"]
        assert len(mixed.merged) == expected["n"]
        counted(conflicts)
