"""`check` reports every fault of a folder in one go, in words, and none where there is none."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from micro_lib.__main__ import main
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.data.check import COLUMNS, check, describe
from micro_lib.data.files import read_micrograph, write_mask, write_micrograph

IDS = ClassMap("ids", ("grain", "boundary", "pore"), {0: 0, 1: 1, 2: 2}, ("#000000", "#777777", "#ffffff"))


def noisy(shape=(40, 50), seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def mask(shape=(40, 50), n=3):
    return (np.arange(shape[0] * shape[1]).reshape(shape) % n).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A sound folder of three micrographs with masks."""
    for i in range(3):
        write_micrograph(tmp_path / "images" / f"a{i}.tif", noisy(seed=i), 0.5)
        write_mask(tmp_path / "masks" / f"a{i}.png", mask())
    return tmp_path


def row_of(problems, file, word=""):
    rows = problems[(problems["file"] == file) & problems["found"].str.contains(word, regex=False)]
    assert len(rows) == 1, f"{len(rows)} rows for {file} with {word!r}:\n{describe(problems)}"
    return rows.iloc[0]


def test_a_sound_folder_has_no_problem(folder):
    problems = check(folder, IDS)
    assert list(problems.columns) == list(COLUMNS)
    assert problems.empty, describe(problems)
    assert describe(problems) == "no problems found"
    assert check(folder).empty  # ids 0..2 need no map to look right


def test_unpaired_names_both_ways_with_the_likely_partner(folder):
    (folder / "masks" / "a0.png").rename(folder / "masks" / "a0_mask.png")
    (folder / "masks" / "a1.png").rename(folder / "masks" / "A1.png")
    (folder / "masks" / "a2.png").rename(folder / "masks" / "other.png")
    problems = check(folder, IDS)
    assert "Rename a0_mask.png" in row_of(problems, "images/a0.tif", "no mask").fix
    assert "Rename A1.png" in row_of(problems, "images/a1.tif", "no mask").fix
    assert row_of(problems, "images/a2.tif", "no mask").fix == "Add its mask or remove it."
    for file in ("masks/a0_mask.png", "masks/A1.png", "masks/other.png"):
        assert row_of(problems, file, "no image").severity == "error"
    assert len(problems) == 6


def test_sizes_that_differ(folder):
    write_mask(folder / "masks" / "a0.png", mask((40, 49)))
    write_mask(folder / "masks" / "a1.png", mask((50, 40)))
    problems = check(folder, IDS)
    row = row_of(problems, "masks/a0.png", "40x49")
    assert (row.severity, row.expected) == ("error", "40x50, the size of its image")
    assert "swapped" in row_of(problems, "masks/a1.png").fix
    assert len(problems) == 2


def test_unknown_ids_with_their_counts(folder):
    odd = mask()
    odd[0, :4] = 9
    write_mask(folder / "masks" / "a1.png", odd)
    row = row_of(check(folder, IDS), "masks/a1.png")
    assert "9: 4 px" in row.found
    assert "'ids'" in row.expected


def test_black_and_white_where_ids_are_meant(folder):
    for i in range(3):
        write_mask(folder / "masks" / f"a{i}.png", mask(n=2) * 255)
    with_map, without_map = check(folder, IDS), check(folder)
    assert len(with_map) == len(without_map) == 3
    assert set(with_map["severity"]) == {"error"}
    assert set(without_map["severity"]) == {"warning"}
    for problems in (with_map, without_map):
        assert problems["fix"].str.contains("values={0: 0, 255: 1}", regex=False).all()
        assert problems["found"].str.contains("255: 1000 px", regex=False).all()
    assert check(folder, GRAIN_BOUNDARY).empty


def test_colour_masks_without_a_map_list_their_colours(folder):
    rgb = np.zeros((40, 50, 3), np.uint8)
    rgb[:10] = (255, 0, 0)
    Image.fromarray(rgb).save(folder / "masks" / "a0.png")
    row = row_of(check(folder), "masks/a0.png")
    assert "(0, 0, 0): 1500 px; (255, 0, 0): 500 px" in row.found
    assert "values={(0, 0, 0): 0, (255, 0, 0): 1}" in row.fix


def test_classes_that_occur_nowhere(folder):
    for i in range(3):
        write_mask(folder / "masks" / f"a{i}.png", mask(n=2))
    problems = check(folder, IDS)
    assert row_of(problems, "masks").found == "class 2 (pore) in none of 3 masks"
    write_mask(folder / "masks" / "a2.png", mask(n=3))  # absent from two masks, present in one: all is well
    assert check(folder, IDS).empty


