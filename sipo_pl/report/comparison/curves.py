"""The numbers of a comparison for TensorBoard: a run a method, with hyper-parameters and scalars."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sipo_pl.report.comparison.numbers import STATISTICS
from sipo_pl.report.comparison.tables import BESIDE, COST
from sipo_pl.storage.files import atomic_path

FILE = "events.out.tfevents.0.compare"  # a name without time, machine and process, so that a second file is the same
ENDS = {"estimate": "", "low": "_low", "high": "_high"}


def write_curves(metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a TensorBoard run for each method: cost as hyper-parameters, statistics and means by weight as scalars.

    The step of ``mean/<objective>`` is the place of the weight among the method's. Events carry no time.

    Args:
        metrics: what `metrics.json` holds.
        folder: where the runs are put, each in a folder of its method's name.

    Returns:
        The files.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with atomic_path(folder) as aside:
        for method in metrics["methods"]:
            path = aside / _folder(method["method"]) / FILE
            path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                writer = RecordWriter(file)
                writer.write(Event(file_version="brain.Event:2").SerializeToString())
                for step, summary in _summaries(metrics, method):
                    writer.write(Event(step=step, summary=summary).SerializeToString())
                writer.flush()
    return [folder / _folder(method["method"]) / FILE for method in metrics["methods"]]


def scalars(metrics: Mapping[str, Any], method: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Yield tag, step and value of everything that a method has a number of."""
    for name in (*STATISTICS, "hypervolume_gain"):
        if (entry := method[name]) is not None:
            yield from ((f"{name}{suffix}", 0, entry[end]) for end, suffix in ENDS.items())
    yield from ((name, 0, method[name]) for name in BESIDE if method[name] is not None)
    points = [entry for entry in metrics["points"] if entry["method"] == method["method"]]
    for step, entry in enumerate(points):
        for name in metrics["objectives"]:
            for end, suffix in ENDS.items():
                yield f"mean/{name}{suffix}", step, entry["mean"][name][end]


def _summaries(metrics: Mapping[str, Any], method: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    settings = {"method": method["title"], **{name: method[name] for name in COST}}
    yield 0, hparams_pb(settings, trial_id=method["method"], start_time_secs=0)
    for tag, step, value in scalars(metrics, method):
        yield step, Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _folder(method: str) -> str:
    return method.replace(":", ".")
