"""Reading and writing micrographs: no grey level, no class id and no pixel size may be lost or invented."""

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap
from micro_lib.data.files import (
    MicrographError,
    info_bar_rows,
    read_mask,
    read_micrograph,
    write_mask,
    write_micrograph,
)
from micro_lib.data.formats import read_pixel_size

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=33)
FINITE = {"allow_nan": False, "allow_infinity": False, "width": 32}
COLOURS = ClassMap("two_colours", ("rest", "red"), {(0, 0, 255): 0, (255, 0, 0): 1}, ("#000000", "#ffffff"))
THREE = ClassMap("three", ("a", "b", "c"), {0: 0, 1: 1, 2: 2}, ("#000000", "#777777", "#ffffff"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def greys(dtype):
    elements = st.floats(**FINITE) if dtype == np.float32 else None
    return hnp.arrays(dtype, SHAPES, elements=elements)


def noisy(shape, dtype=np.uint8, seed=0):
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (np.random.default_rng(seed).random(shape) * top).astype(dtype)


# Grey levels


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.one_of(greys(np.uint8), greys(np.uint16), greys(np.float32)),
    size=st.none() | st.floats(1e-4, 50),
)
def test_tiff_keeps_every_pixel_and_the_pixel_size(folder, pixels, size):
    write_micrograph(folder / "a.tif", pixels, size)
    image = read_micrograph(folder / "a.tif")
    assert image.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixel_size_um == (None if size is None else pytest.approx(size, rel=1e-6))


@settings(max_examples=40, deadline=None)
@given(pixels=st.one_of(greys(np.uint8), greys(np.uint16)))
def test_png_keeps_every_pixel(folder, pixels):
    write_micrograph(folder / "a.png", pixels)
    image = read_micrograph(folder / "a.png")
    assert image.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(image.pixels, pixels)


@settings(max_examples=40, deadline=None)
@given(pixels=st.one_of(greys(np.uint8), greys(np.uint16)), suffix=st.sampled_from([".png", ".tif"]))
def test_equal_channels_are_that_grey_exactly(folder, pixels, suffix):
    file = folder / f"rgb{suffix}"
    assert cv2.imwrite(str(file), np.repeat(pixels[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_micrograph(file).pixels, pixels)


@settings(max_examples=40, deadline=None)
@given(rgb=hnp.arrays(np.uint8, SHAPES.map(lambda shape: (*shape, 3))))
def test_colour_is_the_luminance_pillow_computes(folder, rgb):
    Image.fromarray(rgb).save(folder / "c.png")
    expected = np.asarray(Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(read_micrograph(folder / "c.png").pixels, expected)


def test_16_bit_colour_png_is_not_halved_to_8_bits(folder):
    bgr = np.zeros((3, 5, 3), np.uint16)
    bgr[..., 0], bgr[..., 1], bgr[..., 2] = 1000, 20000, 60000  # blue, green, red
    cv2.imwrite(str(folder / "deep.png"), bgr)
    pixels = read_micrograph(folder / "deep.png").pixels
    assert pixels.dtype == np.uint16
    assert np.all(pixels == round((60000 * 19595 + 20000 * 38470 + 1000 * 7471) / 65536))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_lzw_tiff_is_read_at_full_depth(folder, dtype, channels):
    pixels = np.repeat(noisy((17, 30, 1), dtype), channels, axis=2)
    cv2.imwrite(str(folder / "lzw.tif"), pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    with tifffile.TiffFile(folder / "lzw.tif") as tif:
        assert tif.pages[0].compression == 5
    image = read_micrograph(folder / "lzw.tif")
    assert image.pixels.dtype == dtype
    np.testing.assert_array_equal(image.pixels, pixels[..., 0])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inverted_tiff_is_turned_the_right_way(folder, dtype, compression):
    pixels = noisy((9, 14), dtype)
    tifffile.imwrite(folder / "white.tif", ~pixels, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_micrograph(folder / "white.tif").pixels, pixels)


def test_tiff_by_other_compressions_is_what_pillow_shows(folder):
    grey = Image.fromarray(noisy((20, 31)))
    grey.save(folder / "white.tif", compression="tiff_lzw", tiffinfo={262: 0})
    grey.convert("1").save(folder / "fax.tif", compression="group4")
    grey.save(folder / "jpeg.tif", compression="jpeg")
    for name in ("white.tif", "fax.tif", "jpeg.tif"):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(read_micrograph(folder / name).pixels, np.asarray(image.convert("L")))


def test_planar_big_endian_and_bilevel_tiff(folder):
    pixels = noisy((8, 11), np.uint16)
    tifffile.imwrite(folder / "p.tif", np.stack([pixels] * 3), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_micrograph(folder / "p.tif").pixels, pixels)
    tifffile.imwrite(folder / "b.tif", pixels, byteorder=">")
    back = read_micrograph(folder / "b.tif").pixels
    assert back.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(back, pixels)
    for photometric, bright in (("minisblack", pixels > 30000), ("miniswhite", pixels <= 30000)):
        tifffile.imwrite(folder / "bits.tif", pixels > 30000, photometric=photometric)
        np.testing.assert_array_equal(read_micrograph(folder / "bits.tif").pixels, bright * 255)


def test_palette_image_is_its_colours_not_its_indices(folder):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([0, 0, 0, 200, 200, 200, 90, 90, 90])
    for name in ("p.png", "pal.tif"):
        image.save(folder / name)
        np.testing.assert_array_equal(read_micrograph(folder / name).pixels, [[0, 200, 90]])


def test_jpeg_is_read_as_pillow_reads_it(folder):
    Image.fromarray(cv2.GaussianBlur(noisy((40, 61)), (0, 0), 3)).save(folder / "a.jpg", quality=80)
    with Image.open(folder / "a.jpg") as image:
        np.testing.assert_array_equal(read_micrograph(folder / "a.jpg").pixels, np.asarray(image))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_is_dropped_and_transparency_refused(folder, suffix, channels):
    pixels = noisy((6, 7))
    file = folder / f"alpha{channels}.{suffix}"
    full = np.dstack([pixels] * (channels - 1) + [np.full_like(pixels, 255)])
    Image.fromarray(full).save(file)
    np.testing.assert_array_equal(read_micrograph(file).pixels, pixels)
    full[2, 3, -1] = 254
    Image.fromarray(full).save(file)
    with pytest.raises(MicrographError, match=r"2\.38% of the pixels transparent.*Flatten"):
        read_micrograph(file)


@pytest.mark.parametrize("planar", [False, True])
def test_more_channels_than_a_colour_has_are_refused(folder, planar):
    pixels = np.dstack([noisy((8, 11))] * 5)
    stored = {"planarconfig": "separate" if planar else "contig", "photometric": "minisblack"}
    tifffile.imwrite(folder / "five.tif", pixels.transpose(2, 0, 1) if planar else pixels, **stored)
    with pytest.raises(MicrographError, match=r"five\.tif: .*5.*expected .*Save"):
        read_micrograph(folder / "five.tif")


def test_number_types_are_kept_or_refused_never_wrapped(folder):
    file = folder / "n.tif"
    tifffile.imwrite(file, np.array([[0, 65535]], np.int32))
    assert read_micrograph(file).pixels.dtype == np.uint16
    tifffile.imwrite(file, np.array([[0, 65536]], np.uint32))
    with pytest.raises(MicrographError, match="uint32 values from 0 to 65536"):
        read_micrograph(file)
    tifffile.imwrite(file, np.array([[-1, 5]], np.int16))
    with pytest.raises(MicrographError, match="int16 values from -1 to 5"):
        read_micrograph(file)
    tifffile.imwrite(file, np.array([[0.5, np.nan]], np.float32))
    with pytest.raises(MicrographError, match="1 pixels that are no number"):
        read_micrograph(file)


def test_a_stack_is_refused_but_a_preview_does_no_harm(folder):
    tifffile.imwrite(folder / "s.tif", np.zeros((4, 8, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(MicrographError, match="a stack of 4 images"):
        read_micrograph(folder / "s.tif")
    with tifffile.TiffWriter(folder / "v.tif") as tif:
        tif.write(noisy((8, 9)))
        tif.write(noisy((4, 4)))
    np.testing.assert_array_equal(read_micrograph(folder / "v.tif").pixels, noisy((8, 9)))


# Broken files


def whole_files(folder):
    pixels = noisy((60, 70))
    write_micrograph(folder / "w.tif", pixels)
    write_micrograph(folder / "w.png", pixels)
    Image.fromarray(pixels).save(folder / "w.jpg")
    Image.fromarray(pixels).save(folder / "lzw.tif", compression="tiff_lzw")
    with tifffile.TiffFile(folder / "lzw.tif") as tif:  # the same with the directory before the pixels
        handle, page = tif.filehandle, tif.pages[0]
        strips = list(handle.read_segments(page.dataoffsets, page.databytecounts))
    options = {"shape": (60, 70), "dtype": np.uint8, "rowsperstrip": page.rowsperstrip, "compression": "zlib"}
    tifffile.imwrite(folder / "lzw_first.tif", (data for data, _ in strips), **options)
    with tifffile.TiffFile(folder / "lzw_first.tif", mode="r+b") as tif:
        tif.pages[0].tags["Compression"].overwrite(5)
    return [folder / name for name in ("w.tif", "w.png", "w.jpg", "lzw.tif", "lzw_first.tif")]


@pytest.mark.parametrize("kept", [0.999, 0.97, 0.5, 0.1, 0.01])
def test_truncated_files_are_named_never_filled_up(folder, kept):
    for file in whole_files(folder):
        read_micrograph(file)
        cut = folder / f"cut_{file.name}"
        cut.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
        with pytest.raises(MicrographError, match=cut.name) as caught:
            read_micrograph(cut)
        if file.name in ("w.tif", "lzw_first.tif") and kept >= 0.5:  # directory first: the size itself tells
            assert f"found {cut.stat().st_size} bytes where the pixels end at" in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), magic=st.sampled_from([b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
def test_rubbish_behind_a_right_start_raises_our_error_only(folder, data, magic):
    suffix = {b"I": ".tif", b"M": ".tif", b"\x89": ".png", b"\xff": ".jpg"}[magic[:1]]
    file = folder / f"rubbish{suffix}"
    file.write_bytes(magic + data)
    with pytest.raises(MicrographError, match="rubbish"):
        read_micrograph(file)


def test_empty_misnamed_missing_and_foreign_files(folder):
    (folder / "zero.png").touch()
    with pytest.raises(MicrographError, match="found 0 bytes; expected PNG data"):
        read_micrograph(folder / "zero.png")
    write_micrograph(folder / "right.png", noisy((3, 4)))
    (folder / "wrong.tif").write_bytes((folder / "right.png").read_bytes())
    with pytest.raises(MicrographError, match=r"found PNG data.*Rename it to end in \.png"):
        read_micrograph(folder / "wrong.tif")
    with pytest.raises(MicrographError, match="no readable file"):
        read_micrograph(folder / "absent.tif")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(MicrographError, match=r"found a \.txt file"):
        read_micrograph(folder / "notes.txt")


# Pixel size


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("um", 1),
        ("micron", 1),
        ("microns", 1),
        ("\\u00B5m", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400),
    ],
)
def test_imagej_units(folder, unit, um):
    tifffile.imwrite(folder / "u.tif", noisy((4, 5)), imagej=True, resolution=(8.0, 8.0), metadata={"unit": unit})
    assert read_pixel_size(folder / "u.tif")[0] == pytest.approx(um / 8)


@pytest.mark.parametrize(("sign", "encoding"), [("\u00b5m", "latin-1"), ("\u00b5m", "utf-8"), ("\u03bcm", "utf-8")])
def test_imagej_micro_sign_as_other_programs_write_it(folder, sign, encoding):
    text = f"ImageJ=1.53t\nunit={sign}\n".encode(encoding)
    tags = [(270, "s", 0, text, True)]
    tifffile.imwrite(
        folder / "u.tif", noisy((4, 5)), description=None, metadata=None, resolution=(4.0, 4.0), extratags=tags
    )
    assert read_pixel_size(folder / "u.tif")[0] == pytest.approx(0.25)


@pytest.mark.parametrize("unit", ["pixel", "", "furlong"])
def test_imagej_without_a_length_gives_none(folder, unit):
    tifffile.imwrite(folder / "u.tif", noisy((4, 5)), imagej=True, resolution=(8.0, 8.0), metadata={"unit": unit})
    size, reason = read_pixel_size(folder / "u.tif")
    assert size is None
    assert "no length" in reason or "no resolution" in reason


@pytest.mark.parametrize(("unit", "per", "um"), [(2, 254000.0, 0.1), (3, 50000.0, 0.2), (2, 12700.0, 2.0)])
def test_tiff_resolution_tags(folder, unit, per, um):
    tifffile.imwrite(folder / "r.tif", noisy((4, 5)), resolution=(per, per), resolutionunit=unit)
    assert read_pixel_size(folder / "r.tif")[0] == pytest.approx(um)


@pytest.mark.parametrize(("unit", "per"), [(2, 72), (2, 96), (2, 300), (2, 1200), (2, 2400), (3, 28.35), (3, 118.11)])
def test_screen_and_print_resolutions_are_no_scale(folder, unit, per):
    tifffile.imwrite(folder / "dpi.tif", noisy((4, 5)), resolution=(per, per), resolutionunit=unit)
    assert read_micrograph(folder / "dpi.tif").pixel_size_um is None
    assert "dpi, that of a screen or printer" in read_pixel_size(folder / "dpi.tif")[1]


def test_resolution_without_unit_and_oblong_pixels_are_no_scale(folder):
    tifffile.imwrite(folder / "o.tif", noisy((4, 5)), resolution=(50000.0, 50000.0), resolutionunit=1)
    assert "without a unit" in read_pixel_size(folder / "o.tif")[1]
    tifffile.imwrite(folder / "o.tif", noisy((4, 5)), resolution=(50000.0, 40000.0), resolutionunit=3)
    size, reason = read_pixel_size(folder / "o.tif")
    assert size is None
    assert "not square" in reason


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (34118, "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 111.6 nm\r\nAP_MAG\r\nMag = 1.00 K X\r\n"),
        (34682, "[Scan]\r\nPixelWidth=5.0e-8\r\nDwelltime=1e-6\r\n"),
    ],
)
def test_vendor_tags_are_quoted_not_guessed(folder, code, text):
    tags = [(code, "s", 0, text, True)]
    tifffile.imwrite(folder / "sem.tif", noisy((4, 5)), metadata=None, extratags=tags)
    assert read_micrograph(folder / "sem.tif").pixel_size_um is None
    reason = read_pixel_size(folder / "sem.tif")[1]
    assert "not interpreted" in reason and ("111.6" in reason or "5e-08" in reason)


def test_given_pixel_size_wins_and_contradiction_is_said(folder):
    write_micrograph(folder / "g.tif", noisy((4, 5)), 0.5)
    with pytest.warns(UserWarning, match=r"using the given 500 um/px; the file says ImageJ tags \(0\.5 um/px\)"):
        assert read_micrograph(folder / "g.tif", 500.0).pixel_size_um == 500.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_micrograph(folder / "g.tif", 0.501).pixel_size_um == 0.501
        assert read_micrograph(folder / "g.tif").pixel_size_um == pytest.approx(0.5)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a positive number"):
            read_micrograph(folder / "g.tif", bad)


def test_writer_refuses_what_a_format_cannot_hold(folder):
    with pytest.raises(MicrographError, match=r"Write a \.tif"):
        write_micrograph(folder / "x.png", noisy((4, 5)), 0.5)
    with pytest.raises(MicrographError, match="uint8 uint16"):
        write_micrograph(folder / "x.png", noisy((4, 5), np.float32))
    with pytest.raises(MicrographError, match=r"\(4, 5, 3\)"):
        write_micrograph(folder / "x.tif", noisy((4, 5, 3)))
    with pytest.raises(MicrographError, match=r"\.tif or \.png"):
        write_micrograph(folder / "x.jpg", noisy((4, 5)))
    assert not list(folder.glob("x.*"))


# Information bar


def with_bar(pixels, rows, background, ink, line=False):
    """Draw a bar with text, boxes and a scale line under an image of 8 bits."""
    bar = np.full((rows, pixels.shape[1]), background, np.uint8)
    for x in range(10, pixels.shape[1] - 120, 160):
        cv2.putText(bar, "HV 20.0 kV", (x, rows - rows // 3), cv2.FONT_HERSHEY_SIMPLEX, rows / 70, ink, 1, cv2.LINE_AA)
    cv2.rectangle(bar, (pixels.shape[1] - 100, rows // 2), (pixels.shape[1] - 20, rows // 2 + 3), ink, -1)
    if line:
        bar[0] = ink
    return np.vstack([pixels, bar])


def textured(height=300, width=480, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 6) * 400 + noise * 8 + 120, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("background", "ink"), [(0, 255), (255, 0), (40, 230)])
@pytest.mark.parametrize("rows", [24, 50])
@pytest.mark.parametrize("line", [False, True])
@pytest.mark.parametrize("kind", ["png", "jpg", "uint16", "float32"])
def test_bar_is_found_to_the_row_and_cropped_on_request_only(folder, background, ink, rows, line, kind):
    pixels = with_bar(textured(), rows, background, ink, line)
    file = folder / f"bar.{kind if kind in ('png', 'jpg') else 'tif'}"
    if kind == "jpg":
        Image.fromarray(pixels).save(file, quality=90)
    elif kind == "png":
        write_micrograph(file, pixels)
    else:
        write_micrograph(file, pixels.astype(kind) * (257 if kind == "uint16" else 0.01), 0.2)
    whole, cropped = read_micrograph(file), read_micrograph(file, crop_info_bar=True)
    assert whole.pixels.shape == pixels.shape
    slack = 8 if kind == "jpg" else 0  # JPEG blurs the border within a block of 8
    assert abs(len(cropped.pixels) - 300) <= slack
    np.testing.assert_array_equal(cropped.pixels, whole.pixels[: len(cropped.pixels)])
    assert cropped.pixel_size_um == whole.pixel_size_um


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(20, 200), width=st.integers(20, 200))
def test_no_bar_where_there_is_none(seed, height, width):
    rng = np.random.default_rng(seed)
    assert info_bar_rows(textured(height, width, seed)) == 0
    assert info_bar_rows(np.full((height, width), rng.integers(256), np.uint8)) == 0
    two_phases = np.where(textured(height, width, seed) > 130, 200, 60).astype(np.uint8)
    assert info_bar_rows(two_phases) == 0


def test_dark_resin_at_the_bottom_is_no_bar():
    pixels = textured()
    pixels[240:] = np.random.default_rng(1).poisson(3, (60, pixels.shape[1]))
    assert info_bar_rows(pixels) == 0


@pytest.mark.skipif(not os.environ.get("MICRO_DATA"), reason="MICRO_DATA is not set: no real micrographs here")
@pytest.mark.parametrize("name", ["nasa_ebc", "nasa_superalloy", "sx_superalloy_1070C", "uhcs", "ebc_crack_tiles"])
def test_no_real_micrograph_without_a_bar_is_mistaken(name):
    images = sorted((Path(os.environ["MICRO_DATA"]) / name / "images").glob("*.png"))
    assert images
    assert [file.name for file in images if info_bar_rows(read_micrograph(file).pixels)] == []


def test_saturated_ground_with_a_scratch_is_no_bar():
    pixels = np.where(textured() > 110, 255, textured())  # most rows are largely white
    pixels[240:243] = textured(3, seed=2)
    assert info_bar_rows(pixels) == 0


# Masks


@settings(max_examples=40, deadline=None)
@given(ids=hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 2)))
def test_mask_of_ids_round_trip(folder, ids):
    write_mask(folder / "m.png", ids)
    back = read_mask(folder / "m.png", THREE)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, ids)


@pytest.mark.parametrize(
    "form", ["grey.png", "grey.tif", "rgb.png", "rgba.png", "palette.png", "lzw.tif", "bilevel.png"]
)
def test_black_and_white_masks_in_every_form_become_ids(folder, form):
    ids = (noisy((9, 13)) > 128).astype(np.uint8)
    image = Image.fromarray(ids * 255)
    if form == "palette.png":
        image = image.convert("P")
    elif form in ("rgb.png", "rgba.png"):
        image = image.convert(form.split(".")[0].upper())
    elif form == "bilevel.png":
        image = image.convert("1")
    image.save(folder / form, **({"compression": "tiff_lzw"} if form == "lzw.tif" else {}))
    np.testing.assert_array_equal(read_mask(folder / form, GRAIN_BOUNDARY), ids)


def test_colour_masks_and_palettes_of_colours(folder):
    ids = (noisy((9, 13)) > 128).astype(np.uint8)
    rgb = np.array([(0, 0, 255), (255, 0, 0)], np.uint8)[ids]
    Image.fromarray(rgb).save(folder / "c.png")
    np.testing.assert_array_equal(read_mask(folder / "c.png", COLOURS), ids)
    palette = Image.fromarray(ids)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.save(folder / "p.png")
    np.testing.assert_array_equal(read_mask(folder / "p.png", COLOURS), ids)
    two = ClassMap("two", ("a", "b"), {0: 0, 1: 1}, ("#000000", "#ffffff"))
    np.testing.assert_array_equal(read_mask(folder / "p.png", two), ids)  # the same file by its indices


def test_unknown_values_are_listed_with_counts_file_and_fix(folder):
    mask = np.zeros((4, 5), np.uint8)
    mask[0, :3] = 7
    Image.fromarray(mask).save(folder / "odd.png")
    with pytest.raises(MicrographError) as caught:
        read_mask(folder / "odd.png", THREE)
    text = str(caught.value)
    for part in ("odd.png", "0: 17 px", "7: 3 px", "class map 'three'", "{0: 0, 1: 1, 2: 2}", "values={0: 0, 7: 1}"):
        assert part in text
    Image.fromarray(mask // 7 * 255).save(folder / "odd.png")
    with pytest.raises(MicrographError, match=r"0/255, not class ids.*values=\{0: 0, 255: 1\}"):
        read_mask(folder / "odd.png", THREE)
    with pytest.raises(MicrographError, match=r"\(0, 0, 0\): 17 px"):
        read_mask(folder / "odd.png", COLOURS)


def test_jpeg_masks_are_explained(folder):
    mask = np.kron(noisy((6, 6)) > 128, np.ones((5, 5))).astype(np.uint8) * 255
    Image.fromarray(mask).save(folder / "lossy.jpg", quality=60)
    with pytest.raises(MicrographError, match="JPEG changes grey levels: export the mask as PNG"):
        read_mask(folder / "lossy.jpg", GRAIN_BOUNDARY)


def test_write_mask_takes_ids_only(folder):
    for name, ids in (("m.png", np.zeros((3, 3), np.int64)), ("m.jpg", np.zeros((3, 3), np.uint8))):
        with pytest.raises(MicrographError, match="lossless PNG"):
            write_mask(folder / name, ids)
