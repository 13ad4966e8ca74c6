"""Where networks compute."""

import torch


def best_device() -> str:
    """Return ``"cuda"`` where a GPU can be used, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16(device: str) -> bool:
    """Return whether a kind of device computes in bfloat16, rather than imitating it slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def device_name(device: str) -> str:
    """Return a kind of device and the numbers it computes in, such as ``"cpu, bfloat16"``; it decides results."""
    return f"{device}, bfloat16" if has_bfloat16(device) else device
