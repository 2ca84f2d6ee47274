"""Internals of other libraries are named in `sipo_pl/interop` and nowhere else."""

import ast
from pathlib import Path

import sipo_pl

PACKAGE = Path(sipo_pl.__file__).parent
INTERNALS = {
    "_actions",
    "_attn_implementation",
    "_hf_hook",
    "_is_in_bad_fork",
    "_is_stateful",
    "_model_mapping",
    "_parse_ckpt_path",
    "_set_seed",
    "_typehint",
    "ds_id",
    "parameter_offload",
    "procs",
    "sdpa_attention_forward",
    "val_check_batch",
}


def test_internals_are_entered_by_one_door() -> None:
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] != "interop"]
    files += sorted((PACKAGE / "callbacks").glob("*.py"))
    found = {
        f"{file.relative_to(PACKAGE)}:{node.lineno}: {name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in _names(node)
        if name in INTERNALS or (isinstance(node, ast.Attribute) and _is_internal(node))
    }

    assert found == set()


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _is_internal(node: ast.Attribute) -> bool:
    """Return whether an underscore name is asked of torch or of a library's module by its own name."""
    return node.attr.startswith("_") and not node.attr.startswith("__") and _root(node) in {"torch", "transformers"}


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
