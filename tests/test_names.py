"""One name means one thing: no two classes or type aliases of the package share a name."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import sipo_pl

PACKAGE = Path(sipo_pl.__file__).parent


def types_of(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield the names of a module's classes and type aliases; a type variable has no meaning outside of its module."""
    for statement in statements:
        if isinstance(statement, ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.If):
            yield from types_of([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if not isinstance(statement.value, ast.Call):
                yield from (one.id for one in targets if isinstance(one, ast.Name) and is_a_type_name(one.id))


def is_a_type_name(name: str) -> bool:
    return name[:1].isupper() and not name.isupper()


def test_no_name_means_two_things() -> None:
    files = {path.resolve() for folder in (PACKAGE, PACKAGE / "callbacks") for path in folder.rglob("*.py")}
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(files):
        for name in set(types_of(ast.parse(path.read_text()).body)):
            places[name].append(str(path.relative_to(PACKAGE.parent)))
    assert "PreferenceLoss" in places  # so that a package that is not found does not pass
    assert "FinishReason" in places
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
