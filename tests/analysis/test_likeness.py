"""Copies are found in any orientation, the two-sample test tells what it should, masks are held to their images."""

import cv2
import numpy as np
import pytest
from helpers.blobs import Pair, blobs
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

from micro_lib.analysis import likeness
from micro_lib.analysis.likeness import FEATURES, consistency, copy_distance, copying, two_sample_test
from micro_lib.analysis.metrics import present_class_miou
from micro_lib.analysis.phases import cut

CLASSES = ("matrix", "blob")
SYMMETRIES = [(flip, turns) for flip in (False, True) for turns in range(4)]


def turned(image, flip, turns):
    return np.rot90(image[:, ::-1] if flip else image, turns)


def smooth(seed, shape):
    field = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), 2.0)
    return (128 + 200 * field).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sets():
    """Two sets of the same kind, 24 pairs each, and specimens of the first, two pairs each."""
    real, generated = ([blobs(seed, side_px=48) for seed in range(first, first + 24)] for first in (0, 100))
    return real, generated, [i // 2 for i in range(24)]


# --- copies ---
@pytest.mark.parametrize(("flip", "turns"), SYMMETRIES)
def test_a_copy_in_any_orientation_brightness_and_place_is_found(flip, turns):
    micrographs = [smooth(seed, (70, 90)) for seed in range(3)]
    copy = turned(micrographs[1][23:55, 51:83], flip, turns)
    changed = (0.4 * copy.astype(float) + 60).round().astype(np.uint8)
    found = copy_distance([copy, changed, smooth(9, (32, 32))], micrographs)
    assert found[0] == pytest.approx(0, abs=5e-3)  # single precision
    assert found[1] < 0.05  # rounded to other grey levels
    assert found[2] > 0.5


def slow_distance(image, micrographs):
    def standard(a):
        return (a - a.mean()) / a.std()

    h, w = image.shape
    found = [
        np.sqrt(((standard(image) - standard(turned(one, *symmetry)[y : y + h, x : x + w])) ** 2).mean())
        for one in micrographs
        for symmetry in SYMMETRIES
        for y in range(turned(one, *symmetry).shape[0] - h + 1)
        for x in range(turned(one, *symmetry).shape[1] - w + 1)
    ]
    return min(found)


def test_copy_distance_equals_all_windows_compared_one_by_one():
    micrographs = [smooth(seed, shape).astype(float) for seed, shape in ((1, (20, 17)), (2, (18, 25)))]
    images = [smooth(5, (9, 9)), smooth(6, (9, 9))]
    expected = [slow_distance(image.astype(float), micrographs) for image in images]
    assert_allclose(copy_distance(images, micrographs), expected, rtol=1e-4)
    wide = smooth(7, (6, 11))
    assert_allclose(copy_distance([wide], micrographs), slow_distance(wide.astype(float), micrographs), rtol=1e-4)


def test_nothing_in_common_is_far_and_one_grey_is_no_image():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 64, 64)).astype(np.uint8)
    assert 1.2 < copy_distance(noise[:1], noise[1:])[0] <= np.sqrt(2)
    flat = np.full((8, 8), 3, np.uint8)
    assert np.isnan(copy_distance([flat], noise)).all()
    half = np.where(np.arange(64) < 32, 7, noise[0]).astype(np.uint8)  # its flat windows are like nothing
    assert copy_distance([noise[0][:16, 40:56]], [half])[0] == pytest.approx(0, abs=5e-3)
    assert copy_distance([], noise).shape == (0,)
    with pytest.raises(ValueError, match=r"windows of \(8, 70\) px need"):
        copy_distance([np.zeros((8, 70))], noise)
    with pytest.raises(ValueError, match=r"must have one size, found \[\(8, 8\), \(16, 16\)\]"):
        copy_distance([flat, noise[0][:16, :16]], noise)
    with pytest.raises(ValueError, match="need one micrograph or more"):
        copy_distance([flat], [])


def blurred(pairs):
    return [pair._replace(image=cv2.GaussianBlur(pair.image, (0, 0), 1.5)) for pair in pairs]


def drawn(first, n=8, side_px=32):
    return [blobs(seed, side_px=side_px) for seed in range(first, first + n)]


def test_images_drawn_as_unseen_ones_are_no_closer_whatever_they_lack():
    found = {"sharp": [], "blurred": [], "blurred against sharp": []}
    for first in range(0, 160, 8):
        training, fresh, unseen = drawn(1000 + first, 4, 96), drawn(2000 + first), drawn(3000 + first)
        seen = cut(training, 32)[::5]
        found["sharp"].append(copying(fresh, training, unseen, seen)["closer"])
        found["blurred"].append(copying(blurred(fresh), training, blurred(unseen), seen)["closer"])
        found["blurred against sharp"].append(copying(blurred(fresh), training, unseen, seen)["closer"])
    means = {name: np.mean(values) for name, values in found.items()}
    assert means["sharp"] == pytest.approx(0.5, abs=0.1) and means["blurred"] == pytest.approx(0.5, abs=0.1)
    assert means["blurred against sharp"] > 0.6, "why both have to have gone through the same decoder"


