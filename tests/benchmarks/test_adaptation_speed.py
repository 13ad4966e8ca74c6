"""Cost of adaptation: the adversarial step beside its parts, DeepLabv2 in bfloat16."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from helpers.timing import seconds
from helpers.two_levels import micrographs

from micro_lib.data.framing import Framing
from micro_lib.models import deeplab, unet
from micro_lib.models.devices import float32_convolutions, has_bfloat16
from micro_lib.training.adaptation_loop import Draws, Recipe, learn_once
from micro_lib.training.adaptation_methods import Adversarial, Batch, Design, Student, Weights, frozen, terms
from micro_lib.training.supervised import LOSSES

ADVERSARIAL_TIMES, BFLOAT_TIMES, ROUNDS = 1.3, 1.7, 6


def student(network, framing, in_bfloat=True):
    autocast = partial(torch.autocast, "cpu", torch.bfloat16) if in_bfloat and has_bfloat16("cpu") else nullcontext
    return Student(network, LOSSES["cross_entropy+dice"], Weights(), framing.centre, autocast)


def test_adversarial_step_costs_its_passes_and_its_discriminators(benchmark):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    framing = Framing(1.0, 96, 16)
    recipe = Recipe("AdaptSegNet", 2, 10, 4, framing, 1e-3, 1, design=Design(16, 5e-4))
    network = unet.TwoLevels(unet.build("lite0", 2, "random")).to(memory_format=torch.channels_last).train()
    hooks = float32_convolutions(network) if has_bfloat16("cpu") else []
    watched, parts = student(network, framing), terms("AdaptSegNet", network, 2, recipe.weights, recipe.design)
    batch = Draws(micrographs(px=256), [], micrographs(px=256, seed=1), recipe)(0)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    found = watched.levels(batch.images)
    source = type(found)(*(logits.detach() for logits in found))

    def two_passes():
        for images in (batch.images, batch.target):
            optimizer.zero_grad()
            watched.supervised(watched.levels(images), batch.masks).backward()

    def discriminators():
        term: Adversarial = parts[0]
        for logits, judge in zip(source, term.discriminators, strict=True):
            shown = logits.softmax(1).requires_grad_()
            with frozen(judge):
                judge(shown).mean().backward()  # as the segmenter's loss goes through them
        term.target = [logits.softmax(1) for logits in source]
        term.learn(source)

    def whole():
        learn_once(watched, parts, batch, optimizer)

    steps = {"whole": whole, "passes": two_passes, "discriminators": discriminators}
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(seconds(step))
    benchmark.pedantic(whole, rounds=1)
    for hook in hooks:
        hook.remove()
    best = {name: min(values) for name, values in times.items()}
    ratio = best["whole"] / (best["passes"] + best["discriminators"])
    benchmark.extra_info.update({f"{name}_ms": 1e3 * value for name, value in best.items()}, ratio=ratio)
    print(", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in best.items()), f"ratio {ratio:.2f}")
    assert ratio <= ADVERSARIAL_TIMES


def test_deeplab_is_faster_in_bfloat16_on_the_same_trajectory(benchmark):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    if not has_bfloat16("cpu"):
        pytest.skip("this processor does not compute in bfloat16")
    framing, n = Framing(1.0, 96, 16), 2
    seen = Batch(torch.randn(n, 1, 128, 128), (torch.rand(n, 128, 128) > 0.5).long(), torch.randn(n, 1, 128, 128))
    states, losses, times = deeplab.build(2, "random").state_dict(), {}, {}
    runs = {}
    for name in ("float32", "bfloat16"):
        network = deeplab.build(2, "random")
        network.load_state_dict(states)
        if name == "bfloat16":
            network.to(memory_format=torch.channels_last)
        watched = student(network.train(), framing, name == "bfloat16")
        optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)  # higher ones explode without ImageNet
        runs[name] = partial(learn_once, watched, terms("none", network, 2, Weights(), Design()), seen, optimizer)
        losses[name], times[name] = [], []
    for _ in range(4):
        for name, step in runs.items():
            times[name].append(seconds(lambda s=step, n=name: losses[n].append(s()["loss"])))
    benchmark.pedantic(runs["bfloat16"], rounds=1)
    ratio = min(times["float32"]) / min(times["bfloat16"])
    apart = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    benchmark.extra_info.update(ratio=ratio, losses=losses, largest_difference=apart)
    print(f"float32 {min(times['float32']):.2f} s, bfloat16 {min(times['bfloat16']):.2f} s a step: {ratio:.2f} times")
    print(f"losses {losses}")
    assert apart < 0.05 * losses["float32"][0], "bfloat16 goes another way"
    assert ratio >= BFLOAT_TIMES
