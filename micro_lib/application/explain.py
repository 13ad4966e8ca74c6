"""What a segmenter looks at: Grad-CAM of a chosen layer, on micrographs of both domains."""

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from micro_lib.core.checks import one_of
from micro_lib.models.segmenter import standardise

BLOCK_PX = 32  # sides a U-Net can halve five times


def layers(network: nn.Module) -> list[str]:
    """Return the names of the layers that `grad_cam` can be asked for: all convolutions, in the order they are made."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]


def deep_layer(network: nn.Module) -> str:
    """Return the name of a layer to ask for: half-way through the decoder, or without one the encoder's last."""
    decoder = [name for name in layers(network) if "decoder" in name]
    return decoder[len(decoder) // 2] if decoder else [name for name in layers(network) if "layer4" in name][-1]


def grad_cam(network: nn.Module, image: np.ndarray, layer: str, class_id: int) -> np.ndarray:
    """Return where a layer speaks for a class: Grad-CAM (Selvaraju et al. 2017), of segmentations.

    The score explained is the sum of the class's logits over the pixels given to it (Vinogradova et al. 2020); the
    channels of the layer are weighted by the mean of its gradients, and what speaks against the class is cut off. As in
    Figure 7 of Goetz et al. 2022 the map is that of a whole image, in one piece.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; maps (1, 1, H, W) float32 to logits (1, C, H, W).
    image : numpy.ndarray
        (H, W) uint8, at the scale the network was trained at; mirrored to sides of whole blocks of 32.
    layer : str
        One of `layers`.
    class_id : int
        Whose evidence is shown.

    Returns
    -------
    numpy.ndarray
        (H, W) float32 from 0 to 1, its largest value 1 unless nothing speaks for the class.

    Raises
    ------
    ValueError
        If the network has no such layer.
    """
    one_of("layer", layer, layers(network))
    height, width = image.shape
    missing = [(0, -size % BLOCK_PX) for size in image.shape]
    pixels = torch.from_numpy(np.pad(standardise(image), missing, mode="symmetric"))[None, None]  # (1, 1, H', W')
    with torch.no_grad():
        given = network(pixels).argmax(1) == class_id  # (1, H', W')

    def score(tiles: torch.Tensor) -> torch.Tensor:
        return (network(tiles) * given[:, None]).sum((2, 3))  # (1, C)

    cam = LayerGradCam(score, network.get_submodule(layer)).attribute(pixels, target=class_id, relu_attributions=True)
    whole = LayerAttribution.interpolate(cam.detach(), pixels.shape[-2:], "bilinear")[0, 0]
    heat = whole[:height, :width].numpy()
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)


def inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's heat that lies inside a mask (H, W) bool, over the mask's share of the area.

    1 is indifference, above 1 the layer speaks for what the mask holds; NaN where either is empty.
    """
    if not heat.any() or not mask.any():
        return float("nan")
    return float(heat[mask].sum() / heat.sum() / mask.mean())
