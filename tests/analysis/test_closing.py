"""Closed boundary networks: what parts two grains stays, what ends inside one goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micro_lib.analysis.closing import close_boundaries
from micro_lib.analysis.grain_size import grains_from_boundaries
from micro_lib.synthesis.distributions import Constant
from micro_lib.synthesis.grains import render
from micro_lib.synthesis.presets import preset


def lines(**drawn):
    """A probability of 0 with whole or partial rows at 0.9."""
    probability = np.zeros((80, 96), np.float32)
    for row, columns in drawn.items():
        probability[int(row[1:]), slice(*columns)] = 0.9
    return probability


def test_a_line_right_across_stays_and_a_loose_end_goes():
    closed = close_boundaries(lines(r50=(None,), r20=(0, 60)), 1)
    assert closed[49:52].any(0).all(), "the boundary that parts two grains has a gap"
    assert not closed[10:35].any(), "a line that ends inside a grain is left"


def test_a_short_gap_is_closed():
    probability = lines(r40=(None,))
    probability[40, 46:49] = 0
    assert close_boundaries(probability, 1)[39:42].any(0).all()


@pytest.mark.parametrize(("height", "kept"), [(0.1, False), (0.5, True)])  # of a line 1 px wide a third is left
def test_lines_lower_than_the_depth_merge_their_grains(height, kept):
    probability = np.zeros((64, 64), np.float32)
    probability[32] = height
    assert close_boundaries(probability, 1, smoothing_px=0.5).any() == kept


def test_no_boundary_gives_an_empty_mask():
    assert not close_boundaries(np.zeros((30, 40)), 5).any()


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_lines_have_the_width_asked_for(width):
    closed = close_boundaries(lines(r40=(None,)), width)
    assert (closed[:, 20:70].sum(0) == width).all()


@given(seed=st.integers(0, 50))
@settings(max_examples=6)
def test_the_true_mask_is_a_fixed_point(seed):
    space = preset("trampert").replace(
        height_px=Constant(160),
        width_px=Constant(200),
        grain_diameter_px=Constant(50.0),
        boundary_width_px=Constant(4.0),
    )
    made = render(space.sample(1, seed).to_dict("records")[0])
    again = grains_from_boundaries(close_boundaries(made.mask.astype(float), 4))
    assert abs(again.max() - grains_from_boundaries(made.mask).max()) <= 0.15 * made.labels.max() + 1


def test_mirroring_commutes():
    rng = np.random.default_rng(1)
    probability = lines(r50=(None,), r20=(None,)) * rng.uniform(0.8, 1, (80, 96)).astype(np.float32)
    straight, mirrored = close_boundaries(probability, 3), close_boundaries(probability[:, ::-1], 3)[:, ::-1]
    assert np.mean(straight != mirrored) < 0.02  # a watershed breaks ties in scan order


@pytest.mark.parametrize(
    ("probability", "options"),
    [
        (np.zeros((4, 4, 2)), {}),
        (np.full((4, 4), 1.5), {}),
        (np.full((4, 4), np.nan), {}),
        (np.zeros((4, 4)), {"width_px": 0}),
    ],
)
def test_bad_input_is_refused_with_words(probability, options):
    with pytest.raises(ValueError, match=r"within 0 to 1|must be at least 1"):
        close_boundaries(probability, **{"width_px": 3, **options})
