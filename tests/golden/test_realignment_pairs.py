"""Pairs of re-alignment from kept responses."""

from golden import MODEL, cases

from sipo_pl.use.functions import realignment_pairs


def test_realignment_pairs() -> None:
    golden = cases("realign_pairs")
    assert (len(golden["selected"]), len(golden["pairs"])) == (8, 16)
    before, after = golden["prompt_template"].split("{raw_prompt}")

    def split(text: str) -> list[str]:
        return text.removeprefix(before).split(after, 1)

    kept = [split(row["prompt_response"]) for row in golden["selected"]]
    rows = [row["map_index"] for row in golden["selected"]]
    found = realignment_pairs(
        MODEL,
        [prompt for prompt, _ in kept],
        [split(golden["positive"][row])[1] for row in rows],
        [split(golden["negative"][row])[1] for row in rows],
        [response for _, response in kept],
    )
    assert [one._asdict() | {"prompt": before + one.raw_prompt + after} for one in found] == golden["pairs"]