def test_copies_are_told_whatever_they_lack():
    training, unseen = drawn(0, 4, 96), drawn(50)
    windows = cut(training, 32)
    copies = [Pair(np.rot90(pair.image), np.rot90(pair.mask)) for pair in windows[::5]]
    row = copying(copies, training, unseen, windows[::7])
    assert row["closer"] == 1 and row["generated_median"] == pytest.approx(row["seen_median"], abs=5e-3)
    assert row["generated_lowest"] == pytest.approx(0, abs=5e-3) and 0.5 < row["unseen_median"] < np.sqrt(2)
    assert [row[f"n_{name}"] for name in ("generated", "unseen", "seen")] == [8, 8, 6]
    row = copying(blurred(copies), training, blurred(unseen), blurred(windows[::7]))
    assert row["closer"] > 0.9 and row["generated_median"] < 0.9 * row["unseen_median"]
    assert row["copies"] == 8 and copying(drawn(60), training, unseen, windows[::7])["copies"] == 0
    mixed = copying([*drawn(60), *copies], training, unseen, windows[::7])
    assert mixed["copies"] == 8
    few = copying([*drawn(60, 14), *copies[:2]], training, unseen, windows[::7])
    assert few["copies"] == 2 and few["closer"] < 0.75, "medians and the mean rank would not tell"
    assert 0.6 < mixed["closer"] < 0.9 and mixed["generated_lowest"] == pytest.approx(0, abs=5e-3)


def test_flat_images_are_left_out():
    training, fresh = drawn(0, 2, 96), drawn(9, 1)
    flat = fresh[0]._replace(image=np.full((32, 32), 9, np.uint8))
    assert copying([*fresh, flat], training, fresh, fresh)["n_generated"] == 1
    with pytest.raises(ValueError, match="1 unseen images, none of them with more than one grey"):
        copying(fresh, training, [flat], fresh)


# --- the two-sample test ---
def auc(real, generated, specimens=None, seed=0, **options):
    options = {"n_boot": 300} | options
    return two_sample_test(real, generated, CLASSES, rng=np.random.default_rng(seed), specimens=specimens, **options)


@pytest.mark.parametrize("features", FEATURES)
def test_a_set_cannot_be_told_from_itself(sets, features):
    real, _, specimens = sets
    found = auc(real, real, specimens, features=features)
    assert [*found] == [0.5, 0.5, 0.5]
    assert found.n == 12 and found.n_values == 48


