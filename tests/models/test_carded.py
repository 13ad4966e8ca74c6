"""The file of a model: it comes back as it was, and is neither damaged nor taken for another unnoticed."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.models import carded
from micro_lib.models.carded import CardError

CARD = {"format": "test", "version": 1, "grain_px": [40.0, 120.0]}
TENSORS = {"weight": torch.arange(64.0).reshape(8, 8), "bias": torch.arange(8)}


def loaded(path, **expected):
    with carded.opened(path, "a model", "`make` makes one", **expected) as found:
        return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    carded.write(path, CARD, TENSORS)
    return path


def test_card_and_tensors_come_back(stored):
    card, tensors = loaded(stored, format="test", version=1)
    assert card == CARD and set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def refused(stored, content):
    path = stored.with_name("changed.safetensors")
    path.write_bytes(content)
    with pytest.raises(CardError, match=r"changed\.safetensors"):
        loaded(path)


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60)
def test_a_flipped_bit_is_noticed(stored, where, bit):
    content = bytearray(stored.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    refused(stored, bytes(content))


@pytest.mark.parametrize("word", [b'"card"', b"grain_px", b"sha256", b"[40.0, 120", b"weight"])
def test_a_changed_header_is_noticed(stored, word):
    content = stored.read_bytes()
    assert word in content
    changed = word[:-2] + bytes([word[-2] ^ 1]) + word[-1:]
    refused(stored, content.replace(word, changed, 1))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_noticed(stored, share):
    content = stored.read_bytes()
    refused(stored, content[: int(share * len(content))])


def test_other_files_are_refused_with_words(stored, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file .*missing.safetensors; `make` makes one"):
        loaded(tmp_path / "missing.safetensors")
    save_file(TENSORS, tmp_path / "plain.safetensors")
    with pytest.raises(CardError, match="without the card of a model"):
        loaded(tmp_path / "plain.safetensors")
    with pytest.raises(CardError, match="holds format 'test' version 1; read as a model is format 'test' version 2"):
        loaded(stored, format="test", version=2)


def test_a_file_that_makes_no_model_is_named(stored):
    with pytest.raises(CardError, match=r"model.safetensors does not make a model \(KeyError: 'classes'\)"):
        with carded.opened(stored, "a model", "") as (card, _):
            card["classes"]


def test_writing_replaces_whole_files_or_nothing(tmp_path, monkeypatch):
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        carded.write(target, CARD, TENSORS)
    monkeypatch.undo()
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@dataclass(frozen=True)
class Some(carded.ClassCard):
    """A card."""

    class_map: ClassMap
    grain_px: tuple[float, float]
    line_px: int = 0


def test_a_card_becomes_plain_and_comes_back():
    card = Some(GRAIN_BOUNDARY, (40.0, 120.0))
    plain = json.loads(json.dumps(card.plain()))
    assert plain["class_map"]["classes"] == ["grain", "boundary"] and plain["grain_px"] == [40.0, 120.0]
    assert Some.of({**plain, "format": "test"}) == card
    assert Some.of({name: plain[name] for name in ("class_map", "grain_px")}).line_px == 0
    with pytest.raises(TypeError, match="grain_px"):
        Some.of({"class_map": plain["class_map"]})
