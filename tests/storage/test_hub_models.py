"""What is known of a model that a hub name stands for, by what the hub's cache holds."""

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from sipo_pl.storage.hashes import HASH_PARTS, content_hash, same_hash
from sipo_pl.storage.model_hashes import tokenizer_hash, weights_hash

NAME = "owner/name"


class Cache:
    """The hub's cache of one model, laid out as the hub's library does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "models--owner--name"

    def download(self, revision: str, **files: str) -> None:
        snapshot = self.folder / "snapshots" / revision
        for path in (snapshot, self.folder / "blobs", self.folder / "refs"):
            path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            blob = self.folder / "blobs" / hashlib.sha256(text.encode()).hexdigest()
            blob.write_text(text)
            (snapshot / name.replace("__", ".")).symlink_to(blob)
        (self.folder / "refs/main").write_text(revision)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return Cache(tmp_path)


def test_what_is_not_downloaded_is_known_by_its_name(cache: Cache) -> None:
    assert weights_hash(NAME) == tokenizer_hash(NAME) == content_hash(NAME)
    cache.download("1", config__json="{}")
    assert weights_hash(NAME) == tokenizer_hash(NAME) == content_hash(NAME)


def test_another_revision_tells_other_weights_and_only_these(cache: Cache) -> None:
    before = weights_hash(NAME)
    cache.download("1", config__json="{}", model__safetensors="a", tokenizer__json="t", README__md="x")
    first = weights_hash(NAME)
    assert first.startswith(content_hash(NAME) + HASH_PARTS)
    assert same_hash(before, first)  # a stage that began before the download goes on
    cache.download("2", config__json="{}", model__safetensors="a", tokenizer__json="t", README__md="y")
    assert weights_hash(NAME) == first
    tokenizer = tokenizer_hash(NAME)
    cache.download("3", config__json="{}", model__safetensors="b", tokenizer__json="t")
    assert not same_hash(weights_hash(NAME), first)
    assert tokenizer_hash(NAME) == tokenizer
    cache.download("4", config__json="{}", model__safetensors="b", tokenizer__json="u")
    assert not same_hash(tokenizer_hash(NAME), tokenizer)


def test_shards_count_once_all_are_there(cache: Cache) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}})
    files = {"config__json": "{}", "model__safetensors__index__json": index, "one__safetensors": "1"}
    cache.download("1", **files)
    assert weights_hash(NAME) == content_hash(NAME)
    cache.download("2", **files, two__safetensors="2")
    whole = weights_hash(NAME)
    assert whole != content_hash(NAME)
    cache.download("3", **files, two__safetensors="3")
    assert not same_hash(weights_hash(NAME), whole)


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_tells_nothing(cache: Cache, index: str) -> None:
    cache.download("1", config__json="{}", model__safetensors__index__json=index)
    assert weights_hash(NAME) == content_hash(NAME)