def test_broken_files_of_every_kind(folder):
    whole = (folder / "images" / "a0.tif").read_bytes()
    (folder / "images" / "a0.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "a1.tif").write_bytes(b"")
    (folder / "images" / "a2.tif").write_bytes((folder / "masks" / "a2.png").read_bytes())
    (folder / "masks" / "a0.png").write_bytes((folder / "masks" / "a0.png").read_bytes()[:-20])
    (folder / "masks" / "a1.png").write_bytes(b"not an image at all")
    problems = check(folder, IDS)
    assert len(problems) == 5
    assert set(problems["severity"]) == {"error"}
    assert row_of(problems, "images/a1.tif").found == "0 bytes"
    assert "PNG data" in row_of(problems, "images/a2.tif").found
    assert row_of(problems, "images/a2.tif").fix == "Rename it to end in .png."
    for file in ("images/a0.tif", "masks/a0.png", "masks/a1.png"):
        assert row_of(problems, file).fix == "Copy it again from its source, or export it anew."


def test_mixed_bit_depths_and_missing_pixel_sizes(folder):
    write_micrograph(folder / "images" / "a1.tif", noisy().astype(np.uint16) * 200, 0.5)
    write_micrograph(folder / "images" / "a2.tif", noisy())
    problems = check(folder, IDS)
    assert "uint16 pixels in 1 of 3 images" in row_of(problems, "images/a1.tif").found
    row = row_of(problems, "images/a2.tif")
    assert "no pixel size in 1 of 3 images" in row.found
    assert (row.severity, "pixel_size_um" in row.fix) == ("warning", True)
    assert len(problems) == 2


def test_screen_resolution_and_vendor_text_are_shown(folder):
    tags = [(34118, "s", 0, "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 111.6 nm\r\n", True)]
    options = {"resolution": (96, 96), "resolutionunit": 2, "metadata": None, "extratags": tags}
    tifffile.imwrite(folder / "images" / "a0.tif", noisy(), **options)
    found = row_of(check(folder, IDS), "images/a0.tif").found
    assert "96 dpi, that of a screen or printer" in found
    assert "111.6" in found


def test_information_bar_and_a_mask_without_it(folder):
    bar = np.zeros((30, 400), np.uint8)
    cv2.putText(bar, "WD 8.5 mm  HV 20 kV", (10, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    write_micrograph(folder / "images" / "a0.tif", np.vstack([noisy((200, 400)), bar]), 0.5)
    write_mask(folder / "masks" / "a0.png", mask((200, 400)))
    problems = check(folder, IDS)
    assert row_of(problems, "images/a0.tif").found == "an information bar in the last 30 rows"
    assert "crop_info_bar=True" in row_of(problems, "masks/a0.png", "200x400").fix
    assert read_micrograph(folder / "images" / "a0.tif", crop_info_bar=True).pixels.shape == (200, 400)


def test_names_that_clash(folder):
    write_micrograph(folder / "images" / "a0.png", noisy())
    write_micrograph(folder / "images" / "A1.tif", noisy(), 0.5)
    (folder / "images" / "notes.txt").write_text("x")
    problems = check(folder, IDS)
    assert "the stem of a0.png again" in row_of(problems, "images/a0.tif").found
    assert "A1, a1" in row_of(problems, "images/A1.tif", "case only").found
    assert row_of(problems, "images/notes.txt").severity == "info"


def test_a_folder_of_micrographs_only(tmp_path):
    write_micrograph(tmp_path / "b.tif", noisy(), 0.5)
    assert check(tmp_path).empty
    write_micrograph(tmp_path / "images" / "c.tif", noisy(), 0.5)
    assert check(tmp_path)["severity"].tolist() == ["info"]


def test_whoever_names_classes_is_told_where_no_masks_are(folder):
    (folder / "masks").rename(folder / "labels")
    row = row_of(check(folder, IDS), ".")
    assert (row.severity, row.found) == ("error", "no masks folder, but labels")
    assert check(folder)["severity"].tolist() == ["info"]
    assert check(folder / "images", IDS)["found"].tolist() == ["no masks folder"]


def test_empty_and_missing_folders(tmp_path):
    assert check(tmp_path)["found"].tolist() == ["no micrographs"]
    with pytest.raises(NotADirectoryError, match="absent is no folder; expected one with images"):
        check(tmp_path / "absent")


def test_all_at_once_errors_first_and_every_row_in_the_text(folder):
    (folder / "images" / "a0.tif").write_bytes(b"")
    write_mask(folder / "masks" / "a1.png", mask((4, 4)))
    write_micrograph(folder / "images" / "a2.tif", noisy())
    (folder / "masks" / "extra.png").write_bytes((folder / "masks" / "a2.png").read_bytes())
    (folder / "images" / "readme.md").write_text("x")
    problems = check(folder, IDS)
    assert problems["severity"].tolist() == ["error"] * 3 + ["warning", "info"]
    text = describe(problems)
    assert text.startswith("3 errors, 1 warning, 1 info\n")
    for row in problems.itertuples():
        assert f"{row.severity}: {row.file}" in text
        assert row.fix in text
    assert not problems.isin([""]).any(axis=None)


def as_pack(folder, text):
    """Make the micrographs PNG, as in a pack, and write a manifest."""
    for file in list((folder / "images").iterdir()):
        write_micrograph(file.with_suffix(".png"), read_micrograph(file).pixels)
        file.unlink()
    (folder / "manifest.csv").write_text(text, encoding="utf-8")


def test_a_sound_pack_has_no_problem_and_its_scale_from_the_manifest(folder):
    as_pack(folder, "name,specimen,um_per_px\na0,s,0.5\na1,s,0.5\na2,s,\n")
    problems = check(folder, IDS)
    assert row_of(problems, "images/a2.png").found.startswith("no pixel size in 1 of 3 images")
    assert "um_per_px in manifest.csv" in problems["fix"][0] and len(problems) == 1


def test_manifest_and_images_are_held_against_each_other(folder):
    as_pack(folder, 'name,specimen,um_per_px\na0,s,0.5\na1,s,0.5\na1,s,0.5\n1,,"0,5"\n')
    (folder / "images" / "a2.png").rename(folder / "images" / "001.png")
    (folder / "masks" / "a2.png").rename(folder / "masks" / "001.png")
    write_micrograph(folder / "images" / "a0.tif", noisy())
    (folder / "images" / "a0.png").unlink()
    problems = check(folder, IDS)
    for word in (
        "name 'a1' in lines 3, 4",
        "neither specimen nor overlap_group in line 5",
        "um_per_px '0,5' in line 5",
    ):
        assert row_of(problems, "manifest.csv", word).severity == "error"
    assert "Write 001: names are text" in row_of(problems, "manifest.csv", "name '1' without an image").fix
    assert row_of(problems, "images/001.png", "no row in manifest.csv").severity == "warning"
    assert row_of(problems, "images/a0.tif", "a .tif file").expected == "a0.png, as in all packs"
    assert (problems["severity"] == "error").sum() == 5


def test_a_manifest_that_cannot_be_read_is_one_problem(folder):
    as_pack(folder, "")
    assert (
        row_of(check(folder, IDS)[lambda table: table["severity"] == "error"], "manifest.csv").found == "an empty file"
    )


def test_the_command_prints_every_problem_and_fails_where_something_cannot_be_used(folder, capsys):
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out == "no problems found\n"
    write_micrograph(folder / "images" / "a1.tif", noisy())
    assert main(["check", str(folder), "--classes", "grain", "boundary", "pore"]) == 0, "a warning alone"
    assert "warning: images/a1.tif" in capsys.readouterr().out
    write_mask(folder / "masks" / "a2.png", mask(n=4))
    assert main(["check", str(folder), "--classes", "grain", "boundary", "pore"]) == 1
    out = capsys.readouterr().out
    assert "error: masks/a2.png" in out and "3: 500 px" in out and "warning: images/a1.tif" in out


def test_the_command_takes_grey_levels_and_known_packs(folder, capsys):
    for i in range(3):
        write_mask(folder / "masks" / f"a{i}.png", mask(n=2) * 255)
    known = ["grain=0", "boundary=255"], ["ss316l_grains"]
    unknown = ["grain", "boundary"], ["nasa_ebc"]
    for classes, code in zip((*known, *unknown), (0, 0, 1, 1), strict=True):
        assert main(["check", str(folder), "--classes", *classes]) == code, classes
    assert "--classes NAME=0 NAME=255" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["crack"], "give two names or more, or one pack of ebc_crack_tiles"),
        (["grain", "grain"], "no name and no grey level twice"),
        (["grain=1", "crack"], "no grey level twice"),
        (["grain=dark", "crack"], "NAME=GREY_LEVEL"),
    ],
)
def test_the_command_refuses_class_maps_that_are_none(folder, capsys, classes, words):
    assert main(["check", str(folder), "--classes", *classes]) == 2
    assert words in capsys.readouterr().err
    assert main(["check", str(folder / "absent")]) == 2
    assert "absent is no folder" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("MICRO_DATA"), reason="MICRO_DATA is not set: no real packs here")
def test_a_real_pack_lacks_only_its_scale():
    folder = Path(os.environ["MICRO_DATA"]) / "nasa_superalloy"
    problems = check(folder, IDS)
    assert problems["severity"].tolist() == ["warning"], describe(problems)
    assert "no pixel size in 15 of 15 images" in problems["found"][0]
