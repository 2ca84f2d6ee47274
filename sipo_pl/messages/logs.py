"""Where the program speaks: messages on the console, the same with times in the run's log."""

import logging
import os
import sys
import warnings
from pathlib import Path

from sipo_pl.messages import ranks

LOG_VARIABLE = "SIPO_PL_LOG"  # file that the stages of a run append to
LABEL_VARIABLE = "SIPO_PL_LABEL"  # name of a stage that runs beside others, before each of its lines


def set_up() -> None:
    """Set up the console and, where a run asks for it, its log. Call once."""
    log = logging.getLogger("sipo_pl")
    if log.handlers:
        return
    quiet_imports()
    log.setLevel(logging.DEBUG)
    log.propagate = False
    console = logging.StreamHandler(sys.stderr)
    if ranks.is_first():
        console.setLevel(logging.INFO)
        console.setFormatter(logging.Formatter(f"{_label()}%(message)s"))
    else:
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter(f"{_label()}[device {ranks.rank()}] %(message)s"))
    log.addHandler(console)
    if path := os.environ.get(LOG_VARIABLE):
        log_to(Path(path))


def quiet_libraries() -> None:
    """Keep the libraries' adverts and loading bars away. Call after their import, which sets their levels."""
    quiet_imports()
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("lightning", "torch.jit", "torch.distributed", "jsonargparse"):
        warnings.filterwarnings("ignore", module=module)
    warnings.filterwarnings("ignore", message=".*treespec.*|.*does not have many workers.*|.*instantiate_classes.*")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def quiet_imports() -> None:
    """Keep away what libraries say as they are imported, whenever that is."""
    logging.getLogger("DeepSpeed").addFilter(_is_error)  # which outlasts the level that it sets then
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class LogFile(logging.FileHandler):
    """Appends to a file as long as that can be written; a full disk is for those to report whose work it stops."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out: the console has it."""


def log_to(path: Path) -> None:
    """Append to the run's log, with times; where it cannot be written, say so once and go on without."""
    log = logging.getLogger("sipo_pl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        log.warning("%s: cannot be written: %s; the run goes on without its log", path, error.strerror)
        return
    handler.setFormatter(logging.Formatter(f"%(asctime)s {_label()}%(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)


def is_beside() -> bool:
    """Return whether other stages of the run speak at the same time."""
    return LABEL_VARIABLE in os.environ


def _label() -> str:
    return f"{os.environ[LABEL_VARIABLE]} | " if is_beside() else ""
