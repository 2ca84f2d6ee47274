"""Writes the tables of docs/configuration.md from the typed fields, their defaults and their docstrings.

    python -m tools.configuration_page [--check]

The page's prose is written by hand. A table stands between two comments, ``<!-- table: NAME -->`` and ``<!-- end -->``,
and is made anew: of a dataclass, or of the parser of the stages, commands or classes that the name lists. Where several
of them have a key, it stands once, in the table with the fewest members that holds them all.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES
from tools.configuration_keys import Key, class_keys, command_keys, recipe_keys, stage_keys

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
TABLE = re.compile(r"(?P<open><!-- table: (?P<family>\w+) (?P<of>[\w ]+) -->\n).*?(?P<close><!-- end -->\n)", re.DOTALL)
REWARDS = {
    "DPA": "sipo_pl.rewards.dpa.DPA",
    "BeaverReward": "sipo_pl.rewards.beaver.BeaverReward",
    "BeaverCost": "sipo_pl.rewards.beaver.BeaverCost",
    "SequenceClassifier": "sipo_pl.rewards.sequence_classifier.SequenceClassifier",
}
JUDGE = "sipo_pl.rewards.local_judge.LocalJudge"
PREDICTIONS = tuple(name for name, stage in TRAINER_STAGES.items() if stage.verb == "predict")
FITS = tuple(name for name, stage in TRAINER_STAGES.items() if stage.verb == "fit")


class Family:
    """Keys that several members may share, such as all fits.

    Args:
        members: what has keys, in the order of the page
        keys_of: returns the keys of a member
        column: heading of the column that says whose a key is
    """

    def __init__(self, members: Sequence[str], keys_of: Callable[[str], Sequence[Key]], column: str) -> None:
        self.members, self.column = tuple(members), column
        self.found: dict[tuple[str, str, str], dict[str, Key]] = {}  # what is said of a key -> member -> the key
        for member in self.members:
            for key in keys_of(member):
                self.found.setdefault((key.name, key.kind, key.what), {})[member] = key

    def table(self, shown: Sequence[str], others: Sequence[frozenset[str]]) -> str:
        """Return the table of the keys that belong to `shown`.

        Args:
            shown: members.
            others: the members of all tables of the family.
        """
        own = frozenset(shown)
        rows = {
            said: keys
            for said, keys in self.found.items()
            if min((one for one in others if one >= keys.keys()), key=len, default=None) == own
        }
        whose = {said: self._whose(keys, shown) for said, keys in rows.items()}
        with_column = any(whose.values())
        heads = ["key", *([self.column] if with_column else []), "type", "default", "what it does"]
        cells = []
        for said, keys in rows.items():
            key = next(iter(keys.values()))
            column = [whose[said] or "all"] if with_column else []
            cells.append([f"`{key.name}`", *column, key.kind, _defaults(keys), f"{key.what}{' °' * key.is_free}"])
        return _table(heads, cells)

    def missing(self, tables: Sequence[frozenset[str]]) -> list[str]:
        """Return the keys that belong to no table."""
        return [f"{said[0]} of {', '.join(keys)}" for said, keys in self.found.items() if not _fits(keys, tables)]

    def _whose(self, keys: Mapping[str, Key], shown: Sequence[str]) -> str:
        """Return which members of a table have a key, in the fewest words; empty for all of them."""
        having, lacking = [one for one in shown if one in keys], [one for one in shown if one not in keys]
        if not lacking:
            return ""
        return f"all but {', '.join(lacking)}" if len(lacking) < len(having) else ", ".join(having)


def _fits(keys: Mapping[str, Key], tables: Sequence[frozenset[str]]) -> bool:
    return any(table >= keys.keys() for table in tables)


def _defaults(keys: Mapping[str, Key]) -> str:
    """Return the default of a key, that of most members first and then those of the others."""
    by_value: dict[str, list[str]] = {}
    for member, key in keys.items():
        by_value.setdefault(key.default, []).append(member)
    first, *others = sorted(by_value, key=lambda value: -len(by_value[value]))
    return "; ".join([first, *(f"{', '.join(by_value[value])}: {value}" for value in others)])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in rows)]
    return "".join(f"|{'|'.join(line)}|\n" if line[0] == "---" else f"| {' | '.join(line)} |\n" for line in lines)


def families() -> dict[str, Family]:
    """Return the families of tables by the first word of their names."""
    return {
        "recipe": Family(("Recipe", "Objective", "Data", "Template", "WeightPlan", "Compat"), recipe_keys, "part"),
        "rewards": Family(tuple(REWARDS), lambda name: class_keys(REWARDS[name]), "class"),
        "fits": Family(FITS, stage_keys, "stage"),
        "predictions": Family(PREDICTIONS, stage_keys, "stage"),
        "judge": Family(("LocalJudge",), lambda _: class_keys(JUDGE), "class"),
        "commands": Family(SMALL_STAGES, command_keys, "command"),
        "merge": Family(("merge",), command_keys, "command"),
    }


def made(text: str) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a key that no table of the page would show.
    """
    known = families()
    tables = {name: [frozenset(members) for members in _tables_of(text, known[name], name)] for name in known}
    if missing := [key for name, family in known.items() for key in family.missing(tables[name])]:
        raise ValueError(f"no table of {PAGE.name} holds {'; '.join(missing)}")

    def one(match: re.Match[str]) -> str:
        family = known[match["family"]]
        shown = family.members if match["of"] == "all" else match["of"].split()
        return f"{match['open']}\n{family.table(shown, tables[match['family']])}\n{match['close']}"

    return TABLE.sub(one, text)


def _tables_of(text: str, family: Family, name: str) -> Iterator[Sequence[str]]:
    for match in TABLE.finditer(text):
        if match["family"] == name:
            yield family.members if match["of"] == "all" else match["of"].split()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or tell by the exit code whether it is what would be written."""
    parser = argparse.ArgumentParser(prog="python -m tools.configuration_page", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is stale")
    is_check = parser.parse_args(arguments).check
    text = PAGE.read_text(encoding="utf-8")
    if (new := made(text)) == text:
        return 0
    if is_check:
        print(f"{PAGE} is stale; python -m tools.configuration_page makes it anew", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
