"""The discriminator of adversarial adaptation: tells from a segmentation which domain its micrograph came from."""

from itertools import pairwise

from torch import nn

PUBLISHED_WIDTH = 64
SMALLEST_PX = 32  # five convolutions halve what they are shown


def discriminator(n_classes: int, width: int = PUBLISHED_WIDTH) -> nn.Sequential:
    """Return the fully convolutional discriminator of Tsai et al. 2018 (AdaptSegNet).

    Parameters
    ----------
    n_classes : int
        Channels of the segmentations, at least 2: the softmax of a single channel is 1 everywhere.
    width : int
        Channels of the first of its five convolutions. At the published width a discriminator costs more than a light
        segmenter; a quarter of it costs a sixteenth.

    Returns
    -------
    torch.nn.Sequential
        Maps (B, n_classes, H, W) float32, H and W at least `SMALLEST_PX`, to logits (B, 1, H // 32, W // 32).

    Raises
    ------
    ValueError
        If there are fewer than 2 classes.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes is {n_classes}; a single channel is 1 after a softmax, give every class its own")
    widths = [n_classes, *(width * factor for factor in (1, 2, 4, 8))]
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 2, 1))
