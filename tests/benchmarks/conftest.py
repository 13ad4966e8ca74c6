"""What all measurements of speed share: one thread, and a table to keep them in."""

import cv2
import pytest
import torch
from helpers.timing import measured

from micro_lib.application.tables import tables_dir
from micro_lib.core.runs import merge_rows

TABLE = "benchmarks.csv"


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


def pytest_benchmark_update_json(output_json):
    """Keep what was measured in figures/tables."""
    merge_rows(tables_dir() / TABLE, measured(output_json), ("benchmark", "quantity"))
