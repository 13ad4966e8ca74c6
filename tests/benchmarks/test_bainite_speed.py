"""Speed of lath-bainite micrographs of 512x512 px, one thread."""

import pytest

from micro_lib.synthesis.bainite import PIXEL_SIZE_UM, PREPARATIONS, domain, render


@pytest.mark.parametrize("name", PREPARATIONS)
def test_rendering(benchmark, name):
    side_um = 512 * PIXEL_SIZE_UM[name]
    row = domain(name, "test", seed=1, n_images=1, field_um=(side_um, side_um)).iloc[0].to_dict()
    assert benchmark(render, row).image.shape == (512, 512)
