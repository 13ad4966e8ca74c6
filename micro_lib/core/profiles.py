"""The four profiles: how much of an experiment is run, in one table."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

PROFILES = ("smoke", "quick", "study", "paper")


class Stage(NamedTuple):
    """One stage of a training schedule with progressive resizing."""

    px: int  # side of the square training images, pixels
    epochs: int  # passes over the training images
    frozen: bool  # True: the encoder keeps its weights
    mode: str = "crop"  # "crop": windows at native scale; "resize": whole micrographs downsized


# Trampert et al. 2021, section 3.2.2: 4000 images, 3200/800, encoder frozen at 128 px (20 epochs) and 256 px (10),
# everything trained at 512 px (5); 200 runs. The smaller profiles keep the shape of that schedule.
_TABLE = {
    "grains": {
        "smoke": {
            "seeds": (1,),
            "n_images": 10,
            "n_train": 8,
            "n_validation": 2,
            "image_px": 128,
            "working_scale": 0.5,
            "stages": (Stage(64, 1, True), Stage(64, 1, False)),
            "batch": 4,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "quick": {
            "seeds": (1,),
            "n_images": 440,
            "n_train": 400,
            "n_validation": 40,
            "image_px": 400,
            "working_scale": 0.5,
            "stages": (Stage(128, 1, True), Stage(128, 9, False)),
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "study": {
            "seeds": (1, 2, 3, 4, 5),
            "n_images": 748,
            "n_train": 700,
            "n_validation": 48,
            "image_px": 400,
            "working_scale": 0.5,
            "stages": (Stage(128, 1, True), Stage(128, 9, False)),
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "paper": {
            "seeds": tuple(range(1, 201)),
            "n_images": 4000,
            "n_train": 3200,
            "n_validation": 800,
            "image_px": 512,
            "working_scale": 1.0,
            "stages": (Stage(128, 20, True, "resize"), Stage(256, 10, True, "resize"), Stage(512, 5, False, "resize")),
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy",
            "architecture": "dynamic_resnet50",
        },
    },
    # Section 3.3: validation images, worst share, variations of each. `stages` and then `cycle`, at most `max_cycles`
    # times but until the mean IoU of `n_watched` validation images rises by less than `plateau`, make the base;
    # `finetune` is what every arm does on top, `finetune_images` tiles an epoch in all rounds together. `cycle` and
    # `finetune` train at `finetune_rate`.
    "adaptive": {
        "smoke": {
            "seeds": (1,),
            "n_train": 8,
            "n_validation": 10,
            "n_watched": 4,
            "n_test": 6,
            "share": 0.2,
            "variations": 3,
            "image_px": 128,
            "working_scale": 0.5,
            "stages": (Stage(64, 1, True),),
            "cycle": Stage(64, 1, False),
            "max_cycles": 2,
            "plateau": 0.003,
            "finetune": Stage(64, 1, False),
            "finetune_images": 12,
            "finetune_rate": 1e-3,
            "batch": 4,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "quick": {
            "seeds": (1,),
            "n_train": 400,
            "n_validation": 200,
            "n_watched": 100,
            "n_test": 200,
            "share": 0.1,
            "variations": 10,
            "image_px": 256,
            "working_scale": 0.5,
            "stages": (Stage(128, 1, True), Stage(128, 4, False)),
            "cycle": Stage(128, 2, False),
            "max_cycles": 4,
            "plateau": 0.003,
            "finetune": Stage(128, 2, False),
            "finetune_images": 384,
            "finetune_rate": 1e-3,
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "study": {
            "seeds": tuple(range(1, 11)),
            "n_train": 1000,
            "n_validation": 1000,
            "n_watched": 250,
            "n_test": 500,
            "share": 0.1,
            "variations": 10,
            "image_px": 256,
            "working_scale": 0.5,
            "stages": (Stage(128, 1, True), Stage(128, 4, False)),
            "cycle": Stage(128, 2, False),
            "max_cycles": 6,
            "plateau": 0.003,
            "finetune": Stage(128, 2, False),
            "finetune_images": 1536,
            "finetune_rate": 1e-3,
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "paper": {
            "seeds": tuple(range(1, 51)),
            "n_train": 3200,
            "n_validation": 1000,
            "n_watched": 800,
            "n_test": 1000,
            "share": 0.1,
            "variations": 10,
            "image_px": 512,
            "working_scale": 1.0,
            "stages": (Stage(128, 20, True, "resize"), Stage(256, 10, True, "resize"), Stage(512, 5, False, "resize")),
            "cycle": Stage(512, 2, False, "resize"),
            "max_cycles": 6,
            "plateau": 0.003,
            "finetune": Stage(512, 5, False, "resize"),
            "finetune_images": 1536,
            "finetune_rate": 1e-3,
            "batch": 16,
            "learning_rate": 3e-3,
            "loss": "cross_entropy",
            "architecture": "dynamic_resnet50",
        },
    },
    # Volman Stern et al. 2024 could not be had in full. "paper" has the sizes of the closest open relative, Noguchi &
    # Inoue 2021 (Phys. Rev. E; 52,800 tiles, batches of 256 for 300 epochs and of 128 for 200), with a U-Net of ours.
    # Steps of `vq` and `prior` are those of the plain recipe at 8 x 8 px a code. "study" was decided on micrographs of
    # superalloy spots 2, 4 and 7 alone, and scored on two more of them: a VQ-VAE of four micrographs lost 17 % of the
    # variance there after 200 steps, and 13 % with codes of 4 px, with nearly all codes in use; the loss of a prior of
    # one micrograph still fell after 500 steps (3.61 nats a code at 400, 3.58 at 500), so it does not yet learn by
    # heart. Both get some more, as far as 7 minutes of one core go; a U-Net gets 3.
    "joint": {
        "smoke": {
            "seeds": (1,),
            "px": 64,
            "n_codes": 32,
            "code_dim": 16,
            "hidden": 16,
            "vq_steps": 4,
            "vq_batch": 4,
            "vq_rate": 2e-3,
            "channels": 8,
            "layers": 3,
            "dropout": 0.1,
            "prior_steps": 4,
            "prior_batch": 4,
            "prior_rate": 2e-3,
            "n_crops": 16,
            "n_pairs": 8,
            "n_judged": 8,
            "n_copies": 2,
            "unet_steps": 2,
            "unet_batch": 4,
            "unet_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "quick": {
            "seeds": (1,),
            "px": 128,
            "n_codes": 512,
            "code_dim": 64,
            "hidden": 128,
            "vq_steps": 400,
            "vq_batch": 16,
            "vq_rate": 2e-3,
            "channels": 64,
            "layers": 12,
            "dropout": 0.1,
            "prior_steps": 500,
            "prior_batch": 16,
            "prior_rate": 2e-3,
            "n_crops": 1024,
            "n_pairs": 500,
            "n_judged": 64,
            "n_copies": 16,
            "unet_steps": 60,
            "unet_batch": 16,
            "unet_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "study": {
            "seeds": tuple(range(1, 13)),
            "px": 128,
            "n_codes": 512,
            "code_dim": 64,
            "hidden": 128,
            "vq_steps": 600,
            "vq_batch": 16,
            "vq_rate": 2e-3,
            "channels": 64,
            "layers": 12,
            "dropout": 0.1,
            "prior_steps": 800,
            "prior_batch": 16,
            "prior_rate": 2e-3,
            "n_crops": 2048,
            "n_pairs": 500,
            "n_judged": 64,
            "n_copies": 16,
            "unet_steps": 240,
            "unet_batch": 16,
            "unet_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
        "paper": {
            "seeds": tuple(range(1, 13)),
            "px": 128,
            "n_codes": 512,
            "code_dim": 128,
            "hidden": 128,
            "vq_steps": 61850,
            "vq_batch": 256,
            "vq_rate": 1e-3,
            "channels": 64,
            "layers": 15,
            "dropout": 0.1,
            "prior_steps": 82500,
            "prior_batch": 128,
            "prior_rate": 3e-4,
            "n_crops": 52800,
            "n_pairs": 500,
            "n_judged": 64,
            "n_copies": 16,
            "unet_steps": 10000,
            "unet_batch": 16,
            "unet_rate": 3e-3,
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
        },
    },
    # Trampert et al. 2021, section 3.1.2: 99,140 synthetic tiles, 79,312/19,828, batch 3584, head 4 epochs, then all 5;
    # real tiles batch 64, 10 and 10 epochs; 200 runs. Whatever the number of tiles, a stage on real ones takes at least
    # `min_steps`. `n_textures` is the pool that backgrounds are drawn from, of a dictionary of `max_patches`.
    "cracks": {
        "smoke": {
            "seeds": (1,),
            "n_train": 16,
            "n_validation": 8,
            "n_textures": 3,
            "max_patches": 500,
            "synthetic_epochs": (1, 1),
            "synthetic_batch": 8,
            "real_epochs": (1, 1),
            "real_batch": 8,
            "min_steps": 2,
            "find_steps": 16,
            "architecture": "lite0",
        },
        "quick": {
            "seeds": (1,),
            "n_train": 480,
            "n_validation": 96,
            "n_textures": 120,
            "max_patches": 14_000,
            "synthetic_epochs": (1, 2),
            "synthetic_batch": 32,
            "real_epochs": (2, 4),
            "real_batch": 32,
            "min_steps": 10,
            "find_steps": 30,
            "architecture": "lite0",
        },
        "study": {
            "seeds": tuple(range(1, 13)),
            "n_train": 1600,
            "n_validation": 200,
            "n_textures": 400,
            "max_patches": 14_000,
            "synthetic_epochs": (1, 3),
            "synthetic_batch": 32,
            "real_epochs": (10, 10),
            "real_batch": 32,
            "min_steps": 30,
            "find_steps": 50,
            "architecture": "lite0",
        },
        "paper": {
            "seeds": tuple(range(1, 201)),
            "n_train": 79_312,
            "n_validation": 19_828,
            "n_textures": 99_140,
            "max_patches": 14_000,
            "synthetic_epochs": (4, 5),
            "synthetic_batch": 3584,
            "real_epochs": (10, 10),
            "real_batch": 64,
            "min_steps": 30,
            "find_steps": 100,
            "architecture": "resnet50",
        },
    },
    # Goetz et al. 2022: five folds; tiles of 512 px with 62 px around them, micrographs halved; batch 8; DeepLabv2, 550
    # epochs of 14 steps on the source, 3,000 when adapted. Its learning rates and loss weights are not in the text:
    # "paper" has those of AdaptSegNet's code (the encoder's rate is a tenth of `learning_rate`). `tile`: side that
    # counts and margin, pixels; `tiling`: windows anywhere, or the published grid; `weights`: of the loss on the
    # auxiliary output and of both adversarial losses; `discriminator`: width and learning rate; `watched`: micrographs
    # measured at each of the curve's `points`. Generated micrographs: at most `n_images` whole ones a part, of
    # `field_um` down and across.
    # "study" was looked at on the development preparation alone (fold 0, 400 steps, one seed; mean IoU on the target):
    # no adaptation 0.647, AdaptSegNet 0.774, masked consistency 0.850, self-training 0.867, oracle 0.940; FDA, ADVENT
    # and the combination were not run. What decides is whose statistics the network normalises by: those of both
    # domains, gathered behind a training without adaptation, give 0.766, those of the target alone 0.833. So mean
    # teachers take the latter; rates, weights and thresholds stayed as they were. All that was with the light
    # augmentation, before every arm was given the extended one.
    "adaptation": {
        "smoke": {
            "seeds": (1,),
            "n_images": 2,
            "field_um": (7.0, 9.0),
            "pixel_size_um": 0.0554,
            "tile": (32, 16),
            "tiling": "random",
            "source_steps": 4,
            "steps": 4,
            "batch": 2,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "weights": (0.1, 0.001, 0.0002),
            "discriminator": (8, 5e-4),
            "points": 2,
            "watched": 1,
            "architecture": "lite0",
        },
        "quick": {
            "seeds": (1,),
            "n_images": 8,
            "field_um": (28.4, 28.4),
            "pixel_size_um": 0.0554,
            "tile": (96, 16),
            "tiling": "random",
            "source_steps": 240,
            "steps": 240,
            "batch": 4,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "weights": (0.1, 0.001, 0.0002),
            "discriminator": (16, 5e-4),
            "points": 4,
            "watched": 2,
            "architecture": "lite0",
        },
        "study": {
            "seeds": (1, 2, 3, 4, 5),
            "n_images": 60,
            "field_um": (39.7, 56.7),
            "pixel_size_um": 0.0554,
            "tile": (96, 16),
            "tiling": "random",
            "source_steps": 1000,
            "steps": 1000,
            "batch": 4,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "weights": (0.1, 0.001, 0.0002),
            "discriminator": (16, 5e-4),
            "points": 10,
            "watched": 2,
            "architecture": "lite0",
        },
        "paper": {
            "seeds": (1, 2, 3, 4, 5),
            "n_images": 60,
            "field_um": (39.7, 56.7),
            "pixel_size_um": 0.0277,
            "tile": (512, 62),
            "tiling": "grid",
            "source_steps": 7700,
            "steps": 42_000,
            "batch": 8,
            "learning_rate": 2.5e-3,
            "optimizer": "sgd",
            "loss": "cross_entropy",
            "weights": (0.1, 0.001, 0.0002),
            "discriminator": (64, 1e-4),
            "points": 30,
            "watched": 7,
            "architecture": "deeplabv2",
        },
    },
    # Goetz et al. 2022, section 3.1: 112 tiles of 512 px with 62 px around them, batch 12, 200 epochs of 9 steps at a
    # constant rate, which is not in the text; five folds. The other profiles have about as many tiles of 96 px with 16.
    # `n_images`, `n_test`: generated micrographs to train on and at most to test on a domain. `pretraining`: number and
    # side of the pictures, and steps, batch, learning rate and rounds; the paper's 15,000 of 18,750 pictures are seen
    # 100 times at a rate that is not in the text.
    "source": {
        "smoke": {
            "seeds": (1,),
            "n_images": 2,
            "n_test": 1,
            "field_um": (7.0, 9.0),
            "pixel_size_um": 0.0554,
            "tile": (32, 16),
            "steps": 4,
            "batch": 2,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
            "pretraining": {"n": 10, "px": 64, "schedule": (2, 2, 1e-3, 2)},
        },
        "quick": {
            "seeds": (1,),
            "n_images": 4,
            "n_test": 2,
            "field_um": (28.4, 28.4),
            "pixel_size_um": 0.0554,
            "tile": (96, 16),
            "steps": 120,
            "batch": 4,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
            "pretraining": {"n": 400, "px": 128, "schedule": (60, 8, 1e-3, 3)},
        },
        "study": {
            "seeds": (1, 2, 3, 4, 5),
            "n_images": 5,
            "n_test": 12,
            "field_um": (39.7, 56.7),
            "pixel_size_um": 0.0554,
            "tile": (96, 16),
            "steps": 800,
            "batch": 4,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "loss": "cross_entropy+dice",
            "architecture": "lite0",
            "pretraining": {"n": 1500, "px": 128, "schedule": (400, 16, 1e-3, 5)},
        },
        "paper": {
            "seeds": (1, 2, 3, 4, 5),
            "n_images": 28,
            "n_test": 50,
            "field_um": (39.7, 56.7),
            "pixel_size_um": 0.0277,
            "tile": (512, 62),
            "steps": 1800,
            "batch": 12,
            "learning_rate": 5e-4,
            "optimizer": "adamw",
            "loss": "cross_entropy",
            "architecture": "vgg16",
            "pretraining": {"n": 18750, "px": 256, "schedule": (93_700, 16, 1e-4, 100)},
        },
    },
}


def resolve(profile: str = "") -> str:
    """Return the profile to run: the one named, else ``$MICRO_PROFILE``, else ``"quick"``.

    Parameters
    ----------
    profile : str
        One of `PROFILES`, or ``""`` to look at the environment.

    Returns
    -------
    str
        One of `PROFILES`.

    Raises
    ------
    ValueError
        If the name is none of the four.
    """
    source = "PROFILE" if profile else "MICRO_PROFILE"
    name = profile or os.environ.get("MICRO_PROFILE", "") or "quick"
    if name not in PROFILES:
        raise ValueError(f"{source} is {name!r}; the profiles are {', '.join(PROFILES)}")
    return name


def settings(experiment: str, profile: str) -> Mapping:
    """Return the settings of one experiment in one profile.

    Parameters
    ----------
    experiment : str
        Name of an experiment of the table in this module, e.g. ``"grains"``.
    profile : str
        As for `resolve`.

    Returns
    -------
    Mapping
        Read-only; the keys are those of the table, among them ``seeds``, a tuple of int.

    Raises
    ------
    ValueError
        If the experiment or the profile is unknown.
    """
    if experiment not in _TABLE:
        raise ValueError(f"no settings for experiment {experiment!r}; there are {', '.join(sorted(_TABLE))}")
    return MappingProxyType(_TABLE[experiment][resolve(profile)])
