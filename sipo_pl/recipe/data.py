"""The recipe's part about raw data: where it comes from, how it is split and mixed. Plain data, quick to import."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import Path_fr, restricted_string_type

from sipo_pl.interop.numbers import OpenShare, PositiveInt, Seed, Share
from sipo_pl.storage.unicode_names import composed

Component = dict[str, Any]  # {class_path: import path of a class, init_args: its keyword arguments}, see `components`

HUB_PREFIX = "hub:"
if TYPE_CHECKING:
    DataFile = str | os.PathLike[str]
else:
    # whether the rest of the name is well formed is said by `recipe_check`, with a hint
    HubName = restricted_string_type("HubName", f"^{HUB_PREFIX}.*$", "name of a data set on the hub")
    DataFile = HubName | Path_fr
Files = list[DataFile] | dict[str, list[DataFile]]


@dataclass
class Mixture:
    """A train split of which a given share conflicts.

    Of C conflicting and M other pairs, min(C, M) are taken: int(min(C, M) * share) conflicting ones and the rest from
    the others, then shuffled. Pairs with a tie in any objective are in neither part, nor in validation.

    Args:
        share: share of conflicting pairs in train, from 0 to 1; no mixture but all of train where not given
        take: whether the first or the last pairs of either part are taken
        validation: mix the validation split likewise
        train_conflict: pairs that candidates are sampled for, the conflicting ones that were chosen or all of train
        seed: seed of the shuffle
    """

    share: Share | None = None
    take: Literal["first", "last"] = "first"
    validation: bool = False
    train_conflict: Literal["chosen", "all"] = "chosen"
    seed: Seed = 42


@dataclass
class Data:
    """The raw data and how pairs are made of it.

    Files are local paths or names of data sets on the hub, `hub:owner/name:split@revision` or
    `hub:owner/name/config:split@revision`; some converters take a list of them for each objective.

    Args:
        train: files or hub names of the training split, a list; for the converter TRL a list for each objective
        validation: those of the validation split; or give validation_share
        test: those of the test prompts; drawn from train where empty, as many as validation has
        converter: class_path and init_args of what makes pairs of the files' rows
        max_length: longest template + response + EOS in tokens; longer pairs are left out, never cut; null filters none
        validation_share: draw this share of train as validation, in place of files: the first of a permutation of its
            rows
        validation_seed: seed of that permutation
        test_first: only the first so many rows of the test files
        test_last: only the last so many rows of the test files
        keep_apart: drop pairs of train whose prompt validation or test holds; false only warns
        mixture: take a given share of conflicting pairs
    """

    train: Files
    validation: Files = field(default_factory=list)
    test: Files = field(default_factory=list)
    converter: Component = field(default_factory=lambda: {"class_path": "sipo_pl.data.converters.helpsteer.HelpSteer"})
    max_length: PositiveInt | None = 512
    validation_share: OpenShare | None = None
    validation_seed: Seed = 0
    test_first: PositiveInt | None = None
    test_last: PositiveInt | None = None
    keep_apart: bool = True
    mixture: Mixture = field(default_factory=Mixture)

    def files(self, split: str) -> list[str] | dict[str, list[str]]:
        """Return the files of a split as text, in a list or by objective."""
        found: Files = getattr(self, split)
        if isinstance(found, dict):
            return {composed(name): [os.fspath(source) for source in sources] for name, sources in found.items()}
        return [os.fspath(source) for source in found]

    def sources(self) -> dict[str, str]:
        """Return every file of every split by a name for it, such as ``train/0`` or ``train/helpful/0``."""
        found: dict[str, str] = {}
        for split in ("train", "validation", "test"):
            files = self.files(split)
            groups = files if isinstance(files, dict) else {"": files}
            for objective, sources in groups.items():
                prefix = f"{split}/{objective}/" if objective else f"{split}/"
                found |= {f"{prefix}{index}": source for index, source in enumerate(sources)}
        return found
