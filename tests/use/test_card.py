"""Model cards hold what users wrote as text: no HTML, no pictures, no links of theirs."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.engine.lora.policies import Policy
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.recipe.data import Data
from sipo_pl.recipe.recipe import Objective, Recipe, Template
from sipo_pl.use.card import Card, card
from sipo_pl.use.export import KINDS
from sipo_pl.use.scores import Scores
from sipo_pl.use.source import Source

EVIL = '<img src="//evil.example/1"> ![x](https://evil.example/2) <https://evil.example/3> [y](//evil.example) &lt;'
PAPER = "https://aclanthology.org/2025.findings-acl.574"


@pytest.mark.parametrize("kind", KINDS)
def test_what_users_wrote_is_text_in_a_card(kind: str) -> None:
    names, weights = ("_kind_", "short"), (0.6, 0.4)
    recipe = Recipe(
        name=f"{EVIL} | a_b_c *d*\n---\n",
        base_model=f"/models/{EVIL.replace('/', '')}`",
        objectives=[Objective(name, phrase=f"{EVIL}\n# {name} `code`") for name in names],
        data=Data(train=[f"hub:someone/{EVIL}:train"], validation=[]),
    )
    policies = tuple(Policy(recipe.base_model, {}) for _ in names)
    rule = ReverseKL()
    source = Source(Path(), names, policies, Template(), rule, 0.1, "float32", 1, Decoding(), None, (recipe, "align"))
    scores = Scores(3, {"base": [0.1, 0.2], "0.6,0.4": [0.3, 0.4]}, {"base": 5.0, "0.6,0.4": 6.0}, "0.6,0.4")
    text = card(Card(kind, source, weights, recipe.base_model, scores, None, None, 0, 2))
    tokens = [one for block in MarkdownIt().enable("table").parse(text) for one in (block, *(block.children or ()))]
    assert not {one.type for one in tokens} & {"html_inline", "html_block", "image"}
    assert {str(one.attrs["href"]) for one in tokens if one.type == "link_open"} == {PAPER}
    shown = ["".join(one.content for one in token.children or ()) for token in tokens if token.type == "inline"]
    assert f"{EVIL} | a_b_c *d* --- : _kind_=0.6,short=0.4" in shown
    assert any(f"Objective _kind_ ({EVIL} # _kind_ `code`);" in line for line in shown)
    assert "weights (_kind_, short)" in shown
