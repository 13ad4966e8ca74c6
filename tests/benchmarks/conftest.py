"""What all measurements of speed share."""

import cv2
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """OpenCV and torch compute in one thread, torch with the same random numbers."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])
