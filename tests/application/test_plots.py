"""Figures: pictures show the pixels they are given, bars and lines are where the numbers say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from micro_lib.application import plots
from micro_lib.application.plots import Panel
from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap


@pytest.fixture(autouse=True)
def closed_figures():
    plots.use_style()
    yield
    plt.close("all")


@pytest.fixture
def picture():
    image = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30] = 1
    return image, mask


def axes():
    return plt.subplots(layout="constrained")[1]


def drawn(ax):
    return np.asarray(ax.images[0].get_array())


def intervals(**columns):
    base = {"name": ["a", "b", "c"], "mean": [0.5, 0.7, 0.6], "mean_low": [0.4, 0.65, np.nan]}
    return pd.DataFrame({**base, "mean_high": [0.6, 0.78, np.nan], "n": [5, 12, 1], **columns})


# Micrographs


def test_grey_levels_are_not_stretched(picture):
    image, _ = picture
    ax = axes()
    plots.micrograph(ax, image // 2 + 10)
    assert ax.images[0].get_clim() == (0, 1) and ax.images[0].get_cmap().name == "gray"
    np.testing.assert_allclose(drawn(ax), (image // 2 + 10) / 255, atol=1e-6)
    assert not ax.axison


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_bit_depths_look_the_same(dtype, full):
    level = np.array([[0, 0.2, 1]])
    ax = axes()
    plots.micrograph(ax, (level * full).astype(dtype))
    np.testing.assert_allclose(drawn(ax), level, atol=1e-3)


def test_masks_lie_over_their_pixels_in_their_colour(picture):
    image, mask = picture
    result = plots.overlay(image, mask)
    grey = np.repeat(image[..., None] / 255, 3, 2)
    np.testing.assert_allclose(result[mask == 0], grey[mask == 0], atol=1e-6)
    expected = (1 - plots.OPACITY) * grey[mask == 1] + plots.OPACITY * np.array(to_rgb(GRAIN_BOUNDARY.colours[1]))
    np.testing.assert_allclose(result[mask == 1], expected, atol=1e-6)
    ax = axes()
    plots.micrograph(ax, image, mask)
    np.testing.assert_array_equal(drawn(ax), result)


def test_drawing_changes_neither_image_nor_mask(picture):
    image, mask = picture
    before = image.copy(), mask.copy()
    as_float = (image / 255).astype(np.float32)
    plots.overlay(as_float, mask)
    plots.overlay(image, mask)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    np.testing.assert_array_equal(as_float, (image / 255).astype(np.float32))


def test_masks_that_do_not_fit_are_refused(picture):
    image, mask = picture
    with pytest.raises(ValueError, match=r"\(59, 80\).*\(60, 80\)"):
        plots.overlay(image, mask[1:])
    with pytest.raises(ValueError, match=r"class 255.*0 to 1"):
        plots.overlay(image, mask * 255)


def test_colours_can_be_told_apart_by_colour_blind_readers():
    # Deuteranopes keep brightness and blue-yellow: the pairs used together must differ there.
    def seen(colour):
        red, green, blue = to_rgb(colour)
        return np.array([0.3 * red + 0.6 * green + 0.1 * blue, 0.5 * (red + green) - blue])

    colours = [plots.FOUND, plots.MISSED, plots.INVENTED]
    for i, one in enumerate(colours):
        for other in colours[i + 1 :]:
            assert np.abs(seen(one) - seen(other)).max() > 0.15


def test_found_missed_and_invented_boundaries(picture):
    image, true = picture
    ax = axes()
    keys = plots.error_map(ax, image, true > 0, np.roll(true, 4, 0) > 0, opacity=1)
    shown = drawn(ax)
    for rows, colour in {(24, 30): plots.FOUND, (20, 24): plots.MISSED, (30, 34): plots.INVENTED}.items():
        colours = np.broadcast_to(to_rgb(colour), (rows[1] - rows[0], 80, 3))
        np.testing.assert_allclose(shown[slice(*rows)], colours, atol=1e-6)
    np.testing.assert_allclose(shown[:20], np.repeat(image[:20, :, None] / 255, 3, 2), atol=1e-6)
    assert [key.get_label() for key in keys] == ["found", "missed", "invented"]


def test_errors_are_half_transparent():
    ax = axes()
    plots.error_map(ax, np.full((2, 2), 51, np.uint8), np.array([[1, 1], [0, 0]]) > 0, np.array([[1, 0], [1, 0]]) > 0)
    shown = drawn(ax)
    for (y, x), colour in {(0, 0): plots.FOUND, (0, 1): plots.MISSED, (1, 0): plots.INVENTED}.items():
        assert shown[y, x] == pytest.approx(0.2 + plots.OPACITY * (np.array(to_rgb(colour)) - 0.2), abs=1e-6)
    assert shown[1, 1] == pytest.approx([0.2] * 3)


# Scale bars


@pytest.mark.parametrize(
    ("width", "pixel_size", "length", "text"),
    [(400, 0.444, 50, "50 µm"), (512, 1.0, 100, "100 µm"), (100, 0.01, 0.2, "0.2 µm"), (2000, 4.0, 2000, "2 mm")],
)
def test_scale_bars_are_as_long_as_they_say(width, pixel_size, length, text):
    ax = axes()
    ax.imshow(np.zeros((100, width)))
    assert plots.scale_bar(ax, width, pixel_size) == length
    bar = ax.lines[0].get_xdata()
    np.testing.assert_allclose((bar[1] - bar[0]) * width * pixel_size, length)
    assert bar[0] > 0.5 and bar[1] < 1 and ax.texts[0].get_text() == text
    # The axes are the picture, to the half pixel, so shares of the one are shares of the other.
    assert ax.get_xlim() == (-0.5, width - 0.5)


def test_only_known_pixel_sizes_give_a_scale_bar(picture):
    image, _ = picture
    ax = axes()
    plots.micrograph(ax, image)
    assert not ax.lines and not ax.texts
    with pytest.raises(ValueError, match="pixel_size_um is 0"):
        plots.micrograph(ax, image, pixel_size_um=0)


# Sheets, credits, files


def test_sheets_show_every_panel_once(picture):
    image, mask = picture
    panels = [Panel(image, None, "plain"), Panel(image, mask, "masked", 0.5), Panel(image[:30], mask[:30])]
    fig = plots.sheet(panels, columns=2)
    shown = [ax for ax in fig.axes if ax.images]
    assert len(fig.axes) == 4 and len(shown) == 3
    assert [ax.get_title() for ax in shown] == ["plain", "masked", ""]
    assert [bool(ax.lines) for ax in shown] == [False, True, False]
    assert drawn(shown[2]).shape == (30, 80, 3)
    assert not any(ax.axison for ax in fig.axes)


def test_a_sheet_of_several_classes_has_their_key(picture):
    image, mask = picture
    phases = ClassMap("phases", ("matrix", "first", "second"), {0: 0, 1: 1, 2: 2}, ("#000000", "#e69f00", "#56b4e9"))
    fig = plots.sheet([Panel(image), Panel(image, mask)], columns=2, class_map=phases)
    (key,) = fig.legends
    assert [(t.get_text(), h.get_color()) for t, h in zip(key.get_texts(), key.legend_handles, strict=True)] == [
        ("first", "#e69f00"),
        ("second", "#56b4e9"),
    ]
    assert not plots.sheet([Panel(image)], columns=1, class_map=phases).legends, "nothing is coloured"
    assert not plots.sheet([Panel(image, mask)], columns=1).legends, "a title can name the only class"


def test_credits_are_below_and_stand_ins_are_stamped(picture):
    fig = plots.sheet([Panel(*picture)], columns=1)
    plots.credit(fig, "by somebody, MIT licence")
    assert fig.get_supxlabel() == "by somebody, MIT licence" and fig.get_suptitle() == ""
    fig.suptitle("Grains")
    plots.credit(fig, "nobody", is_generated=True)
    assert fig.get_suptitle() == "generated stand-in: Grains"


def test_figures_are_saved_whole_and_without_a_date(picture, tmp_path):
    fig = plots.sheet([Panel(*picture)], columns=1)
    first = plots.save(fig, tmp_path, "sheet").read_bytes()
    path = plots.save(fig, tmp_path, "sheet")
    assert path == tmp_path / "sheet.png" and path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
    assert Image.open(path).size[0] > 100 and b"atplotlib" not in first
    assert plt.fignum_exists(fig.number)


def test_a_picture_in_a_sheet_is_where_its_mask_is(picture):
    # Rendered: the row of the boundary is coloured, the rows above and below are grey.
    image, mask = np.full((60, 80), 128, np.uint8), picture[1]
    fig = plots.sheet([Panel(image, mask)], columns=1)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)
    box = fig.axes[0].get_window_extent()
    column = pixels[::-1][int(box.y0) + 1 : int(box.y1) - 1, int(box.x0 + box.width / 2)][::-1]
    coloured = np.ptp(column, axis=1) > 30
    at = np.flatnonzero(coloured) / len(column) * 60
    assert abs(at.min() - 20) < 1 and abs(at.max() - 30) < 1


def test_arrows_run_in_the_gaps_from_one_axes_to_the_next():
    fig, axes = plt.subplots(2, 2, layout="constrained")
    for ax in axes.flat:
        ax.set(title="a title", xlabel="x")
    ring = [axes[0, 0], axes[0, 1], axes[1, 1], axes[1, 0]]
    plots.chain(fig, ring, closed=True)
    arrows = [artist for artist in fig.artists if isinstance(artist, FancyArrowPatch)]
    assert len(arrows) == 4
    for arrow, one, other in zip(arrows, ring, [*ring[1:], ring[0]], strict=True):
        start, end = (np.array(point) for point in arrow._posA_posB)
        middles = [np.array([(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2]) for b in (one.get_position(), other.get_position())]
        way = middles[1] - middles[0]
        axis = np.abs(way).argmax()
        assert abs(end - start)[1 - axis] < 1e-9 < (end - start)[axis] * np.sign(way[axis])
        for ax in (one, other):
            outline = ax.get_tightbbox().transformed(fig.transFigure.inverted())
            inside = [
                outline.x0 + 1e-6 < x < outline.x1 - 1e-6 and outline.y0 < y < outline.y1 for x, y in (start, end)
            ]
            assert not any(inside)


# Intervals


def test_forests_draw_each_row_where_its_numbers_are():
    ax, table = axes(), intervals()
    plots.forest(ax, table, label="name", value="mean", reference=0.745)
    bars = ax.collections[0].get_segments()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    at = dict(zip("abc", ax.get_yticks(), strict=True))
    assert at["a"] > at["b"] > at["c"]
    np.testing.assert_allclose(bars[0], [[0.4, at["a"]], [0.6, at["a"]]])
    np.testing.assert_allclose(bars[1], [[0.65, at["b"]], [0.78, at["b"]]])
    dots = ax.collections[1].get_offsets()
    np.testing.assert_allclose(dots, np.stack([table["mean"], list(at.values())], 1))
    assert (np.array(ax.lines[0].get_xdata()) == 0.745).all()
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["0.50 [0.40, 0.60], n = 5", "0.700 [0.650, 0.780], n = 12", "0.600, n = 1"]


@pytest.mark.parametrize("across", [False, True])
def test_error_bars_reach_the_ends_of_their_intervals(across):
    ax, table = axes(), intervals()
    plots.errorbar(ax, table[:2], [3, 4], "mean", across=across)
    plots.errorbar(ax, table[:2], [3, 4], "mean")
    whiskers = [np.array(container.lines[2][0].get_segments()) for container in ax.containers]
    np.testing.assert_allclose(whiskers[1], [[[3, 0.4], [3, 0.6]], [[4, 0.65], [4, 0.78]]])
    np.testing.assert_allclose(whiskers[0], whiskers[1][:, :, ::-1] if across else whiskers[1])
