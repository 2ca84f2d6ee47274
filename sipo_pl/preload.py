"""Imports what every stage of a run needs, once, in the process that stages are forked from."""

import sipo_pl.modules.dpo
import sipo_pl.modules.measure
import sipo_pl.modules.realign
import sipo_pl.modules.review
import sipo_pl.modules.rewrite
import sipo_pl.modules.sample
import sipo_pl.modules.score
import sipo_pl.trainer_cli  # noqa: F401

for _name in ("LlamaForCausalLM", "AutoTokenizer", "AutoModelForCausalLM"):
    getattr(__import__("transformers"), _name)
