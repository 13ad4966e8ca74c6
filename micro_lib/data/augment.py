"""Joint transforms of an image and its mask for training, on torchvision's transforms.v2 and tv_tensors.

Geometry moves image and mask together (masks by nearest neighbour, so no class is ever invented); tone and grain of
the picture change the image alone.
"""

import math

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

LEVELS = 256  # grey levels of the uint8 images that are trained on


class ZoomCrop(v2.Transform):
    """Cut a random window and resize it to `px` by `px`: random crop, scale jitter, stretch and squish in one step.

    Parameters
    ----------
    px : int
        Side of the result, pixels.
    zoom : (float, float)
        Range of the magnification, drawn log-uniformly; 2 shows half the field of view.
    squish : float
        Largest ratio of horizontal to vertical magnification (and its inverse), drawn log-uniformly; 1 for none.
    """

    def __init__(self, px: int, zoom: tuple[float, float] = (0.7, 1.4), squish: float = 1.25):
        super().__init__()
        self.px, self.zoom, self.squish = px, zoom, squish

    def make_params(self, flat_inputs):
        """Return a random window of the first of `flat_inputs`, at most as large: top, left, height, width [px]."""
        height, width = F.get_size(flat_inputs[0])
        zoom, ratio = log_uniform(*self.zoom), math.sqrt(log_uniform(1 / self.squish, self.squish))
        h, w = (min(size, max(2, round(self.px / zoom * r))) for size, r in ((height, ratio), (width, 1 / ratio)))
        top, left = (int(torch.randint(size - s + 1, ())) for size, s in ((height, h), (width, w)))
        return {"top": top, "left": left, "height": h, "width": w}

    def transform(self, inpt, params):
        """Return the window `params` of an image or mask `inpt` (..., H, W), resized to (..., px, px)."""
        return self._call_kernel(F.resized_crop, inpt, **params, size=[self.px, self.px], antialias=True)


class RandomTranspose(v2.Transform):
    """Swap rows and columns with probability one half; with both flips, all eight 90 degree rotations and mirrors."""

    def make_params(self, flat_inputs):
        """Return whether to `swap`; `flat_inputs` do not matter."""
        return {"swap": bool(torch.rand(()) < 0.5)}

    def transform(self, inpt, params):
        """Return an image or mask `inpt` (..., H, W), its last two axes swapped where `params` say so."""
        return tv_tensors.wrap(inpt.transpose(-2, -1), like=inpt) if params["swap"] else inpt


