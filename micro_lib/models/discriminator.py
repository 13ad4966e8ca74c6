"""The discriminator of adversarial adaptation: tells from a segmentation which domain its micrograph came from."""

from torch import nn

WIDTHS = (64, 128, 256, 512)


def discriminator(n_classes: int) -> nn.Sequential:
    """Return the fully convolutional discriminator of Tsai et al. 2018 (AdaptSegNet).

    Parameters
    ----------
    n_classes : int
        Channels of the segmentations, at least 2: the softmax of a single channel is 1 everywhere.

    Returns
    -------
    torch.nn.Sequential
        Maps (B, n_classes, H, W) float32, H and W at least 32, to logits (B, 1, H // 32, W // 32).

    Raises
    ------
    ValueError
        If there are fewer than 2 classes.
    """
    if n_classes < 2:
        raise ValueError(
            f"n_classes is {n_classes}; one channel says nothing after a softmax, give every class its own"
        )
    layers = []
    for before, after in zip((n_classes, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], 1, 4, 2, 1))
