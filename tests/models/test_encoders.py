"""The file of an encoder: it reaches the encoder of the same architecture, and nothing else."""

import pytest
import torch

from micro_lib.models import carded, encoders, unet
from micro_lib.models.carded import CardError


def built(weights, architecture="lite0"):
    torch.manual_seed(7)
    return unet.build(architecture, 2, str(weights))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An encoder whose every number is 0.25, or 1."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    encoder = unet.encoder_of(unet.build("lite0", weights="random"))
    for tensor in encoder.state_dict().values():
        tensor.fill_(0.25 if tensor.is_floating_point() else 1)
    encoders.save(path, "lite0", encoder, {"score": 0.5})
    return path


def test_a_file_changes_the_encoder_and_the_encoder_only(file):
    random, ours = built("random"), built(file)
    inside = {id(tensor) for tensor in unet.encoder_of(ours).state_dict(keep_vars=True).values()}
    kinds = set()
    for (name, before), after in zip(
        random.state_dict().items(), ours.state_dict(keep_vars=True).values(), strict=True
    ):
        kinds.add(id(after) in inside)
        if id(after) in inside:
            assert (after == (0.25 if after.is_floating_point() else 1)).all(), name
        else:
            assert torch.equal(before, after), name
    assert kinds == {True, False}


def test_the_card_comes_back(file):
    encoder = unet.encoder_of(unet.build("lite0", weights="random"))
    assert encoders.load(file, "lite0", encoder) == {
        "format": encoders.FORMAT,
        "architecture": "lite0",
        "score": 0.5,
    }


def test_other_files_are_refused(file, tmp_path):
    with pytest.raises(CardError, match=r"architecture 'lite0'; read as an encoder is .* architecture 'resnet18'"):
        built(file, "resnet18")
    carded.write(tmp_path / "other.safetensors", {}, {"a": torch.zeros(1)})
    with pytest.raises(CardError, match="holds format None architecture None"):
        built(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match=r"absent.safetensors; micro_lib.training.pretraining leaves one"):
        built(tmp_path / "absent.safetensors")
    carded.write(tmp_path / "few.safetensors", {"format": "micro_lib.encoder", "architecture": "lite0"}, {})
    with pytest.raises(CardError, match=r"few.safetensors does not make an encoder"):
        built(tmp_path / "few.safetensors")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"weights is 'nanosem'; there are imagenet, random, or the path of a"):
        built("nanosem")
