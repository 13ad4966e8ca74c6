"""Pre-training of encoders: the auxiliary head is the published one, a killed run ends as an uninterrupted one."""

import numpy as np
import pytest
import torch
from helpers.killing import killed
from torch import nn

from micro_lib.core.hashes import arrays_sha256
from micro_lib.core.seeds import stream
from micro_lib.data.in_domain import Labels
from micro_lib.models import carded, encoders, unet
from micro_lib.training import pretraining
from micro_lib.training.checkpoints import CheckpointMismatch
from micro_lib.training.pretraining import Classifier, Pictures, classifier, judged, pretrained, train
from micro_lib.training.rounds import Schedule
from micro_lib.training.supervised import TrainingDiverged

SCHEDULE = Schedule(12, 8, 1e-2, 3)
PLAN = {"n": 10, "px": 32, "schedule": (2, 2, 1e-3, 2)}


def pictures(n=40, px=16, seed=0):
    """Stripes across or along, in noise: two classes."""
    rng = stream(seed, "stripes")
    kind = np.arange(n) % 2
    stripes = np.where(np.arange(px) // 2 % 2, 60.0, 0.0)
    images = np.stack([np.broadcast_to(stripes[:, None] if k else stripes, (px, px)) for k in kind])
    images = np.clip(90 + images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    return Labels(images, np.eye(2, dtype=np.float32)[kind], ("along", "across"))


class Small(nn.Module):
    """An encoder with smp's interface: a list of features, the last the deepest."""

    out_channels = (1, 8)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        return [images, self.layers(images)]


def small(n_targets=2):
    torch.manual_seed(2)
    return Classifier(Small(), n_targets)


def fitted(folder, network=None, **changes):
    options = {"training": pictures(), "held_out": pictures(20, seed=1), "schedule": SCHEDULE, "seed": 5} | changes
    network = network or small()
    parts = [options.pop(name) for name in ("training", "held_out", "schedule")]
    return network, train(network, *parts, checkpoint=folder / "run.pt", **options)


def test_the_head_is_the_published_one():
    network = classifier("lite0", "random", 5, 1)
    kinds = [type(module) for module in network.head]
    assert kinds[0] is nn.AdaptiveAvgPool2d and nn.Linear in kinds and nn.Dropout in kinds
    assert next(m for m in network.head if isinstance(m, nn.Dropout)).p == 0.5
    linear = next(m for m in network.head if isinstance(m, nn.Linear))
    assert (linear.in_features, linear.out_features) == (network.encoder.out_channels[-1], 5)
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 5)


def test_a_training_learns_and_keeps_its_best_round(tmp_path):
    network, history = fitted(tmp_path, schedule=Schedule(90, 8, 1e-2, 3))
    assert list(history) == list(pretraining.HISTORY) and history["steps"].tolist() == [30, 30, 30]
    assert (
        history["best"].sum() == 1
        and history["held_out_loss"][history["best"]].item() == history["held_out_loss"].min()
    )
    loss, score = judged(network, pictures(20, seed=1))
    assert loss == pytest.approx(history["held_out_loss"].min(), abs=1e-5) and score > 0.9
    assert not (tmp_path / "run.pt").exists()


def test_same_seed_same_encoder_and_another_seed_another(tmp_path):
    one, again, other = (fitted(tmp_path, seed=seed)[0].encoder.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("finished", [1, 2])
def test_a_killed_training_goes_on(tmp_path, finished):
    whole, history = fitted(tmp_path / "whole")
    with killed(finished):
        fitted(tmp_path)
    assert (tmp_path / "run.pt").exists()
    resumed, longer = fitted(tmp_path)
    columns = ["round", "loss", "held_out_loss", "best"]
    assert longer[columns].equals(history[columns])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    with killed():
        fitted(tmp_path)
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        fitted(tmp_path, training=pictures(seed=9))


def test_a_training_that_diverges_says_so(tmp_path):
    with pytest.raises(TrainingDiverged, match="the loss became nan in round 1; lower the learning rate"):
        broken = pictures()
        fitted(tmp_path, training=broken._replace(targets=np.full_like(broken.targets, np.nan)))


def test_batches_are_functions_of_seed_round_and_number():
    one, again = (Pictures(pictures(), SCHEDULE, 1) for _ in range(2))
    assert len(one) == 4 and torch.equal(one[2][0], again[2][0])
    again.epoch = 1
    assert not torch.equal(one[2][0], again[2][0])
    images, targets = one[0]
    assert images.shape == (8, 1, 16, 16) and targets.shape == (8, 2)
    torch.testing.assert_close(images.mean((1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    with pytest.raises(IndexError):
        one[4]


class Saying(nn.Module):
    """Says the same of every picture."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_scores_by_hand():
    labels = pictures(10)
    loss, score = judged(Saying([2.0, -2.0]), labels)
    right = np.log1p(np.exp(-2))
    assert score == pytest.approx(0.5) and loss == pytest.approx((right + right + 2) / 2, rel=1e-5)
    ranks = labels._replace(targets=np.linspace(0.05, 0.95, 10, dtype=np.float32)[:, None])
    assert not ranks.are_classes
    assert judged(Saying([0.0]), ranks)[1] == pytest.approx(0, abs=1e-5), "the mean explains nothing"
    assert judged(Saying([2.0]), ranks)[1] < 0


def test_an_encoder_is_made_once_and_reaches_the_u_net(tmp_path, monkeypatch):
    made = []
    real = pretraining.train
    monkeypatch.setattr(pretraining, "train", lambda *a, **k: made.append(1) or real(*a, **k))
    options = {"architecture": "lite0", "weights": "random", "task": "scenarios", "plan": PLAN, "seed": 1}
    paths = [pretrained(tmp_path / name, **options)[0] for name in ("a", "b")]
    assert len(made) == 1 and same(*paths)
    card = encoders.load(paths[0], "lite0", unet.encoder_of(unet.build("lite0", weights="random")))
    assert (card["task"], card["weights"], card["pictures"], card["classes"]) == ("scenarios", "random", 8, True)
    start = unet.encoder_of(unet.build("lite0", weights="random")).state_dict()
    trained = unet.encoder_of(unet.build("lite0", weights=paths[0])).state_dict()
    assert any(not torch.equal(start[name], trained[name]) for name in start)
    other, _ = pretrained(tmp_path / "c", **{**options, "seed": 2})
    assert len(made) == 2 and not same(other, paths[0])


def test_the_card_tells_pictures_of_your_own_apart(tmp_path, monkeypatch):
    cards = []
    for seed in (0, 1):
        labels = pictures(10, 32, seed)
        monkeypatch.setattr(pretraining, "collection", lambda *_, labels=labels: labels)
        options = {"architecture": "lite0", "weights": "random", "task": "folder", "plan": PLAN, "seed": 1}
        cards.append(pretrained(tmp_path, **options)[1])
        assert cards[-1]["pictures_sha256"] == arrays_sha256([labels.images, labels.targets])
        assert cards[-1]["pictures"] == 8
    assert cards[0]["pictures_sha256"] != cards[1]["pictures_sha256"]


def same(one, other):
    """Whether two files hold the same card and tensors; their bytes may differ in the order of the header."""
    with carded.opened(one, "an encoder", "") as (card, tensors), carded.opened(other, "", "") as (others_card, others):
        pass
    return card == others_card and all(torch.equal(tensors[name], others[name]) for name in tensors)
