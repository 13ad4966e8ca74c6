"""Speed of confusion counting beside torchmetrics: same masks, same run, one thread, best of many."""

from timeit import repeat

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from micro_lib.analysis.metrics import confusion, score_boundaries

AIM = 2.5  # times torchmetrics' speed


@pytest.mark.parametrize("n_classes", [2, 19])
@pytest.mark.parametrize("texture", ["blocks", "noise"])
def test_confusion_counting(benchmark, n_classes, texture):
    rng = np.random.default_rng(0)
    shape = (1024, 1024)
    if texture == "noise":
        true, pred = rng.integers(0, n_classes, (2, *shape), dtype=np.uint8)
    else:  # like a mask: neighbours agree
        true = np.kron(rng.integers(0, n_classes, (32, 32), dtype=np.uint8), np.ones((32, 32), np.uint8))
        pred = np.roll(true, 3, 0)
    # What suits torchmetrics best: ids as int64 and no validation (ours does check its ids).
    true_long, pred_long = torch.as_tensor(true).long(), torch.as_tensor(pred).long()

    def theirs():
        return multiclass_confusion_matrix(pred_long, true_long, n_classes, validate_args=False)

    np.testing.assert_array_equal(confusion(true, pred, n_classes), theirs().numpy())
    benchmark(confusion, true, pred, n_classes)
    seconds = {
        "torchmetrics": min(repeat(theirs, number=1, repeat=20)),
        "ours": min(repeat(lambda: confusion(true, pred, n_classes), number=1, repeat=20)),
    }
    ratio = seconds["torchmetrics"] / seconds["ours"]
    benchmark.extra_info["times torchmetrics' speed"] = round(ratio, 1)
    print(f"{n_classes} classes, {texture}: {ratio:.1f} times torchmetrics' speed ({1e3 * seconds['ours']:.2f} ms)")
    assert ratio >= AIM


def test_scoring_a_tile(benchmark):
    rng = np.random.default_rng(0)
    mask = np.zeros((512, 512), np.uint8)
    for row, column in rng.integers(0, 512, (2, 12)).T:
        mask[row : row + 5] = mask[:, column : column + 5] = 1
    benchmark(score_boundaries, mask, np.roll(mask, 2, 0))
