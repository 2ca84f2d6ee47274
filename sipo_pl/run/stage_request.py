"""What `run` asked of a stage, kept in its folder, so that a stage that would do the same again is not even started."""

import json
from pathlib import Path
from typing import Any

from sipo_pl.data.readers import source_hash
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.config.files import find_config, load_yaml
from sipo_pl.recipe.graph.node import Node
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.artifacts import Manifest, content_hash, file_hash, input_hash, read_json

CONFIG_SUFFIX = ".yaml"
REQUEST = "request.json"


def request_of(node: Node, words: list[str], recipe: Recipe, recipe_name: str) -> dict[str, Any]:
    """Return what decides whether a stage would do the same again: command, config texts, inputs."""
    config = find_config(words[words.index("--config") + 1])
    inputs = {}
    for name in node.inputs:
        manifest = Manifest.read(recipe.layout.run_dir / name)
        inputs[name] = manifest.result_hash if manifest and manifest.complete else None
    if node.config == "prepare":
        inputs |= {name: source_hash(source) for name, source in recipe.data.sources().items()}
    inputs |= {one.name: input_hash(Path(one.adapter), "") for one in recipe.objectives if one.adapter}
    shared = {key: value for key, value in load_yaml(find_config(recipe_name)).items() if key != "run_dir"}  # may move
    texts = {"config": load_yaml(config), "recipe": shared}
    options = words[words.index("--config") + 2 :]
    inputs |= {name: file_hash(Path(name)) for name in _files_named_in([texts, options])}
    return {"verb": words[0], "options": options, "texts": content_hash(texts), "inputs": inputs}


def _files_named_in(value: Any) -> set[str]:
    """Return the strings anywhere in a value that name a file, such as a prompt file."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return {name for one in inner for name in _files_named_in(one)}
    return {value} if isinstance(value, str) and not value.endswith(CONFIG_SUFFIX) and _is_file(value) else set()


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False


def is_complete(folder: Path, request: dict[str, Any]) -> bool:
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.complete or not (folder / REQUEST).exists():
        return False
    try:
        return bool(read_json(folder / REQUEST) == json.loads(json.dumps(request)))
    except UserError:  # damaged: the stage itself says whether it is complete, and the file is written anew
        return False
