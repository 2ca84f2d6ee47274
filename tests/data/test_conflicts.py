import json

from sipo_pl.data.conflicts import format_statistics, has_tie, is_conflict, quantiles, statistics, tied_everywhere
from sipo_pl.data.rows import PairRow


def pair(prompt: str, **preferred: int) -> PairRow:
    return {
        "pair_id": f"{prompt}/0-1",
        "prompt_id": prompt,
        "prompt": prompt,
        "response_0": "a",
        "response_1": "b",
        "preferred": preferred,  # type: ignore[typeddict-item]
    }


def test_two_objectives_conflict_where_they_prefer_different_responses() -> None:
    names = ["x", "y"]
    assert is_conflict(pair("p", x=0, y=1), names)
    assert not is_conflict(pair("p", x=1, y=1), names)
    assert not is_conflict(pair("p", x=-1, y=1), names)  # a tie is no conflict
    assert not is_conflict(pair("p", x=-1, y=-1), names)


def test_of_three_objectives_one_that_differs_is_enough_and_one_tie_forbids_it() -> None:
    names = ["x", "y", "z"]
    assert is_conflict(pair("p", x=0, y=0, z=1), names)
    assert not is_conflict(pair("p", x=0, y=0, z=0), names)
    assert not is_conflict(pair("p", x=0, y=1, z=-1), names)
    assert is_conflict(pair("p", x=0, y=1, z=-1), ["x", "y"])  # only the objectives in use count


def test_ties() -> None:
    row = pair("p", x=0, y=-1)
    assert has_tie(row, ["x", "y"])
    assert not has_tie(row, ["x"])
    assert not tied_everywhere(row, ["x", "y"])
    assert tied_everywhere(row, ["y"])


def test_statistics_of_three_objectives_worked_by_hand() -> None:
    train = [
        pair("p", x=0, y=1, z=0),  # x/y and y/z conflict
        pair("p", x=0, y=0, z=0),
        pair("q", x=0, y=1, z=-1),  # x/y conflicts; by the tie in z no conflict of all three
        pair("r", x=-1, y=1, z=0),  # y/z conflicts
    ]
    stats = statistics(
        {"train": train, "validation": []},
        ["x", "y", "z"],
        {"train": {"pairs over 512 tokens": 3}},
        {"train": {"prompt": [5, 1, 3]}},
    )
    assert stats == {
        "splits": {
            "train": {"prompts": 3, "pairs": 4, "untied": 2, "conflicts": 1, "conflict_share": 0.5},
            "validation": {"prompts": 0, "pairs": 0, "untied": 0, "conflicts": 0, "conflict_share": None},
        },
        "conflicts": {
            "train": {
                "x / y": {"untied": 3, "conflicts": 2, "conflict_share": 2 / 3},
                "x / z": {"untied": 2, "conflicts": 0, "conflict_share": 0.0},
                "y / z": {"untied": 3, "conflicts": 2, "conflict_share": 2 / 3},
            },
            "validation": {
                name: {"untied": 0, "conflicts": 0, "conflict_share": None} for name in ("x / y", "x / z", "y / z")
            },
        },
        "ties": {
            "train": {
                "x": {"pairs": 4, "ties": 1, "tie_share": 0.25},
                "y": {"pairs": 4, "ties": 0, "tie_share": 0.0},
                "z": {"pairs": 4, "ties": 1, "tie_share": 0.25},
            },
            "validation": {name: {"pairs": 0, "ties": 0, "tie_share": None} for name in "xyz"},
        },
        "dropped": {"train": {"pairs over 512 tokens": 3}},
        "tokens": {"train": {"prompt": {"0%": 1, "5%": 1, "25%": 1, "50%": 3, "75%": 5, "95%": 5, "100%": 5}}},
    }
    json.dumps(stats, allow_nan=False)


def test_quantiles_are_values_of_the_data() -> None:
    assert quantiles(range(1, 101)) == {"0%": 1, "5%": 5, "25%": 25, "50%": 50, "75%": 75, "95%": 95, "100%": 100}
    assert quantiles([7]) == dict.fromkeys(("0%", "5%", "25%", "50%", "75%", "95%", "100%"), 7)
    assert quantiles([]) == {}


def test_the_printed_tables_hold_every_figure() -> None:
    stats = statistics(
        {"train": [pair("p", x=0, y=1)], "validation": []},
        ["x", "y"],
        {"train": {"pairs over 512 tokens": 3}, "validation": {}},
        {"train": {"prompt": [5]}},
    )
    stats["splits"]["test"] = {"prompts": 2}
    lines = [line.split() for line in format_statistics(stats).splitlines()]
    assert ["splits", "prompts", "pairs", "untied", "conflicts", "conflict_share"] in lines
    assert ["train", "1", "1", "1", "1", "1.000"] in lines
    assert ["test", "2", "-", "-", "-", "-"] in lines
    assert ["train", "x", "/", "y", "1", "1", "1.000"] in lines
    assert ["train", "pairs", "over", "512", "tokens", "3"] in lines
    assert ["train", "prompt", *["5"] * 7] in lines


def test_nothing_dropped_prints_no_table() -> None:
    assert "dropped" not in format_statistics({"dropped": {"train": {}}, "splits": {"train": {"pairs": 1}}})
