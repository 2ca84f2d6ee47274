"""Data sets on the hub: their rows, and a hash of their content."""

import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.hub_names import HubSource, parse_hub_name
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.hashes import content_hash

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("sipo_pl")

ANSWER_SECONDS = 10.0  # that the hub is waited for
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def read_hub(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a hub source, each with its place.

    Raises:
        UserError: in one line, where the hub cannot be reached or has no such data set, revision, config or split.
    """
    number = 0
    try:
        for number, row in enumerate(_load(source), start=1):
            yield f"{source}: row {number}", row
    except UserError:
        raise
    except Exception as error:  # of whatever library reads the columns of this data set
        raise UserError(f"{source}: row {number + 1}: {type(error).__name__}: {_first_line(error)}") from None


def hub_hash(source: str) -> str:
    """Return the content hash of a hub source, of its rows, so that it is the same offline and under any revision."""
    files = [file_hash(Path(entry["filename"])) for entry in _load(source).cache_files]
    return content_hash([parse_hub_name(source).split, *files])


@functools.cache
def _load(source: str) -> "Dataset":
    hub = parse_hub_name(source)
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar, set_verbosity_error

    reached = _ask_hub(source, hub)
    set_verbosity_error()
    disable_progress_bar()
    try:
        dataset = load_dataset(hub.repo, hub.config, split=hub.split, revision=hub.revision)
    except Exception as error:  # of whatever library reads the files of this data set
        raise UserError(f"{source}: {_first_line(error)}") from None
    if not reached:
        _check_cached(source, hub, dataset)
    return dataset


def _ask_hub(source: str, hub: HubSource) -> bool:
    """Ask for the data set once, so that a name that cannot be had fails at once and not after many retries.

    Returns:
        Whether the hub answered; where it did not, the data set is in the local cache.

    Raises:
        UserError: what the hub said, or that it said nothing and the cache has nothing either.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        HfApi().dataset_info(hub.repo, revision=hub.revision, timeout=ANSWER_SECONDS)
    except GatedRepoError:
        raise UserError(f"{source}: gated; accept its terms on the hub, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{source}: {hub.repo} has no revision {hub.revision!r}") from None
    except RepositoryNotFoundError:
        raise UserError(f"{source}: no data set {hub.repo!r} on the hub, or a private one (`hf auth login`)") from None
    except HfHubHTTPError as error:
        raise UserError(f"{source}: the hub refused: {_first_line(error)}") from None
    except Exception as error:  # offline mode, no network, no answer: each client library raises its own
        if not _is_cached(hub):
            offline = isinstance(error, OfflineModeIsEnabled)
            reason = "HF_HUB_OFFLINE is set" if offline else f"the hub is out of reach: {_first_line(error)}"
            raise UserError(f"{source}: not in the local cache, and {reason}") from None
        log.info("%s: the hub is out of reach; read from the local cache", source)
        return False
    return True


def _is_cached(hub: HubSource) -> bool:
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = hub.repo.partition("/")
    return any(Path(config.HF_DATASETS_CACHE).glob(f"{owner}___{camelcase_to_snakecase(name)}/*/*/*"))


def _check_cached(source: str, hub: HubSource, dataset: "Dataset") -> None:
    """Refuse a cached revision that is another than the commit asked for; the cache gives its newest."""
    commits = {Path(entry["filename"]).parent.name for entry in dataset.cache_files}
    asked = hub.revision or ""
    if _COMMIT.fullmatch(asked) and not all(commit.startswith(asked) for commit in commits):
        raise UserError(f"{source}: the local cache holds another revision: {', '.join(sorted(commits))}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
