"""Pictures with labels of the whole: generated ones know what made them, folders are read or refused with words."""

import cv2
import numpy as np
import pytest

from micro_lib.data import in_domain
from micro_lib.data.files import write_micrograph
from micro_lib.data.in_domain import Labels, class_folders, collection, divided
from micro_lib.data.packs import DataUnavailable


@pytest.fixture(scope="module", params=["scenarios", "parameters"])
def made(request):
    return request.param, collection(request.param, 10, 48, 3)


def test_generated_pictures_are_whole_and_repeatable(made):
    task, labels = made
    again = collection(task, 10, 48, 3)
    assert labels.images.shape == (10, 48, 48) and labels.images.dtype == np.uint8
    assert labels.targets.shape == (10, len(labels.names)) and labels.targets.dtype == np.float32
    np.testing.assert_array_equal(labels.images, again.images)
    np.testing.assert_array_equal(labels.targets, again.targets)
    assert (labels.images != collection(task, 10, 48, 4).images).any()
    assert labels.images.std(axis=(1, 2)).min() > 2, "no picture is empty"


def test_scenarios_are_classes_and_parameters_are_ranks(made):
    task, labels = made
    assert labels.are_classes == (task == "scenarios")
    if labels.are_classes:
        assert (labels.targets.sum(0) == 2).all()
    else:
        assert "grain_diameter_px" in labels.names and "height_px" not in labels.names and "seed" not in labels.names
        assert (labels.targets > 0).all() and (labels.targets < 1).all()
        np.testing.assert_allclose(labels.targets.mean(0), 0.5, atol=1e-6)
        diameter = labels.targets[:, labels.names.index("grain_diameter_px")]
        np.testing.assert_allclose(np.sort(diameter), (np.arange(10) + 0.5) / 10, atol=1e-6)


def test_no_lath_bainite_is_among_the_scenarios():
    assert not any("bainite" in render.__module__ for _, render in in_domain._SCENARIOS.values())


# Folders


def write(folder, classes, shape=(60, 80)):
    for number, (name, count) in enumerate(classes.items()):
        (folder / name / "deeper").mkdir(parents=True)
        for i in range(count):
            pixels = np.full(shape, 50 * number + i, np.uint8)
            pixels[:, shape[1] // 2 :] += 5
            write_micrograph(folder / name / "deeper" / f"{i}.png", pixels)


def test_a_folder_of_classes_is_read(tmp_path):
    write(tmp_path, {"films": 2, "particles": 3})
    labels = class_folders(tmp_path, 30)
    assert labels.names == ("films", "particles") and labels.are_classes
    assert labels.images.shape == (5, 30, 30)
    np.testing.assert_array_equal(labels.targets.argmax(1), [0, 0, 1, 1, 1])
    assert labels.images[3].min() == 51 and labels.images[3].max() == 56, "its middle, scaled"


def test_small_pictures_are_enlarged_and_every_shape_fits(tmp_path):
    write(tmp_path / "small", {"a": 1, "b": 1}, shape=(20, 90))
    assert class_folders(tmp_path / "small", 32).images.shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "needs two class folders or more; found none"),
        ({"films": 2}, "needs two class folders or more; found films"),
        ({"films": 2, "wires": 0, "tips": 0}, r"no pictures \(.*\.tif.*\) in tips, wires of"),
    ],
)
def test_folders_that_are_no_collection_are_refused(tmp_path, classes, message):
    write(tmp_path, classes)
    with pytest.raises(DataUnavailable, match=message):
        class_folders(tmp_path, 32)


def test_a_folder_that_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataUnavailable, match=r"no folder .*absent; expected one with a folder of pictures"):
        class_folders(tmp_path / "absent", 32)
    monkeypatch.delenv("MICRO_DATA", raising=False)
    with pytest.raises(DataUnavailable, match="set MICRO_DATA to a folder with nffa_sem/<class>/<picture>"):
        collection("folder", 0, 32, 1)
    write(tmp_path / in_domain.FOLDER, {"a": 1, "b": 1})
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    assert collection("folder", 0, 32, 1).names == ("a", "b")


def test_a_broken_picture_is_named(tmp_path):
    write(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        class_folders(tmp_path, 32)


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="task is 'folders'; there are scenarios, parameters, folder"):
        collection("folders", 4, 32, 1)


def test_an_information_bar_is_cut_off(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(90, 160, (100, 100)).astype(np.uint8)
        pixels[80:] = 0
        cv2.putText(pixels, "10 um", (5, 95), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
        (tmp_path / name).mkdir()
        write_micrograph(tmp_path / name / "x.png", pixels)
    assert class_folders(tmp_path, 40).images.min() > 60


# Holding out


def test_parts_are_disjoint_and_whole():
    labels = Labels(np.arange(20, dtype=np.uint8)[:, None, None].repeat(4, 1), np.eye(20, dtype=np.float32), ())
    training, held_out = divided(labels, 1)
    assert (len(training.images), len(held_out.images)) == (16, 4)
    values = [part.images[:, 0, 0].tolist() for part in (training, held_out)]
    assert sorted(values[0] + values[1]) == list(range(20))
    assert (training.targets.argmax(1) == training.images[:, 0, 0]).all()
    with pytest.raises(ValueError, match="2 pictures are too few"):
        divided(labels._replace(images=labels.images[:2]), 1)
