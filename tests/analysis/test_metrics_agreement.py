"""Both mean IoUs against four libraries: what they agree on, and the settings without which they would not."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segmentation_models_pytorch.metrics import get_stats, iou_score
from sklearn.metrics import jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from micro_lib.analysis.metrics import confusion, iou_per_class, mean_iou, present_class_miou

N = 4
masks = arrays(np.uint8, (7, 9), elements=st.integers(0, N - 1))
stacks = st.lists(st.tuples(masks, masks), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def monai_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import monai.metrics

    return monai.metrics


def stray_pixel():
    """Return a true and a predicted mask (1, 67): three present classes at IoU 0.9, one stray pixel of a fourth."""
    counts = np.array([[18, 0, 0, 1], [0, 18, 1, 0], [1, 1, 27, 0], [0, 0, 0, 0]])
    true, pred = (np.repeat(ids, counts.ravel()) for ids in np.indices(counts.shape).reshape(2, -1))
    return true[None], pred[None]


def confusions(pairs):
    return np.stack([confusion(true, pred, N) for true, pred in pairs])


def one_hot(stack):
    return torch.nn.functional.one_hot(torch.as_tensor(np.stack(stack)).long(), N).movedim(-1, 1)


def of_monai(monai_metrics, pairs):
    """Return MONAI's IoU by image and class (B, C), NaN for classes absent from the truth."""
    true, pred = (one_hot(stack) for stack in zip(*pairs, strict=True))
    return monai_metrics.compute_iou(pred, true, include_background=True, ignore_empty=True).numpy()


def of_smp(pairs, reduction):
    true, pred = (torch.as_tensor(np.stack(stack)).long() for stack in zip(*pairs, strict=True))
    stats = get_stats(pred, true, mode="multiclass", num_classes=N)
    return np.asarray(iou_score(*stats, reduction=reduction, zero_division=np.nan))


def test_the_stray_pixel_costs_a_quarter_by_one_metric_and_nothing_by_the_other():
    true, pred = stray_pixel()
    cm, pair = confusion(true, pred, N), [(true, pred)]
    assert mean_iou(cm) == pytest.approx(0.675) and present_class_miou(cm) == pytest.approx(0.900)
    assert jaccard_score(true.ravel(), pred.ravel(), average="macro") == pytest.approx(0.675)
    assert of_smp(pair, "macro") == pytest.approx(0.675)
    torchmetric = MulticlassJaccardIndex(N, average="macro")
    assert float(torchmetric(torch.as_tensor(pred), torch.as_tensor(true))) == pytest.approx(0.675)


def test_the_stray_pixel_by_monai(monai_metrics):
    assert np.nanmean(of_monai(monai_metrics, [stray_pixel()])) == pytest.approx(0.900)


@given(masks, masks)
@settings(max_examples=40)
def test_mean_iou_equals_scikit_learn(true, pred):
    # Without `labels` it averages the classes found in truth or prediction, as we do.
    expected = jaccard_score(true.ravel(), pred.ravel(), average="macro")
    assert mean_iou(confusion(true, pred, N)) == pytest.approx(expected)


@given(stacks)
@settings(max_examples=30)
def test_mean_iou_equals_segmentation_models_image_by_image(pairs):
    theirs = of_smp(pairs, "none")  # (B, C), NaN for classes absent from both; by default they would count 1
    np.testing.assert_allclose(iou_per_class(confusions(pairs)), theirs, rtol=1e-6)
    np.testing.assert_allclose(mean_iou(confusions(pairs)), np.nanmean(theirs, axis=1), rtol=1e-6)


@given(stacks)
@settings(max_examples=30)
def test_pooled_mean_iou_equals_segmentation_models(pairs):
    for true, pred in pairs[:1]:
        true[0, :N] = pred[0, :N] = np.arange(N)  # every class is there: "macro" leaves none out
    assert mean_iou(confusions(pairs).sum(0)) == pytest.approx(float(of_smp(pairs, "macro")), rel=1e-6)


@given(pairs=stacks)
@settings(max_examples=30)
def test_present_class_miou_equals_monai_that_ignores_empty_classes(monai_metrics, pairs):
    cms = confusions(pairs)
    np.testing.assert_allclose(present_class_miou(cms), np.nanmean(of_monai(monai_metrics, pairs), axis=1), rtol=1e-6)
    metric = monai_metrics.MeanIoU(include_background=True, ignore_empty=True, reduction="mean")
    true, pred = (one_hot(stack) for stack in zip(*pairs, strict=True))
    metric(pred, true)
    assert present_class_miou(cms).mean() == pytest.approx(float(metric.aggregate()), rel=1e-5)  # mean over images


@given(pairs=stacks)
@settings(max_examples=30)
def test_monai_that_counts_empty_classes_is_neither(monai_metrics, pairs):
    """Classes absent from both count 1 there: equal to `mean_iou` only where none is absent from both."""
    true, pred = (one_hot(stack) for stack in zip(*pairs, strict=True))
    counted = monai_metrics.compute_iou(pred, true, include_background=True, ignore_empty=False).numpy()
    ours = iou_per_class(confusions(pairs))
    np.testing.assert_allclose(np.where(np.isnan(ours), 1, ours), counted, rtol=1e-6)
