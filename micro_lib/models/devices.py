"""Where networks compute."""

import torch


def best_device() -> str:
    """Return ``"cuda"`` where a GPU can be used, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
