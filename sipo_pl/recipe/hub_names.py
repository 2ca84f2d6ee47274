"""Names of data sets on the hub."""

import re
from typing import NamedTuple

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.data import HUB_PREFIX

FORM = "hub:owner/name:split@revision, or hub:owner/name/config:split@revision"
_PART = r"[\w.-]+"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(/(?P<config>{_PART}))?:(?P<split>[^@\s]+)(@(?P<revision>[^@\s]+))?")


class HubSource(NamedTuple):
    """One split of a data set on the hub.

    Args:
        repo: owner/name
        config: configuration, or subset, of the data set; its default one where not given
        split: name of the split, or a slice of it such as ``train[:1000]``
        revision: commit, tag or branch; the newest one where not given
    """

    repo: str
    config: str | None
    split: str
    revision: str | None


def is_hub_name(source: str) -> bool:
    """Return whether a source names a data set on the hub rather than a local file."""
    return source.startswith(HUB_PREFIX)


def parse_hub_name(source: str) -> HubSource:
    """Return the parts of a name of the form `FORM`.

    Raises:
        UserError: another form.
    """
    found = _NAME.fullmatch(source.removeprefix(HUB_PREFIX))
    if not found:
        raise UserError(f"{source}: expected {FORM}")
    return HubSource(found["repo"], found["config"], found["split"], found["revision"])
