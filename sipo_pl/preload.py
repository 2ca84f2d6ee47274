"""Imports what every stage of a run needs, once, in the process that stages are forked from."""

import signal

from sipo_pl import logs
from sipo_pl.lifetime import die_with_parent
from sipo_pl.stopping import SIGNALS

die_with_parent()  # by itself it would notice too, and then tidy up for seconds

# a signal to all processes of a run is for the run and its stage; without this one, the stage would die too
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
logs.quiet_imports()

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
