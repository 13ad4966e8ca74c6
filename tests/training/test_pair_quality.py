"""Sampled pairs judged: real pairs pass, blurred, copied and mismatched ones are told."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from micro_lib.core.labels import ClassMap
from micro_lib.core.seeds import stream
from micro_lib.data.tiles import Labelled, histogram
from micro_lib.models.segmenter import Card, Segmenter
from micro_lib.training import pair_quality
from micro_lib.training.pair_quality import (
    agreement,
    code_nats,
    copied,
    evenly,
    judged,
    kept_classes,
    on_scale,
    segment_cut,
    windows,
)

CLASSES = ClassMap("two", ("a", "b"), {0: 0, 1: 1}, ("#000000", "#d55e00"))
PX = 32


def scene(seed, shape=(96, 96), cell=6):
    rng = stream(seed, "scene")
    mask = np.kron(rng.random((shape[0] // cell, shape[1] // cell)) < 0.3, np.ones((cell, cell))).astype(np.uint8)
    image = np.clip(80 + 70 * mask + rng.normal(0, 8, shape), 0, 255).astype(np.uint8)
    return Labelled(image, mask)


SCENES = [scene(i) for i in range(4)]
SPECIMENS = ["a", "a", "b", "c"]


class Bright(torch.nn.Module):
    """Calls class 1 what is brighter than the mean."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([-x, x], 1)


SEGMENTER = Segmenter(Bright(), Card("lite0", CLASSES, (0.0, 0.0)))


UNSEEN = [scene(50 + i) for i in range(3)]


def judge(pairs, micrographs=SCENES, specimens=SPECIMENS, unseen=UNSEEN):
    return judged(pairs, unseen, micrographs, specimens, 2, n_judged=24, rng=stream(0, "judged"))


class Smoothing:
    """A generator whose reconstructions are blurred."""

    def reconstruct(self, pairs, rng):
        return [Labelled(cv2.GaussianBlur(pair.image, (0, 0), 1.0), pair.mask) for pair in pairs]


def others(n, **options):
    return [on_scale(scene(100 + i, (PX + 4, PX + 4), **options)) for i in range(n)]


def cropped(pairs):
    return [Labelled(pair.image[:PX, :PX], pair.mask[:PX, :PX]) for pair in pairs]


def test_windows_cover_the_micrographs_and_know_their_specimen():
    found, of = windows(SCENES, SPECIMENS, PX)
    assert len(found) == 36 and of == ["a"] * 18 + ["b"] * 9 + ["c"] * 9
    assert all(window.image.shape == (PX, PX) for window in found)
    assert windows(SCENES, ["a"] * 4, PX)[1] is None


