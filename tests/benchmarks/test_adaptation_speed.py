"""Cost of adaptation: the adversarial step beside its parts, DeepLabv2 in bfloat16, memory of the paper networks."""

import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import thread_time

import psutil
import pytest
import torch
from helpers.two_levels import micrographs

from micro_lib.data.framing import Framing
from micro_lib.models import deeplab, unet
from micro_lib.training.adaptation_loop import Draws, Recipe, learn_once
from micro_lib.training.adaptation_methods import Adversarial, Batch, Design, Student, Weights, terms
from micro_lib.training.supervised import LOSSES, _float32_convolutions, has_bfloat16

ADVERSARIAL_TIMES, BFLOAT_TIMES, ROUNDS = 1.3, 1.7, 6
NEEDED_GB = {"vgg16": 8, "deeplabv2": 12}  # free memory for a step of one tile a domain
# Processor time of this one thread: what else runs on the machine counts little.


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def student(network, framing, in_bfloat=True):
    autocast = partial(torch.autocast, "cpu", torch.bfloat16) if in_bfloat and has_bfloat16("cpu") else nullcontext
    return Student(network, LOSSES["cross_entropy+dice"], Weights(), framing.centre, autocast)


def seconds(function):
    start = thread_time()
    function()
    return thread_time() - start


def test_adversarial_step_costs_its_passes_and_its_discriminators(benchmark):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    framing = Framing(1.0, 96, 16)
    recipe = Recipe("AdaptSegNet", 2, 10, 4, framing, 1e-3, 1, design=Design(16, 5e-4))
    network = unet.TwoLevels(unet.build("lite0", 2, "random")).to(memory_format=torch.channels_last).train()
    hooks = _float32_convolutions(network) if has_bfloat16("cpu") else []
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


ONE_STEP = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from test_adaptation_speed import paper_step
print(paper_step(sys.argv[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def paper_step(architecture):
    """Do one adversarial step of a published network on a published tile a domain; return its loss."""
    framing = Framing()
    made = deeplab.build if architecture == "deeplabv2" else partial(unet.build, architecture)
    network = made(2, weights="random")
    network = network if architecture == "deeplabv2" else unet.TwoLevels(network)
    network.to(memory_format=torch.channels_last).train()
    side = framing.side_px
    seen = Batch(torch.randn(1, 1, side, side), (torch.rand(1, side, side) > 0.5).long(), torch.randn(1, 1, side, side))
    parts = terms("AdaptSegNet", network, 2, Weights(), Design())
    return learn_once(student(network, framing), parts, seen, torch.optim.SGD(network.parameters(), 1e-4))["loss"]


@pytest.mark.parametrize("architecture", ["vgg16", "deeplabv2"])
def test_paper_networks_do_a_step_on_published_tiles(benchmark, architecture):
    if benchmark.disabled:
        pytest.skip("memory is measured by `make bench`")
    free_gb = psutil.virtual_memory().available / 1e9
    if free_gb < NEEDED_GB[architecture]:
        pytest.skip(f"{free_gb:.0f} GB of memory are free; {NEEDED_GB[architecture]} GB are wanted")
    here = Path(__file__).parent
    command = [sys.executable, "-W", "ignore", "-c", ONE_STEP, architecture, str(here), str(here.parent)]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=True)
    done = benchmark.pedantic(run, rounds=1)  # in a process of its own, whose peak is its
    loss, peak_gb = map(float, done.stdout.split())
    benchmark.extra_info.update(peak_gb=peak_gb)
    print(f"{architecture}: {peak_gb:.1f} GB for a step of one tile of 636 px a domain, loss {loss:.2f}")
    assert 0 < loss < 10 and peak_gb < NEEDED_GB[architecture]
