"""Training: it learns, it resumes bit for bit, it freezes what it says, and it stops with words when it diverges."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.killing import killed
from torch import nn

from micro_lib.core.profiles import Stage, settings
from micro_lib.data.tiles import Labelled
from micro_lib.models import devices, unet
from micro_lib.training import supervised
from micro_lib.training.checkpoints import CheckpointMismatch
from micro_lib.training.supervised import Recipe, TrainingDiverged, train

SHORT = (Stage(32, 1, True), Stage(32, 2, False))


def cells(seed, side=64):
    """Voronoi cells with dark lines between them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    points = rng.uniform(0, side, (8, 2))
    near = np.sort(np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1]), axis=-1)
    mask = (near[..., 1] - near[..., 0] < 4).astype(np.uint8)
    grey = 180 - 120 * mask + rng.normal(0, 12, mask.shape)
    return Labelled(grey.clip(0, 255).astype(np.uint8), mask)


@pytest.fixture(scope="module")
def data():
    return [cells(i) for i in range(16)], [cells(100 + i) for i in range(4)]


def network(weights="random"):
    torch.manual_seed(3)
    return unet.build("lite0", weights=weights)


def recipe(stages=SHORT, **changes):
    return Recipe(**{"stages": stages, "batch": 4, "learning_rate": 3e-3, "seed": 7} | changes)


def weights_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    net = network()
    history = train(net, *data, recipe(), folder=tmp_path_factory.mktemp("whole"))
    return weights_of(net), history


def test_it_learns(data, tmp_path):
    net = network("imagenet")
    history = train(net, *data, recipe((Stage(64, 12, False),), loss="cross_entropy+dice"), folder=tmp_path)
    assert history["train_loss"].iloc[-1] < 0.6 * history["train_loss"].iloc[0]
    assert history["valid_miou"].max() > 0.75  # all grain is 0.40 here
    assert history["seconds"].gt(0).all() and history["train_per_s"].gt(0).all()
    assert history["loader_per_s"].gt(0).all() and history["waited"].between(0, 1).all()


def test_history_tells_every_epoch_and_the_best_of_the_last_stage(uninterrupted):
    _, history = uninterrupted
    assert history[["stage", "epoch"]].to_numpy().tolist() == [[0, 0], [1, 0], [1, 1]]
    assert history["frozen"].tolist() == [True, False, False] and history["steps"].eq(4).all()
    assert history["images"].eq(16).all() and history["best"].sum() == 1
    last = history[history["stage"] == 1]
    assert last.loc[last["valid_miou"].idxmax(), "best"]


def test_the_network_left_is_the_best_one(data, tmp_path, monkeypatch):
    # Validation that gets worse after the first epoch of the last stage: the kept weights are those of that epoch.
    scores = iter([0.9, 0.5, 0.3, 0.2])
    monkeypatch.setattr(supervised, "mean_iou", lambda matrix: next(scores))
    states = []
    plain = supervised._Run.save
    monkeypatch.setattr(supervised._Run, "save", lambda run, net: states.append(weights_of(net)) or plain(run, net))
    net = network()
    history = train(net, *data, recipe((Stage(32, 1, True), Stage(32, 3, False))), folder=tmp_path)
    assert history["best"].tolist() == [False, True, False, False]
    assert_equal_weights(weights_of(net), states[1])
    assert not all(torch.equal(states[1][name], states[3][name]) for name in states[1])


def test_training_twice_gives_the_same(data, uninterrupted, tmp_path):
    net = network()
    train(net, *data, recipe(), folder=tmp_path)
    assert_equal_weights(weights_of(net), uninterrupted[0])


