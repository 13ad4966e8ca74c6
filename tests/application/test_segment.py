"""The folder command: masks of the right size for every image that can be read, words for every one that cannot."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from micro_lib.__main__ import main as micro_lib
from micro_lib.application import segment
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.core.runs import read_table
from micro_lib.data.files import write_micrograph
from micro_lib.models import scaling, unet
from micro_lib.models.segmenter import Card, Segmenter

SPACING = 24  # of the lattice below, px


class Dark(nn.Module):
    """Boundary is what is clearly darker than the mean."""

    def forward(self, x):
        return 8 * torch.cat([x + 0.6, -x - 0.6], 1)


def segmenter(low=15.0, high=60.0, network=None):
    return Segmenter(network or Dark(), Card("lite0", GRAIN_BOUNDARY, (low, high)))


def lattice(height=200, width=240, spacing=SPACING, line=3):
    y, x = np.mgrid[:height, :width]
    dark = (y % spacing < line) | (x % spacing < line)
    noise = np.random.default_rng(0).normal(0, 5, dark.shape)
    return (180 - 120 * dark + noise).astype(np.uint8), dark.astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image, _ = lattice()
    write_micrograph(folder / "a.png", image)
    write_micrograph(folder / "b.tif", image.astype(np.uint16) * 257, pixel_size_um=0.5)
    write_micrograph(folder / "c.tif", lattice(90, 150)[0].astype(np.float32))
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def mask_of(out, name):
    return np.asarray(Image.open(out / "masks" / f"{name}.png"))


def test_every_image_gets_a_mask_of_its_size(folder, tmp_path):
    report = segment.segment_folder(segmenter(), folder, tmp_path / "out")
    assert not report.failures and not report.warnings
    assert report.measurements["name"].tolist() == ["a.png", "b.tif", "c.tif"]
    for name, shape in (("a", (200, 240)), ("b", (200, 240)), ("c", (90, 150))):
        mask = mask_of(tmp_path / "out", name)
        assert mask.shape == shape and mask.dtype == np.uint8
        assert (mask == lattice(*shape)[1]).mean() > 0.99
        assert (tmp_path / "out" / "overlays" / f"{name}.png").is_file()
    stored = read_table(tmp_path / "out" / "measurements.csv")
    assert stored["grain_px"].tolist() == report.measurements["grain_px"].tolist()
    assert (tmp_path / "out").resolve() not in folder.parents and sorted(p.name for p in folder.iterdir())[1] == "a.png"


def test_sizes_are_those_of_the_lattice(folder, tmp_path):
    table = segment.segment_folder(segmenter(), folder, tmp_path / "out").measurements.set_index("name")
    for name in ("a.png", "b.tif"):
        assert table.loc[name, "intercept_size_px"] == pytest.approx(SPACING, rel=0.1)
        assert table.loc[name, "intercept_low_px"] <= table.loc[name, "intercept_size_px"]
        assert table.loc[name, "intercept_size_px"] <= table.loc[name, "intercept_high_px"]
        assert table.loc[name, "planimetric_size_px"] == pytest.approx(SPACING, rel=0.1)
    assert table.loc["b.tif", "pixel_size_um"] == 0.5 and np.isnan(table.loc["a.png", "pixel_size_um"])
    assert table.loc["b.tif", "intercept_size_um"] == pytest.approx(0.5 * table.loc["b.tif", "intercept_size_px"])
    assert np.isnan(table.loc["a.png", "intercept_size_um"]) and table["boundary_fraction"].between(0.1, 0.35).all()


def test_a_given_pixel_size_is_used(folder, tmp_path):
    (folder / "b.tif").unlink()
    table = segment.segment_folder(segmenter(), folder, tmp_path / "out", pixel_size_um=2.0).measurements
    np.testing.assert_allclose(table["intercept_size_um"], 2 * table["intercept_size_px"])


def test_a_broken_image_does_not_stop_the_others(folder, tmp_path):
    (folder / "b.tif").write_bytes((folder / "b.tif").read_bytes()[:500])
    (folder / "d.png").write_bytes(b"")
    report = segment.segment_folder(segmenter(), folder, tmp_path / "out")
    assert report.measurements.set_index("name")["status"].to_dict() == {
        "a.png": "segmented", "b.tif": "failed", "c.tif": "segmented", "d.png": "failed"
    }  # fmt: skip
    assert set(report.failures) == {"b.tif", "d.png"} and "d.png" in report.failures["d.png"]
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["a.png", "c.png"]


def test_an_empty_mask_is_a_warning_and_no_size(tmp_path):
    (tmp_path / "images").mkdir()
    write_micrograph(tmp_path / "images" / "flat.png", np.full((80, 80), 90, np.uint8))
    report = segment.segment_folder(segmenter(), tmp_path / "images", tmp_path / "out")
    assert "no grain boundary was found" in report.warnings["flat.png"] and not report.failures
    assert mask_of(tmp_path / "out", "flat").shape == (80, 80) and not mask_of(tmp_path / "out", "flat").any()


class Shy(Dark):
    """Finds the boundaries in small images only, so not at a higher magnification."""

    def forward(self, x):
        return super().forward(x) + torch.tensor([0.0, -99.0]).reshape(1, 2, 1, 1) * (x.shape[-2] > 300)


def test_a_mask_that_is_empty_after_magnification_has_no_size_either():
    image, _ = lattice()
    for grain_px in (None, SPACING):
        result = scaling.segment_micrograph(segmenter(50, 100, Shy()), image, grain_px)
        assert result.scale > 1.5 and not result.mask.any() and np.isnan(result.grain_px)
        assert "of its scale" in result.warning and result.warning.endswith(
            "no grain boundary was found, or too few to measure"
        )


@pytest.mark.parametrize("speck", [np.s_[33:36, 33:36], np.s_[33:36, 38:43]])  # between test lines, and on one
def test_a_speck_is_no_grain_size(speck):
    image = np.full((80, 90), 180, np.uint8)
    image[speck] = 40
    result = scaling.segment_micrograph(segmenter(), image)
    assert result.mask.any() and np.isnan(result.grain_px) and "too few to measure" in result.warning


@pytest.mark.parametrize(
    ("grain_px", "trained", "scale"),
    [(50, (40, 100), 1.0), (20, (40, 100), 2.0), (200, (40, 100), 0.5), (1, (40, 100), 4.0), (1e4, (40, 100), 0.25)],
)
def test_scale_brings_grains_into_the_trained_range(grain_px, trained, scale):
    assert scaling.scale_for(grain_px, trained) == pytest.approx(scale)


class Seen(Dark):
    def __init__(self):
        super().__init__()
        self.heights = []

    def forward(self, x):
        self.heights.append(x.shape[-2])
        return super().forward(x)


def test_grains_outside_the_trained_range_are_rescaled_with_a_warning():
    image, mask = lattice()
    network = Seen()
    result = scaling.segment_micrograph(segmenter(50, 100, network), image)
    assert result.scale == pytest.approx(50 / SPACING, rel=0.15) and network.heights[1] > network.heights[0]
    assert result.mask.shape == image.shape and (result.mask == mask).mean() > 0.9
    assert "outside the 50 to 100 px the model was trained for" in result.warning
    assert "still outside" not in result.warning


def test_a_known_grain_size_needs_no_first_pass():
    image, _ = lattice()
    network = Seen()
    result = scaling.segment_micrograph(segmenter(network=network), image, grain_px=30.0)
    assert len(network.heights) == 1 and result.scale == 1.0 and not result.warning
    assert scaling.segment_micrograph(segmenter(), image, grain_px=120.0).scale == pytest.approx(0.5)


def test_what_rescaling_cannot_mend_is_said():
    image, _ = lattice(spacing=8, line=2)
    result = scaling.segment_micrograph(segmenter(200, 300), image)
    assert result.scale == scaling.LARGEST_SCALE and "still outside" in result.warning


def test_refusals_name_the_fix(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        segment.segment_folder(segmenter(), tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(segment.SegmentError, match="holds no image"):
        segment.segment_folder(segmenter(), tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "images").mkdir()
    with pytest.raises(segment.SegmentError, match=r"holds no image itself; .* give .*empty.images"):
        segment.segment_folder(segmenter(), tmp_path / "empty", tmp_path / "out")
    write_micrograph(folder / "a.tif", lattice()[0])
    with pytest.raises(segment.SegmentError, match=r"a\.png, a\.tif would share a mask"):
        segment.segment_folder(segmenter(), folder, tmp_path / "out")


@pytest.mark.parametrize("part", ["masks", "overlays"])
def test_inputs_are_never_overwritten(part, tmp_path):
    (tmp_path / part).mkdir()
    image, _ = lattice()
    write_micrograph(tmp_path / part / "a.png", image)
    before = (tmp_path / part / "a.png").read_bytes()
    with pytest.raises(segment.SegmentError, match="would overwrite the micrographs"):
        segment.segment_folder(segmenter(), tmp_path / part, tmp_path)
    assert (tmp_path / part / "a.png").read_bytes() == before


def test_an_information_bar_is_told_of_unless_it_is_cut_off(folder, tmp_path):
    image, true = lattice()
    write_micrograph(folder / "a.png", np.vstack([image, with_text(40, image.shape[1])]))
    report = segment.segment_folder(segmenter(), folder, tmp_path / "out")
    assert list(report.warnings) == ["a.png"]
    assert "last 40 rows look like an information bar" in report.warnings["a.png"]
    assert "--crop-info-bar" in read_table(tmp_path / "out" / "measurements.csv")["remark"][0]
    cropped = segment.segment_folder(segmenter(), folder, tmp_path / "out", crop_info_bar=True)
    assert not cropped.warnings and (mask_of(tmp_path / "out", "a") == true).mean() > 0.99


def with_text(height, width):
    bar = np.zeros((height, width), np.uint8)
    cv2.putText(bar, "WD 8.5 mm  HV 20 kV", (10, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    return bar


@pytest.mark.parametrize("classes", [("matrix", "coarse", "fine"), ("matrix", "precipitate"), ("boundary", "grain")])
def test_models_of_other_classes_are_refused(classes, folder, tmp_path):
    card = Card("lite0", ClassMap("other", classes, {0: 0}, ("#000000",) * len(classes)), (15.0, 60.0))
    with pytest.raises(segment.SegmentError, match=f"tells {', '.join(classes)} apart; .* one of grain, boundary"):
        segment.segment_folder(Segmenter(Dark(), card), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_result_of_another_run_is_left_among_the_new_ones(folder, tmp_path):
    out = tmp_path / "out"
    segment.segment_folder(segmenter(), folder, out)
    (folder / "a.png").write_bytes(b"")
    segment.segment_folder(segmenter(), folder, out)
    table = read_table(out / "measurements.csv").set_index("name")
    assert (
        table["status"].tolist() == ["failed", "segmented", "segmented"] and "0 bytes" in table.loc["a.png", "remark"]
    )
    assert table.loc["a.png", "height":].isna().all()
    assert not (out / "masks" / "a.png").exists() and not (out / "overlays" / "a.png").exists()
    (folder / "b.tif").rename(folder / "other.tif")
    with pytest.raises(segment.SegmentError, match=r"out holds results of other images \(b\.tif\); give another OUT"):
        segment.segment_folder(segmenter(), folder, out)
    only_broken = tmp_path / "broken"
    only_broken.mkdir()
    (only_broken / "a.png").write_bytes(b"")
    assert segment.segment_folder(segmenter(), only_broken, tmp_path / "second").failures.keys() == {"a.png"}
    assert read_table(tmp_path / "second" / "measurements.csv")["status"].tolist() == ["failed"]


def test_a_killed_run_keeps_what_is_done_and_can_be_repeated(model, folder, tmp_path, monkeypatch, capsys):
    def killed(path, *rest):
        if path.stem == "b":
            raise KeyboardInterrupt
        write(path, *rest)

    out, write = tmp_path / "out", segment._write_overlay
    with monkeypatch.context() as patched:
        patched.setattr(segment, "_write_overlay", killed)
        assert micro_lib(["segment", str(model), str(folder), str(out)]) == 130
    assert "measurements.csv says which images are done" in capsys.readouterr().err
    table = read_table(out / "measurements.csv")
    assert table["status"].tolist() == ["segmented", "not reached", "not reached"]
    assert table["boundary_fraction"].notna().tolist() == [True, False, False]
    assert micro_lib(["segment", str(model), str(folder), str(out)]) == 0


@pytest.mark.parametrize("file", ["masks/a.png", "overlays/z.png", "measurements.csv"])
def test_what_others_made_is_never_overwritten(file, folder, tmp_path):
    path = tmp_path / "out" / file
    path.parent.mkdir(parents=True)
    path.write_text("name\nmine\n")
    with pytest.raises(segment.SegmentError, match=rf"{path.name} was not made by this command; give another OUT"):
        segment.segment_folder(segmenter(), folder, tmp_path / "out")
    assert path.read_text() == "name\nmine\n" and len(list((tmp_path / "out").rglob("*.*"))) == 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "grains.safetensors"
    Segmenter(unet.build("lite0", weights="random"), Card("lite0", GRAIN_BOUNDARY, (1.0, 500.0))).save(path)
    return path


def test_the_command(model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert micro_lib(["segment", str(model), str(folder), str(out), "--pixel-size-um", "0.5"]) == 0
    assert "3 of 3 images segmented" in capsys.readouterr().out
    assert mask_of(out, "b").shape == (200, 240) and len(read_table(out / "measurements.csv")) == 3
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    assert micro_lib(["segment", str(model), str(folder), str(out)]) == 1
    captured = capsys.readouterr()
    assert "failed: broken.png" in captured.err and "3 of 4 images segmented" in captured.out


def test_boundaries_are_as_wide_as_asked(folder, tmp_path):
    drawn = Segmenter(Dark(), Card("lite0", GRAIN_BOUNDARY, (15.0, 60.0), line_px=4))
    covered = {}
    for line_px in (0, 2, 6):
        segment.segment_folder(drawn, folder, tmp_path / str(line_px), line_px=line_px)
        covered[line_px] = mask_of(tmp_path / str(line_px), "b").mean()
    assert 2 * covered[2] < covered[6] and covered[2] < covered[0] < covered[6]
    with pytest.raises(segment.SegmentError, match="draws no lines: leave out --line-px"):
        segment.segment_folder(segmenter(), folder, tmp_path / "none", line_px=3)


@pytest.mark.parametrize(
    "case",
    ["no model", "no folder", "damaged model", "bad pixel size", "decimal comma", "OUT is a file", "OUT in a file"],
)
def test_the_command_refuses_with_exit_code_2(case, model, folder, tmp_path, capsys):
    arguments = [str(model), str(folder), str(tmp_path / "out")]
    if case == "no model":
        arguments[0] = str(tmp_path / "none.safetensors")
    elif case == "no folder":
        arguments[1] = str(tmp_path / "none")
    elif case == "damaged model":
        (tmp_path / "bad.safetensors").write_bytes(model.read_bytes()[:-1])
        arguments[0] = str(tmp_path / "bad.safetensors")
    elif case.startswith("OUT"):
        (tmp_path / "file").write_text("mine")
        arguments[2] = str(tmp_path / "file" / "out" if case == "OUT in a file" else tmp_path / "file")
    size = {"bad pixel size": "-1", "decimal comma": "0,5"}.get(case, "1")
    try:
        code = micro_lib(["segment", *arguments, "--pixel-size-um", size])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    words = {
        "no model": "no model file",
        "no folder": "no folder",
        "damaged model": "damaged",
        "bad pixel size": "-1 is not a positive number",
        "decimal comma": "0,5 is not a positive number, with a point as decimal sign",
        "OUT is a file": "file is no folder that results can be written to",
        "OUT in a file": "out is no folder that results can be written to",
    }
    assert words[case] in capsys.readouterr().err
