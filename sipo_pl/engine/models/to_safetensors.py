"""Converts a model folder's .bin weights to safetensors: `python -m sipo_pl.engine.models.to_safetensors FOLDER`."""

import pickle
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from sipo_pl.engine.models.files import INDEX, SINGLE
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.json_lines import write_json


def to_safetensors(folder: Path) -> list[Path]:
    """Write each `pytorch_model*.bin` of a folder as safetensors beside it, with an index where there are several.

    The pickles are read with `weights_only`, so that no code of theirs runs.

    Returns:
        The files written.
    """
    sources = sorted(folder.glob("pytorch_model*.bin"))
    written: list[Path] = []
    weight_map: dict[str, str] = {}
    size = 0
    for source in sources:
        tensors = torch.load(source, map_location="cpu", weights_only=True)
        # tied weights share memory, which safetensors refuses
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        name = (
            SINGLE if len(sources) == 1 else source.with_suffix(".safetensors").name.replace("pytorch_model", "model")
        )
        with atomic_path(folder / name) as aside:
            save_file(tensors, aside, metadata={"format": "pt"})
        written.append(folder / name)
        weight_map |= dict.fromkeys(tensors, name)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(sources) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        written.append(folder / INDEX)
    return written


def main(words: list[str]) -> int:
    """Convert the folder that is named; return the exit code."""
    if len(words) != 1 or not any(Path(words[0]).glob("pytorch_model*.bin")):
        print("usage: python -m sipo_pl.engine.models.to_safetensors FOLDER_WITH_BIN_WEIGHTS", file=sys.stderr)
        return 2
    try:
        files = to_safetensors(Path(words[0]))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        print(f"{words[0]}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 1
    print("\n".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
