"""Joint transforms: geometry moves image and mask as one, tone leaves the mask alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from micro_lib.data import augment

GEOMETRIES = {
    "light": augment.light,
    "turned": augment.turned,
    "elastic": augment.elastic,
    "as_published": augment.as_published,
}


def blobs(side=96, seed=0):
    """An image whose grey levels are its mask, in smooth patches."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 3, (1, 1, 6, 6))).float()
    ids = torch.nn.functional.interpolate(coarse, (side, side), mode="nearest")[0, 0].to(torch.uint8)
    return tv_tensors.Image(ids[None] * 100), tv_tensors.Mask(ids)


@pytest.mark.parametrize("name", GEOMETRIES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_geometry_moves_image_and_mask_together(name, seed):
    image, mask = blobs(seed=seed % 7)
    torch.manual_seed(seed)
    moved, ids = GEOMETRIES[name](64)(image, mask)
    assert moved.shape == (1, 64, 64) and ids.shape == (64, 64)
    assert set(ids.unique().tolist()) <= {0, 1, 2}
    levels = (moved[0].float() / 100).round()
    assert (levels == ids).float().mean() > 0.85  # all but the interpolated edges between patches
    assert (levels.roll(12, 0) == ids).float().mean() < 0.85


def test_zoom_crop_at_scale_one_is_a_plain_window():
    image = tv_tensors.Image(torch.arange(40 * 50, dtype=torch.float32).view(1, 40, 50))
    window = augment.ZoomCrop(16, zoom=(1, 1), squish=1)(image)
    top, left = divmod(int(window[0, 0, 0]), 50)
    assert torch.equal(window, image[:, top : top + 16, left : left + 16])


def test_zoom_two_shows_half_the_field():
    image = tv_tensors.Image(torch.arange(64.0).repeat(64, 1)[None])
    window = augment.ZoomCrop(32, zoom=(2, 2), squish=1)(image)
    assert float(window.max() - window.min()) == pytest.approx(15.5, abs=1)


def test_zoom_crop_larger_than_the_image_takes_all_of_it():
    image, mask = blobs(20)
    window, ids = augment.ZoomCrop(64, zoom=(0.5, 0.5))(image, mask)
    assert window.shape == (1, 64, 64) and set(ids.unique().tolist()) == set(mask.unique().tolist())


def test_bending_is_smooth_and_moves_as_far_as_it_says():
    torch.manual_seed(0)
    rows, cols = (tv_tensors.Image(part[None]) for part in torch.meshgrid(*[torch.arange(100.0)] * 2, indexing="ij"))
    bend, shifts = augment.Bend(share=0.02), []
    for _ in range(40):
        moved = bend(torch.cat([rows, cols]).as_subclass(tv_tensors.Image))
        shifts.append(moved[:, 20:80, 20:80] - torch.cat([rows, cols])[:, 20:80, 20:80])
    shifts = torch.stack(shifts)  # (40, 2, 60, 60) px
    assert 1.0 < shifts.std() < 2.5 and abs(float(shifts.mean())) < 0.5  # 2 % of 100 px at nodes, less between them
    assert (shifts[..., 1:, :] - shifts[..., :-1, :]).abs().max() < 0.8  # at 1 it would fold
    still = tv_tensors.Image(torch.rand(1, 30, 30))
    torch.testing.assert_close(augment.Bend(share=0.0)(still), still, atol=1e-5, rtol=0)


def test_all_eight_orientations_occur():
    image = tv_tensors.Image(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    turn = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), augment.RandomTranspose()])
    torch.manual_seed(0)
    assert len({tuple(turn(image).flatten().tolist()) for _ in range(200)}) == 8


@given(radius=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_jitter_takes_neighbours_and_spares_the_mask(radius, seed):
    torch.manual_seed(seed)
    ramp = torch.arange(30 * 40, dtype=torch.float32).view(1, 30, 40)
    mask = tv_tensors.Mask(torch.randint(0, 2, (30, 40)))
    out, same = augment.Jitter(radius, 1.0)(tv_tensors.Image(ramp), mask)
    assert torch.equal(same, mask)
    rows, cols = out[0] // 40, out[0] % 40
    assert (rows - torch.arange(30)[:, None]).abs().max() <= radius
    assert (cols - torch.arange(40)).abs().max() <= radius


def test_noise_spares_the_mask_and_goes_both_ways():
    torch.manual_seed(1)
    mask = tv_tensors.Mask(torch.ones(50, 50, dtype=torch.uint8))
    out, same = augment.RandomNoise(1.0)(tv_tensors.Image(torch.zeros(1, 50, 50)), mask)
    assert torch.equal(same, mask) and out.min() < 0 < out.max()


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_tone_table_standardises_the_whole_micrograph(seed):
    torch.manual_seed(seed)
    image = torch.from_numpy(np.random.default_rng(seed).integers(30, 220, (40, 60)))
    table = augment.tone_table(torch.bincount(image.flatten(), minlength=256), augment.point_operations())
    values = table[image].double()
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert (torch.diff(table[30:220]) >= -1e-6).all()


def changes_of_tone(operations):
    """How far (rms) each of 60 tables is from plain standardisation, over a picture of mean 128 and spread 25."""
    torch.manual_seed(0)
    levels = np.random.default_rng(0).normal(128, 25, 4000).clip(0, 255).astype(int)
    histogram = torch.from_numpy(np.bincount(levels, minlength=256))
    plain = augment.tone_table(histogram, None)
    tables = torch.stack([augment.tone_table(histogram, operations) for _ in range(60)])
    return ((tables - plain)[:, levels].square().mean(1).sqrt()).numpy()


def test_the_change_of_tone_is_no_straight_line_which_standardising_would_undo():
    assert np.median(changes_of_tone(augment.point_operations())) > 0.02


def test_brightness_and_contrast_alone_are_taken_out_but_for_what_they_clip():
    changes = changes_of_tone(v2.ColorJitter(brightness=0.2, contrast=0.25))
    assert np.median(changes) < 1e-5 and np.quantile(changes, 0.9) < 0.02


def test_tone_table_without_operations_is_plain_standardisation():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 30)))
    table = augment.tone_table(torch.bincount(image.flatten(), minlength=256), None)
    expected = (image.double() - image.double().mean()) / image.double().std(correction=0)
    torch.testing.assert_close(table[image].double(), expected, atol=1e-5, rtol=0)


def test_a_constant_micrograph_becomes_zero():
    histogram = torch.zeros(256, dtype=torch.long)
    histogram[77] = 100
    assert float(augment.tone_table(histogram, None)[77]) == 0.0
    assert torch.isfinite(augment.tone_table(histogram, augment.point_operations())).all()