class Jitter(v2.Transform):
    """Replace a share of the pixels by a random neighbour, the jitter filter of Trampert et al. 2021, section 3.2.1.

    DEVIATION: the image alone is jittered; the mask stays the drawn truth.

    Parameters
    ----------
    radius_px : int
        Largest displacement in either direction, pixels.
    share : float
        Largest share of displaced pixels; the share itself is drawn uniformly from 0 to this.
    """

    def __init__(self, radius_px: int = 1, share: float = 0.2):
        super().__init__()
        self.radius_px, self.share = radius_px, share

    def make_params(self, flat_inputs):
        """Return the `source` (H, W) of every pixel of the first of `flat_inputs`: its place, counted row by row."""
        height, width = F.get_size(flat_inputs[0])
        moved = torch.rand(height, width) < self.share * torch.rand(())
        shift = torch.randint(-self.radius_px, self.radius_px + 1, (2, height, width)) * moved
        rows = (torch.arange(height)[:, None] + shift[0]).clamp(0, height - 1)
        cols = (torch.arange(width) + shift[1]).clamp(0, width - 1)
        return {"source": rows * width + cols}

    def transform(self, inpt, params):
        """Return an image `inpt` (..., H, W) with its pixels taken from where `params` say; masks pass."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        flat = inpt.flatten(-2)[..., params["source"].flatten()]
        return tv_tensors.wrap(flat.view(inpt.shape), like=inpt)


class Bend(v2.Transform):
    """Bend a picture smoothly (elastic transformation): shifts of a coarse grid's nodes, interpolated between them.

    torchvision's own smooths a shift for every pixel by a kernel as large as the picture: seconds for a large tile.

    Parameters
    ----------
    share : float
        Standard deviation of a node's shift in either direction, of the side.
    """

    nodes = 5  # along each side

    def __init__(self, share: float = 0.02):
        super().__init__()
        self.share = share

    def make_params(self, flat_inputs):
        """Return the `displacement` (1, H, W, 2) for the first of `flat_inputs`, in units of half the side."""
        shifts = 2 * self.share * torch.randn(1, 2, self.nodes, self.nodes)
        smooth = torch.nn.functional.interpolate(shifts, F.get_size(flat_inputs[0]), mode="bicubic", align_corners=True)
        return {"displacement": smooth.permute(0, 2, 3, 1)}

    def transform(self, inpt, params):
        """Return an image or mask `inpt` (..., H, W), bent as `params` say; what comes from beyond the border is 0."""
        return self._call_kernel(F.elastic, inpt, **params)


class RandomGamma(v2.Transform):
    """Raise grey values (0 to 1) to a power drawn log-uniformly from 1 / `largest` to `largest`."""

    def __init__(self, largest: float):
        super().__init__()
        self.largest = largest

    def make_params(self, flat_inputs):
        """Return the power `gamma`; `flat_inputs` do not matter."""
        return {"gamma": log_uniform(1 / self.largest, self.largest)}

    def transform(self, inpt, params):
        """Return an image `inpt` of grey values (0 to 1), raised to the power in `params`; masks pass."""
        return self._call_kernel(F.adjust_gamma, inpt, **params)


def log_uniform(low: float, high: float) -> float:
    """Draw one number whose logarithm is uniform between those of two numbers, from torch's default generator.

    Parameters
    ----------
    low, high : float
        The ends, above 0.
    """
    return low * (high / low) ** float(torch.rand(()))


def light(px: int) -> v2.Transform:
    """Return the geometry of the light profiles: random windows at native scale, all eight orientations, rotation.

    Parameters
    ----------
    px : int
        Side of the result, pixels.
    """
    turned_px = math.ceil(px * (math.cos(math.radians(10)) + math.sin(math.radians(10))))  # holds a turned square
    turned = v2.Compose([ZoomCrop(turned_px), v2.RandomRotation(10, v2.InterpolationMode.BILINEAR), v2.CenterCrop(px)])
    return v2.Compose(
        [
            v2.RandomChoice([ZoomCrop(px), turned], p=[0.7, 0.3]),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            RandomTranspose(),
        ]
    )


def turned(px: int) -> v2.Transform:
    """Return flips and quarter turns of random windows at native scale, the basic set of Goetz et al. 2022.

    Parameters
    ----------
    px : int
        Side of the result, pixels.
    """
    return v2.Compose([v2.RandomCrop(px), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), RandomTranspose()])


def elastic(px: int) -> v2.Transform:
    """Return the geometry of `light` with half of the windows bent, for the extended set of Goetz et al. 2022.

    DEVIATION: of that set nothing but "elastic transformation" is printed; the rest is as elsewhere here.

    Parameters
    ----------
    px : int
        Side of the result, pixels.
    """
    margin_px = math.ceil(0.08 * px)  # four times the share by which `Bend` shifts
    return v2.Compose([light(px + 2 * margin_px), v2.RandomApply([Bend()], 0.5), v2.CenterCrop(px)])


def as_published(px: int) -> v2.Transform:
    """Return the geometry of Trampert et al. 2021: whole images downsized, fastai 1.0.51's get_transforms(), squish.

    Its defaults: left-right flips, symmetric warp of 0.2, rotation by up to 10 degrees and zoom of up to 1.1, each but
    the flip with probability 0.75; Trampert et al. 2021, section 3.2.1, adds stretching and squishing.
    DEVIATION: the warp is torchvision's perspective of the same size, and corners are mirrored by padding beforehand;
    what `micro_lib.data.tiles.MODES` adds to it changes tone and grain too.

    Parameters
    ----------
    px : int
        Side of the result, pixels.
    """
    margin_px = math.ceil(0.2 * px)  # what rotation and warp can reach beyond the image
    moved = v2.Compose(
        [
            v2.Pad(margin_px, padding_mode="reflect"),
            v2.RandomApply([v2.RandomRotation(10, v2.InterpolationMode.BILINEAR)], 0.75),
            v2.RandomPerspective(0.2, 0.75),
            v2.CenterCrop(px),
            v2.RandomApply([ZoomCrop(px, (1.0, 1.1), squish=1.1)], 0.75),
        ]
    )
    return v2.Compose([v2.Resize((px, px), antialias=True), v2.RandomHorizontalFlip(), moved])


def point_operations() -> v2.Transform:
    """Return random changes of grey values (0 to 1) that depend on the value alone.

    Brightness and contrast alone are straight lines, which `tone_table` takes out again. What remains of them is what
    they clip to black or white, and the part of the following power's curve that contrast (about the middle grey)
    stretches the values over: after standardising, gamma is the change of tone.
    """
    return v2.Compose([v2.ColorJitter(brightness=0.2, contrast=0.25), RandomGamma(1.5)])


def picture_operations() -> v2.Transform:
    """Return random blur, jitter and white noise for a standardised image (mean 0, standard deviation 1)."""
    return v2.Compose(
        [
            v2.RandomApply([v2.GaussianBlur(5, (0.4, 1.0))], 0.15),
            v2.RandomApply([Jitter()], 0.1),
            v2.RandomApply([RandomNoise(0.15)], 0.3),
        ]
    )


class RandomNoise(v2.Transform):
    """Add white noise with a standard deviation drawn uniformly from 0 to `largest`; masks pass."""

    def __init__(self, largest: float):
        super().__init__()
        self.largest = largest

    def make_params(self, flat_inputs):
        """Return the standard deviation `sigma`, with mean 0 and nothing clipped; `flat_inputs` do not matter."""
        return {"sigma": self.largest * float(torch.rand(())), "mean": 0.0, "clip": False}

    def transform(self, inpt, params):
        """Return an image `inpt` of floats with the noise that `params` describe; masks pass."""
        return self._call_kernel(F.gaussian_noise, inpt, **params)


def tone_table(histogram: torch.Tensor, operations: v2.Transform | None) -> torch.Tensor:
    """Return the standardised value of every grey level after random point operations.

    A point operation on an 8-bit image is a table of 256 values, and the histogram of the whole micrograph gives the
    exact mean and standard deviation of the result, so that a crop is standardised like the micrograph it is cut from.

    Parameters
    ----------
    histogram : torch.Tensor
        (256,) pixel counts of the whole micrograph.
    operations : torchvision.transforms.v2.Transform or None
        Applied to grey values between 0 and 1; None for none.

    Returns
    -------
    torch.Tensor
        (256,) float32; the micrograph it is applied to has mean 0 and standard deviation 1 (0 where it is constant).
    """
    ramp = tv_tensors.Image(torch.linspace(0, 1, LEVELS).view(1, 1, LEVELS))  # (1, 1, 256), an image of one row
    values = (operations(ramp) if operations else ramp).as_subclass(torch.Tensor).flatten().double()
    share = histogram.double() / histogram.sum()
    centred = values - share @ values
    spread = float(share @ centred**2) ** 0.5
    scale = 1 / spread if spread > 1e-6 else 0.0  # a constant image becomes zero, not infinite
    return (centred * scale).float()