@pytest.mark.parametrize("features", FEATURES)
def test_sets_of_one_kind_are_hardly_told_apart(features):
    pairs = [blobs(seed, side_px=32) for seed in range(4 * 48)]
    draws = [pairs[48 * i : 48 * (i + 1)] for i in range(4)]
    found = [auc(one[:24], one[24:], [i // 2 for i in range(24)], features=features) for one in draws]
    assert np.mean([one.estimate for one in found]) == pytest.approx(0.5, abs=0.12)
    assert all(one.low < 0.5 < one.high for one in found)


def test_each_kind_of_features_sees_its_own(sets):
    real, generated, specimens = sets
    blurred = [pair._replace(image=cv2.GaussianBlur(pair.image, (0, 0), 0.8)) for pair in generated]
    by = {features: auc(real, blurred, specimens, features=features) for features in FEATURES}
    assert by["image"].low > 0.95 and by["both"].low > 0.95
    assert by["mask"] == auc(real, generated, specimens, features="mask")
    coarse = [pair._replace(mask=blobs(i, side_px=48, scale_px=6.0).mask) for i, pair in enumerate(generated)]
    by = {features: auc(real, coarse, specimens, features=features) for features in FEATURES}
    assert by["mask"].low > 0.9 and by["both"].low > 0.9
    assert by["image"] == auc(real, generated, specimens, features="image")
    # Masks and images are right, each for itself, but do not belong together.
    swapped = [a._replace(mask=b.mask) for a, b in zip(generated, generated[1:] + generated[:1], strict=True)]
    assert auc(real, swapped, specimens, features="both").low > 0.9


def test_brightness_and_contrast_do_not_give_a_set_away(sets):
    _, generated, specimens = sets
    even = [pair._replace(image=pair.image // 2 * 2) for pair in generated]
    dim = [pair._replace(image=pair.image // 2 + np.uint8(20)) for pair in generated]
    assert auc(even, dim, specimens, features="both").estimate < 0.65


def test_the_area_is_that_of_scikit_learn_in_each_fold(sets, monkeypatch):
    real, generated, specimens = sets
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 9, 48) / 9, np.repeat([0, 1], 24)  # with ties
    fold = np.concatenate([np.repeat(rng.integers(0, 3, 12), 2), rng.integers(0, 3, 24)])
    scores += 10 * fold  # scores of another model are no rivals
    monkeypatch.setattr(likeness, "_cross_validated", lambda *_: (scores, fold))
    found = auc(real, generated, specimens, n_boot=2000)

    def by_fold(chosen):
        parts = [chosen[fold[chosen] == i] for i in range(3)]
        parts = [part for part in parts if len(set(truth[part])) == 2]
        sizes = [(truth[part] == 0).sum() * (truth[part] == 1).sum() for part in parts]
        return np.average([roc_auc_score(truth[part], scores[part]) for part in parts], weights=sizes)

    assert found.estimate == pytest.approx(by_fold(np.arange(48)))
    # Resamples by hand, and the interval stretched by 3/2 for five folds that share their training pairs.
    rng, drawn = np.random.default_rng(1), []
    for _ in range(800):
        specimen, pair = rng.integers(12, size=12), rng.integers(24, 48, size=24)
        drawn.append(by_fold(np.array([*np.stack([2 * specimen, 2 * specimen + 1], 1).ravel(), *pair])))
    ends = found.estimate + 1.5 * (np.quantile(drawn, [0.025, 0.975]) - found.estimate)
    np.testing.assert_allclose([found.low, found.high], ends, atol=0.06)  # 800 resamples
    wider = auc(real, generated, [i // 4 for i in range(24)], n_boot=2000, level=0.99)
    assert wider.high - wider.low > found.high - found.low


def test_of_few_specimens_there_is_no_interval(sets):
    real, generated, _ = sets
    for n, each in ((4, 6), (2, 12)):
        found = auc(real, generated, [i // each for i in range(24)])
        assert found.n == n and 0.2 < found.estimate < 0.8 and np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize("n_specimens", [2, 4])
def test_sets_of_one_kind_have_an_area_of_a_half_on_average(n_specimens):
    """Also where the folds are as few as the specimens."""
    pairs = [blobs(seed, side_px=32) for seed in range(16 * 32)]
    draws = [pairs[32 * i : 32 * (i + 1)] for i in range(16)]
    found = [auc(one[:16], one[16:], [i * n_specimens // 16 for i in range(16)]).estimate for one in draws]
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / 4) and np.std(found) / 4 < 0.06


def test_no_specimen_is_parted_and_twins_stay_together():
    columns = np.array([[0.0], [1.0], [2.0], [1.0], [7.0], [7.0], [np.nan]])
    groups = likeness._groups(columns, ["a", "b", "a"])
    assert_array_equal(groups, [0, 1, 0, 1, 2, 3, 4])  # the twin of the second real pair is in its group


def test_what_a_specimen_looks_like_is_not_learned():
    """Every specimen has a spectrum of its own; only leaking specimens into the test could tell the sets apart."""
    kinds = [{"scale_px": 1.5 + 0.4 * i, "noise": 1.0 + i} for i in range(8)]
    real = [blobs(10 * i + j, side_px=48, **kind) for i, kind in enumerate(kinds) for j in range(4)]
    other = [{"scale_px": 1.7 + 0.4 * i, "noise": 1.5 + i} for i in range(8)]
    generated = [blobs(500 + 10 * i + j, side_px=48, **kind) for i, kind in enumerate(other) for j in range(4)]
    found = auc(real, generated, [i // 4 for i in range(32)])
    assert found.estimate < 0.65


def test_the_same_seed_gives_the_same_area_and_faults_are_named(sets):
    real, generated, specimens = sets
    assert auc(real, generated, specimens) == auc(real, generated, specimens)
    with pytest.raises(ValueError, match="1 specimens and 24 generated pairs; two of each"):
        auc(real, generated, ["a"] * 24)
    with pytest.raises(ValueError, match="features is 'pixels'; there are mask, image, both"):
        auc(real, generated, specimens, features="pixels")
    with pytest.raises(ValueError, match="one size"):
        auc(real, cut(generated, 24), specimens)


def test_absent_classes_and_flat_images_do_no_harm(sets):
    real, generated, specimens = sets
    empty = [pair._replace(mask=np.zeros_like(pair.mask)) for pair in generated]
    assert auc(real, empty, specimens).estimate > 0.95
    flat = [pair._replace(image=np.full_like(pair.image, 100)) for pair in generated]
    assert auc(real, flat, specimens).estimate > 0.95


# --- consistency ---
def test_masks_are_held_to_what_a_segmenter_sees():
    pairs = [blobs(seed, side_px=48, noise=2.0) for seed in range(4)]
    right = consistency(pairs, lambda image: (image < 105).astype(np.uint8), 2)
    assert right.shape == (4, 2, 2) and (right.sum((1, 2)) == 48 * 48).all()
    assert (present_class_miou(right) == 1).all()
    swapped = [a._replace(mask=b.mask) for a, b in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    assert (present_class_miou(consistency(swapped, lambda image: image < 105, 2)) < 0.6).all()
    rows = consistency(pairs[:1], lambda image: np.ones(image.shape, np.uint8), 2)[0].sum(1)
    assert_array_equal(rows, np.bincount(pairs[0].mask.ravel()))  # rows are classes of the mask
    assert consistency([], lambda image: image, 3).shape == (0, 3, 3)
    with pytest.raises(ValueError, match=r"predicted mask: class ids must lie in 0\.\.1"):
        consistency(pairs, lambda image: image, 2)