def test_the_network_is_where_it_trains_before_an_optimiser_gets_its_state(data, tmp_path, monkeypatch):
    """An optimiser puts the moments of a checkpoint where the parameters are, and they never move again."""
    net, order = network(), []
    moved, restored = net.to, supervised._Run.restore
    monkeypatch.setattr(net, "to", lambda *a, **k: order.append(("to", *a)) or moved(*a, **k))
    monkeypatch.setattr(supervised._Run, "restore", lambda run, at: order.append(("restore",)) or restored(run, at))
    train(net, *data, recipe((Stage(32, 1, True),)), folder=tmp_path, device="cpu")
    assert order[:2] == [("to", "cpu"), ("restore",)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_stopped_run_goes_on_on_a_gpu(data, tmp_path):
    with killed(2):
        train(network(), *data, recipe(), folder=tmp_path, device="cuda")
    assert len(train(network(), *data, recipe(), folder=tmp_path, device="cuda")) == 3


@pytest.mark.parametrize("saves", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_end(saves, data, uninterrupted, tmp_path):
    with killed(saves):
        train(network(), *data, recipe(), folder=tmp_path)
    with pytest.raises(CheckpointMismatch, match="belongs to another training"):
        train(network("imagenet"), *data, recipe(), folder=tmp_path)  # another start ends elsewhere
    net = network()
    history = train(net, *data, recipe(), folder=tmp_path)
    assert_equal_weights(weights_of(net), uninterrupted[0])
    same = ["stage", "epoch", "train_loss", "valid_loss", "valid_miou", "best"]
    assert history[same].equals(uninterrupted[1][same])


KILLED = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from training import test_supervised as t
data = [t.cells(i) for i in range(16)], [t.cells(100 + i) for i in range(4)]
t.train(t.network(), *data, t.recipe(), folder={folder!r})
"""


def test_a_killed_process_leaves_a_run_that_goes_on(data, uninterrupted, tmp_path):
    tests = Path(__file__).resolve().parents[1]
    script = KILLED.format(root=str(tests.parent), tests=str(tests), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / supervised.CHECKPOINT).is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / supervised.CHECKPOINT).is_file()
    net = network()
    train(net, *data, recipe(), folder=tmp_path)
    # Another process may sum in another order, so near is enough here.
    for name, tensor in uninterrupted[0].items():
        torch.testing.assert_close(net.state_dict()[name], tensor, atol=1e-3, rtol=1e-2, msg=name)


def test_a_finished_run_is_not_trained_again(data, tmp_path, monkeypatch):
    first = train(network(), *data, recipe(), folder=tmp_path)
    monkeypatch.setattr(supervised, "learner", None)
    assert train(network(), *data, recipe(), folder=tmp_path).equals(first)


def test_a_damaged_checkpoint_is_reported_and_trained_afresh(data, uninterrupted, tmp_path):
    path = tmp_path / supervised.CHECKPOINT
    train(network(), *data, recipe(), folder=tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for broken in (bytes(content), bytes(content[:1000])):
        path.write_bytes(broken)
        net = network()
        with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged .*from the beginning"):
            train(net, *data, recipe(), folder=tmp_path)
        assert_equal_weights(weights_of(net), uninterrupted[0])


def test_the_checkpoint_of_another_recipe_is_refused(data, tmp_path):
    train(network(), *data, recipe((Stage(32, 1, True),)), folder=tmp_path)
    for other in (recipe(seed=8), recipe(SHORT), recipe((Stage(32, 1, True),), loss="cross_entropy+dice")):
        with pytest.raises(CheckpointMismatch, match=r"delete it or take another folder"):
            train(network(), *data, other, folder=tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"delete it or take another folder"):
        train(network(), [data[0][0], cells(50), *data[0][2:]], data[1], recipe((Stage(32, 1, True),)), folder=tmp_path)


def test_a_frozen_stage_keeps_the_encoder_but_not_its_batch_norm(data, tmp_path):
    net = network()
    before = weights_of(net)
    train(net, *data, recipe((Stage(32, 1, True),)), folder=tmp_path)
    after = weights_of(net)
    for name, module in net.encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            assert torch.equal(before[f"encoder.{name}.weight"], after[f"encoder.{name}.weight"]), name
    # fastai 1.0.51 trains batch normalisation in frozen groups too (train_bn=True).
    assert not torch.equal(before["encoder.model.bn1.weight"], after["encoder.model.bn1.weight"])
    assert not torch.equal(before["encoder.model.bn1.running_mean"], after["encoder.model.bn1.running_mean"])
    head = "segmentation_head.0.weight"
    assert not torch.equal(before[head], after[head])


def test_rates_are_a_tenth_in_the_encoder_and_follow_one_cycle(data, tmp_path, monkeypatch):
    rates, momenta = [], []

    class Watch(supervised._Epochs):
        def after_step(self):
            hypers = self.opt.hypers
            rates.append([h["lr"] for h in hypers])
            momenta.append(hypers[0]["mom"])

    monkeypatch.setattr(supervised, "_Epochs", Watch)
    train(network(), *data, recipe((Stage(32, 5, False),)), folder=tmp_path)
    encoder, decoder = np.array(rates).T
    np.testing.assert_allclose(encoder * 10, decoder)
    assert decoder[0] == pytest.approx(3e-3 / 25) and decoder.max() == pytest.approx(3e-3, rel=0.01)
    assert decoder.argmax() == 6 and decoder[-1] < 1e-4  # 30 % of 20 steps
    assert momenta[0] == pytest.approx(0.95) and min(momenta) == pytest.approx(0.85, abs=0.002)


def test_divergence_stops_with_a_clear_word_and_leaves_no_autocast(data, tmp_path):
    net = network()
    with pytest.raises(TrainingDiverged, match=r"^the loss became (nan|inf) in step \d of epoch 1 of stage 1"):
        train(net, *data, recipe((Stage(32, 2, False),), learning_rate=1e30), folder=tmp_path)
    assert not torch.is_autocast_enabled("cpu")
    fresh = network().eval()
    assert fresh(torch.zeros(1, 1, 32, 32)).dtype == torch.float32
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


@pytest.mark.skipif(not devices.has_bfloat16("cpu"), reason="this processor only imitates bfloat16")
def test_bfloat16_is_computed_in_and_its_gradients_point_the_same_way(data):
    dtypes, gradients = {}, {}
    for active in (True, False):
        net = network("imagenet")
        learn = supervised.learner(net, data, recipe(), Stage(64, 1, False))
        callback = learn.b_float16
        callback.before_fit()
        callback.active = active
        net.train()
        image, mask = learn.dls.train.dataset[0, 0]
        handles = [
            net.decoder.blocks[0].conv1[0].register_forward_hook(lambda m, i, o, a=active: dtypes.update({a: o.dtype}))
        ]
        learn.xb = (image[None].repeat(4, 1, 1, 1),)
        callback.before_batch()
        learn.pred = net(*learn.xb)
        callback.after_pred()
        learn.loss_func(learn.pred, mask[None].repeat(4, 1, 1)).backward()
        gradients[active] = torch.cat([p.grad.flatten() for p in net.decoder.parameters()])
        callback.after_fit()
        handles[0].remove()
        assert learn.pred.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    assert dtypes == {True: torch.bfloat16, False: torch.float32}
    assert torch.cosine_similarity(gradients[True], gradients[False], dim=0) > 0.95


def test_learning_rate_finder_suggests_and_restores(data, tmp_path):
    net = network("imagenet")
    learn = supervised.learner(net, data, recipe(), Stage(32, 1, False))
    learn.path = tmp_path
    before = weights_of(net)
    suggestion = learn.lr_find(num_it=40, show_plot=False)
    assert 1e-7 < suggestion.valley < 10
    assert_equal_weights(before, weights_of(net))


def test_dice_adds_to_cross_entropy():
    logits, mask = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 8, 8))
    entropy = supervised.LOSSES["cross_entropy"](logits, mask)
    both = supervised.LOSSES["cross_entropy+dice"](logits, mask)
    assert 0 < float(both - entropy) < 1
    perfect = 50.0 * torch.nn.functional.one_hot(mask, 2).permute(0, 3, 1, 2)
    assert float(supervised.LOSSES["cross_entropy+dice"](perfect, mask)) == pytest.approx(0, abs=1e-5)


def test_micrographs_that_cannot_be_trained_on_are_refused_before_anything_is_done(data, tmp_path):
    training, validation = data
    with pytest.raises(ValueError, match=r"^no training micrographs were given"):
        train(network(), [], validation, recipe(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"^no validation micrographs were given"):
        train(network(), training, [], recipe(), folder=tmp_path)
    cut = validation[0]._replace(mask=validation[0].mask[:-1])
    with pytest.raises(ValueError, match=r"^validation micrograph 1: the image has .* the mask"):
        train(network(), training, [validation[0], cut], recipe(), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_recipes_are_refused():
    with pytest.raises(ValueError, match="loss is 'mse'; there are cross_entropy"):
        recipe(loss="mse")
    with pytest.raises(ValueError, match="at least one stage"):
        recipe(())


def test_the_published_schedule():
    plan = settings("grains", "paper")
    # Trampert et al. 2021, section 3.2.2.
    assert (plan["n_train"], plan["n_validation"]) == (3200, 800)
    assert [tuple(stage) for stage in plan["stages"]] == [
        (128, 20, True, "resize"),
        (256, 10, True, "resize"),
        (512, 5, False, "resize"),
    ]
    assert plan["architecture"] == "dynamic_resnet50" and plan["loss"] == "cross_entropy" and len(plan["seeds"]) == 200
