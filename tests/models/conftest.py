"""What the tests of models share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible():
    """Every test draws the same random numbers."""
    torch.manual_seed(0)
