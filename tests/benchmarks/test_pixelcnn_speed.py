"""Speed of sampling code by code against a full forward pass for every code: same weights, same run, one thread."""

from time import process_time

import pytest
import torch

from micro_lib.models.devices import has_bfloat16
from micro_lib.models.pixelcnn import GatedPixelCNN, distribution, draw, sample

TIMES = {(1, 16): 15, (1, 32): 70, (1, 64): 200, (16, 16): 100, (16, 32): 600, (16, 64): 1500}
POSITIONS = 64  # of the H * W that the naive loop would take; its time is scaled up to all, for hours would go by
ROUNDS = 4  # naive, over its share of the positions, and ours in turn; the quickest of each counts


@torch.inference_mode()
def naive_s(network, shape, positions):
    """Return the processor seconds of a naive sampler for its first positions: every pass computes the whole map."""
    codes, heights = torch.zeros(shape, dtype=torch.int64), 1 - torch.rand(shape)
    start = process_time()
    for position in range(positions):
        i, j = divmod(position, shape[2])
        codes[:, i, j] = draw(distribution(network(codes)[:, :, i, j]), heights[:, i, j])
    return process_time() - start


def ours_s(network, shape):
    start = process_time()
    sample(network, shape, generator=torch.Generator().manual_seed(1))
    return process_time() - start


# Processor time, so that a busy machine lengthens neither: both are one thread.
@pytest.mark.parametrize(("batch", "side"), TIMES)
def test_sampling_beats_a_forward_pass_for_every_code(benchmark, batch, side):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    torch.manual_seed(1)
    network, shape = GatedPixelCNN(512, channels=64, layers=12).eval(), (batch, side, side)
    naive_s(network, shape, 2)
    sample(network, (batch, 2, side), generator=torch.Generator())
    rounds = [
        (naive_s(network, shape, POSITIONS // ROUNDS) * ROUNDS / POSITIONS, ours_s(network, shape))
        for _ in range(ROUNDS)
    ]
    pass_s, whole_s = (min(times) for times in zip(*rounds, strict=True))
    loop_s = pass_s * side**2
    ratio = loop_s / whole_s
    benchmark.extra_info.update(naive_s=loop_s, ours_s=whole_s, times_faster=ratio)
    benchmark.pedantic(sample, (network, shape), {"generator": torch.Generator()}, rounds=1)
    timed = f"the quickest of {ROUNDS} rounds of {POSITIONS // ROUNDS} of {side**2} positions, scaled up"
    print(
        f"{batch} maps of {side}x{side}: loop {loop_s:.1f} s ({timed}); ours {whole_s:.2f} s: {ratio:.0f} times faster"
    )
    assert ratio >= TIMES[batch, side], f"{ratio:.0f} times faster than the loop; {TIMES[batch, side]} wanted"


@pytest.mark.parametrize("batch", [1, 16])
def test_bfloat16_against_float32(benchmark, batch):
    if benchmark.disabled:
        pytest.skip("speed is measured by `make bench`")
    if not has_bfloat16("cpu"):
        pytest.skip("this processor does not compute in bfloat16")
    network, shape = GatedPixelCNN(512, channels=64, layers=12).eval(), (batch, 32, 32)
    rounds = []
    for _ in range(ROUNDS):
        plain_s = ours_s(network, shape)
        with torch.autocast("cpu", torch.bfloat16):
            rounds.append((plain_s, ours_s(network, shape)))
    plain_s, half_s = (min(times) for times in zip(*rounds, strict=True))
    benchmark.extra_info.update(float32_s=plain_s, bfloat16_s=half_s, times_faster=plain_s / half_s)
    benchmark.pedantic(ours_s, (network, shape), rounds=1)
    print(f"{batch} maps of 32x32: float32 {plain_s:.2f} s, bfloat16 {half_s:.2f} s")
