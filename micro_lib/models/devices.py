"""Where networks compute."""

import torch
from torch import nn


def best_device() -> str:
    """Return ``"cuda"`` where a GPU can be used, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16(device: str) -> bool:
    """Return whether a kind of device computes in bfloat16, rather than imitating it slowly.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def device_name(device: str) -> str:
    """Return a kind of device and the numbers it computes in, such as ``"cpu, bfloat16"``; it decides results.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    """
    return f"{device}, bfloat16" if has_bfloat16(device) else device


def float32_convolutions(network: nn.Module) -> list:
    """Keep depthwise convolutions with stride or large kernels in float32 on a CPU; return hooks to remove afterwards.

    Their bfloat16 gradients are slow in oneDNN: without them a training step of EfficientNet-Lite0 at 128 px is 1.4
    times faster.

    Parameters
    ----------
    network : torch.nn.Module
        Takes the hooks, in place; one without such convolutions has none.
    """
    autocast = []  # convolutions do not nest, so one entry is enough

    def enter(_module, inputs):
        autocast.append(torch.is_autocast_enabled("cpu"))
        torch.set_autocast_enabled("cpu", False)
        return tuple(x.float() for x in inputs)

    def leave(_module, _inputs, output):
        active = autocast.pop()
        torch.set_autocast_enabled("cpu", active)
        return output.bfloat16() if active else output

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            if max(module.kernel_size) > 3 or max(module.stride) > 1:
                hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    return hooks
