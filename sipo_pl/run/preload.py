"""Imports what every stage of a run needs, once, in the process that stages are forked from."""

import importlib
import signal

from sipo_pl.messages import logs
from sipo_pl.registry import TRAINER_STAGES
from sipo_pl.run.lifetime import die_with_parent
from sipo_pl.storage.stopping import SIGNALS

die_with_parent()  # by itself it would notice too, and then tidy up for seconds

# a signal to all processes of a run is for the run and its stage; without this one, the stage would die too
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
logs.quiet_imports()


importlib.import_module("sipo_pl.cli.trainer")
for _stage in TRAINER_STAGES.values():
    if not (_stage.compared or _stage.off_by_default):
        importlib.import_module(_stage.target.rpartition(".")[0])

for _name in ("LlamaForCausalLM", "AutoTokenizer", "AutoModelForCausalLM"):
    getattr(__import__("transformers"), _name)
