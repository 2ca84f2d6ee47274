"""Imports what every stage of a run needs, once, in the process that stages are forked from."""

from sipo_pl import logs

logs.quiet_deepspeed()

import sipo_pl.modules.dpo  # noqa: E402
import sipo_pl.modules.measure  # noqa: E402
import sipo_pl.modules.realign  # noqa: E402
import sipo_pl.modules.review  # noqa: E402
import sipo_pl.modules.rewrite  # noqa: E402
import sipo_pl.modules.sample  # noqa: E402
import sipo_pl.modules.score  # noqa: E402
import sipo_pl.trainer_cli  # noqa: E402, F401

for _name in ("LlamaForCausalLM", "AutoTokenizer", "AutoModelForCausalLM"):
    getattr(__import__("transformers"), _name)
