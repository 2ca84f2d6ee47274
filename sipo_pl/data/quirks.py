"""What well-known data sets are known for, recognised where another converter or template reads them."""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from sipo_pl.data.rows import PairRow
from sipo_pl.recipe.recipe import Template

log = logging.getLogger("sipo_pl")


class Quirk(NamedTuple):
    """Marks within prompts that are meant as turns of a conversation, and are taken as text.

    Args:
        mark: what they look like
        said: what they are, and which key reads them
        whole: whether that is a template that adds nothing to them
    """

    mark: re.Pattern[str]
    said: str
    whole: bool = False


QUIRKS = (
    Quirk(
        re.compile(r"<extra_id_1>(User|Assistant)\n"),
        "turns marked by <extra_id_1>, as HelpSteer2 has them, which are taken as text; "
        "data.converter.class_path: sipo_pl.data.converters.helpsteer2.HelpSteer2 makes messages of them",
    ),
    Quirk(
        re.compile(r"\A\s*Human: .*\n\nAssistant:", re.DOTALL),
        "turns marked by Human: and Assistant:, as hh-rlhf has them, which are taken as text; "
        'template.kind: plain with template.text: "{raw_prompt}" adds no marks of its own',
        whole=True,
    ),
)


def say_quirks(split: str, rows: Sequence[PairRow], template: Template) -> None:
    """Warn of prompts of a split that hold marks of turns as text."""
    bare = template.kind == "plain" and template.pattern == "{raw_prompt}"
    prompts = {row["prompt_id"]: row["prompt"] for row in rows}
    texts = [prompt for prompt in prompts.values() if isinstance(prompt, str)]
    for quirk in (one for one in QUIRKS if not (one.whole and bare)):
        if count := sum(quirk.mark.search(text) is not None for text in texts):
            log.warning("prepare: %s: %d of %d prompts hold %s", split, count, len(prompts), quirk.said)
