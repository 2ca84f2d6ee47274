"""Imports what every stage of a run needs, once, in the process that stages are forked from."""

import importlib
import signal

from sipo_pl.messages import logs
from sipo_pl.run.lifetime import die_with_parent
from sipo_pl.storage.stopping import SIGNALS

die_with_parent()  # by itself it would notice too, and then tidy up for seconds

# a signal to all processes of a run is for the run and its stage; without this one, the stage would die too
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
logs.quiet_imports()


for _module in (
    "sipo_pl.cli.trainer",
    "sipo_pl.prediction.measure",
    "sipo_pl.prediction.review",
    "sipo_pl.prediction.rewrite",
    "sipo_pl.prediction.sample",
    "sipo_pl.prediction.score",
    "sipo_pl.training.dpo",
    "sipo_pl.training.realign",
):
    importlib.import_module(_module)

for _name in ("LlamaForCausalLM", "AutoTokenizer", "AutoModelForCausalLM"):
    getattr(__import__("transformers"), _name)
