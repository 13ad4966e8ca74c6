"""What all measurements of speed share: one thread, and a table to keep them in."""

from numbers import Real

import cv2
import pandas as pd
import pytest
import torch

from micro_lib.application.tables import tables_dir
from micro_lib.core.runs import merge_rows, provenance

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


def measured(report):
    """Return one row a quantity of every measurement in a report of pytest-benchmark: its best time, what it noted."""
    processor = report["machine_info"]["cpu"].get("brand_raw", "cpu")
    origin = {**provenance(profile="study", seed=0, device=processor), "measured": report["datetime"][:10]}
    rows = []
    for one in report["benchmarks"]:
        name = one["fullname"].removeprefix("tests/benchmarks/").replace(".py::", "::")
        found = {"best_ms": 1e3 * one["stats"]["min"], **one["extra_info"]}
        numbers = {key: value for key, value in found.items() if isinstance(value, Real)}
        rows += [{"benchmark": name, "quantity": key, "value": value, **origin} for key, value in numbers.items()]
    return pd.DataFrame(rows)


def pytest_benchmark_update_json(output_json):
    """Keep what was measured in figures/tables."""
    merge_rows(tables_dir() / TABLE, measured(output_json), ("benchmark", "quantity"))