def test_the_scale_of_sampled_pairs_keeps_contrast_apart():
    dark = Labelled(SCENES[0].image // 2 + 20, SCENES[0].mask)
    assert np.abs(on_scale(dark).image.astype(int) - on_scale(SCENES[0]).image).mean() < 1.5
    assert on_scale(SCENES[0]).image.mean() == pytest.approx(127.5, abs=0.6)


def test_pairs_like_the_real_ones_pass():
    row = judge(cropped(others(24)))
    for name in ("pairs", "unseen"):
        assert row[f"{name}_compared"] == 24 and 0.2 < row[f"{name}_auc_mask"] < 0.8
        assert row[f"{name}_fraction_1"] == pytest.approx(1, abs=0.25)
        assert row[f"{name}_intercept_1"] == pytest.approx(1, abs=0.25)
        assert row[f"{name}_two-point_1_distance"] < 0.1
    assert not [key for key in row if key.endswith(("_low", "_high"))] and "pairs_grey_distance" not in row


def test_coarser_pairs_are_told():
    row = judge(cropped(others(24, cell=12)), unseen=[scene(60 + i, cell=12) for i in range(3)])
    for name in ("pairs", "unseen"):
        assert row[f"{name}_intercept_1"] > 1.3 and row[f"{name}_auc_mask"] > 0.8
        assert row[f"{name}_two-point_1_distance"] > 0.04


def test_items_lie_evenly_over_all():
    assert evenly("abcdefghi", 3) == ["a", "e", "i"] and evenly("abc", 9) == ["a", "b", "c"]


def test_copies_are_told_and_new_pairs_are_not():
    generator, unseen = Smoothing(), [scene(200 + i) for i in range(3)]
    options = {"n": 12, "rng": stream(0, "copies")}
    new = copied(generator, generator.reconstruct(cropped(others(12)), None), SCENES, unseen, **options)
    assert 0.3 < new["closer"] < 0.7 and new["seen_median"] < 0.5 * new["unseen_median"]
    assert [new[f"n_{name}"] for name in ("generated", "unseen", "seen")] == [12, 12, 12]
    same = [on_scale(SCENES[i % 4]) for i in range(12)]
    same = [Labelled(np.rot90(p.image[10 : 10 + PX, 20 : 20 + PX]).copy(), p.mask[:PX, :PX]) for p in same]
    found = copied(generator, generator.reconstruct(same, None), SCENES, unseen, **options)
    assert found["closer"] > 0.95 and found["generated_median"] == pytest.approx(found["seen_median"], abs=0.1)


def test_copies_of_parts_are_told():
    """Middles that were learned from, each in surroundings that were not."""
    generator, unseen = Smoothing(), [scene(200 + i) for i in range(3)]
    whole = [on_scale(scene(100 + i, (66, 66))) for i in range(12)]
    whole = [Labelled(pair.image[:64, :64], pair.mask[:64, :64]) for pair in whole]
    pasted, learned = (generator.reconstruct(pairs, None) for pairs in (whole, map(on_scale, SCENES)))
    for i, pair in enumerate(pasted):
        pair.image[16:48, 16:48] = learned[i % 4].image[5 * i : 5 * i + 32, 60 - 5 * i : 92 - 5 * i]
    found = copied(generator, pasted, SCENES, unseen, n=12, rng=stream(0, "copies"))
    assert found["quarter_copies"] > 6 > found["copies"] and found["quarter_closer"] > 0.9
    assert found["n_generated"] == found["quarter_n_generated"] == 12


class Steady:
    """A prior that gives the same logits whatever came before."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits)

    def eval(self):
        return self

    def __call__(self, codes, condition):
        return self.logits[None, :, None, None].expand(len(codes), -1, *codes.shape[1:])


@pytest.mark.parametrize("conditions", [None, torch.zeros(6, 1)])
def test_what_a_prior_expects_is_told_by_what_it_has_seen(conditions, monkeypatch):
    shown = {"seen": torch.tensor([0, 0, 0, 1]), "unseen": torch.tensor([1, 1, 1, 1])}

    def encoded(_generator, scenes, n, _seed):
        codes = shown["seen" if scenes[0].mask.any() else "unseen"].reshape(1, 2, 2).expand(n, -1, -1)
        return codes, torch.zeros(n, 1)

    monkeypatch.setattr(pair_quality, "encoded", encoded)
    generator = SimpleNamespace(prior=Steady([np.log(3.0), 0.0]), condition=lambda _fractions: conditions)
    nothing = Labelled(SCENES[0].image, SCENES[0].mask * 0)
    found = code_nats(generator, SCENES[:1], [nothing], n=6, seed=1)
    assert found["nats_seen"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-6)
    assert found["nats_unseen"] == pytest.approx(np.log(4), abs=1e-6)


def test_windows_of_one_specimen_count_as_specimens():
    alike, coarser = (judge(cropped(others(24, cell=cell)), SCENES[:1], ["a"])["pairs_auc_mask"] for cell in (6, 12))
    assert 0.2 < alike < 0.75 and coarser > 0.9


@pytest.mark.parametrize(("keep", "wanted"), [(32, 1.0), (16, 0.5), (0, 0.0)])
def test_a_class_that_codes_lose_is_told(keep, wanted):
    class Losing:
        card = SimpleNamespace(px=PX)

        def reconstruct(self, pairs, _rng):
            lost = np.arange(PX) >= keep  # columns in which class 1 does not come back
            return [pair._replace(mask=np.where(lost, 0, pair.mask).astype(np.uint8)) for pair in pairs]

    mask = np.tile(np.arange(96)[:, None] % 4 == 0, (1, 96)).astype(np.uint8)  # a quarter of every column
    found = kept_classes(Losing(), [Labelled(scene(0).image, mask)] * 2, 3)
    assert found["kept_1"] == pytest.approx(wanted) and np.isnan(found["kept_2"])
    assert found["kept_0"] == pytest.approx(0.75 / (1 - 0.25 * keep / PX))


def test_masks_that_belong_to_their_images_agree():
    pairs = cropped(others(6))
    fitting = agreement(pairs, SEGMENTER)
    assert fitting.shape == (6, 2, 2) and fitting.sum() == 6 * PX**2
    share = np.trace(fitting.sum(0)) / fitting.sum()
    strangers = [Labelled(a.image, b.mask) for a, b in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    mixed = agreement(strangers, SEGMENTER).sum(0)
    assert share > 0.99 > 0.8 > np.trace(mixed) / mixed.sum()


def test_sampled_images_are_standardised_together():
    bright, dark = np.full((PX, PX), 200, np.uint8), np.full((PX, PX), 50, np.uint8)
    levels = histogram([bright, dark])
    assert (segment_cut(SEGMENTER, bright, levels) == 1).all() and (segment_cut(SEGMENTER, dark, levels) == 0).all()
