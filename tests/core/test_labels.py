import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap, MaskError

RGB = ClassMap("alloy", ("matrix", "fine", "coarse"), {(0, 0, 0): 0, (255, 0, 0): 1, (0, 0, 255): 2}, ("#000000",) * 3)


def test_grey_levels_become_ids():
    ids = GRAIN_BOUNDARY.encode(np.array([[0, 255, 0]], dtype=np.uint8))
    assert ids.dtype == np.uint8 and ids.tolist() == [[0, 1, 0]]


def test_colours_become_ids():
    raw = np.array([[[0, 0, 255], [0, 0, 0]], [[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    assert RGB.encode(raw).tolist() == [[2, 0], [1, 2]]


@given(st.data())
def test_encoding_undoes_drawing(data):
    class_map = data.draw(st.sampled_from([GRAIN_BOUNDARY, RGB]))
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=6))
    ids = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, len(class_map.classes) - 1)))
    palette = np.array(
        [value for i in range(len(class_map.classes)) for value, j in class_map.values.items() if i == j]
    )
    assert np.array_equal(class_map.encode(palette[ids]), ids)


def test_several_values_may_mean_one_class_and_16_bit_levels_work():
    class_map = ClassMap("m", ("a", "b"), {0: 0, 1: 1, 65535: 1}, ("#000000", "#ffffff"))
    assert class_map.encode(np.array([[0, 1, 65535]], dtype=np.uint16)).tolist() == [[0, 1, 1]]
    assert class_map.encode(np.array([[False, True]])).tolist() == [[0, 1]]


def test_unknown_values_are_listed_with_the_fix():
    with pytest.raises(MaskError, match=r"\[1, 2\] \(3 of 4 pixels\).*'grain_boundary'.*\{0: 0, 255: 1\}.*`values`"):
        GRAIN_BOUNDARY.encode(np.array([[0, 1], [2, 2]]))
    with pytest.raises(MaskError, match=r"\[\(1, 2, 3\)\] \(1 of 1 pixels\)"):
        RGB.encode(np.array([[[1, 2, 3]]], dtype=np.uint8))
    with pytest.raises(MaskError, match="and 92 more"):
        GRAIN_BOUNDARY.encode(np.arange(1, 101)[None])


@pytest.mark.parametrize("raw", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros(3, np.uint8)])
def test_wrong_shapes_and_types_are_refused(raw):
    with pytest.raises(MaskError, match=r"reads \(H, W\) grey levels; found shape"):
        GRAIN_BOUNDARY.encode(raw)


def test_colours_are_expected_by_a_colour_map():
    with pytest.raises(MaskError, match=r"RGB colours; found shape \(2, 2, 4\)"):
        RGB.encode(np.zeros((2, 2, 4), np.uint8))


@pytest.mark.parametrize("class_map", [GRAIN_BOUNDARY, RGB])
def test_json_keeps_everything(class_map):
    assert ClassMap.from_json(class_map.to_json()) == class_map


@pytest.mark.parametrize(
    "parts, fault",
    [
        ((("a", "b"), {0: 0}, ("#000000",)), "1 colours for 2 classes"),
        ((("a",), {0: 1}, ("#000000",)), r"class ids \[1\]"),
        ((("a",), {0: 0, (1, 1, 1): 0}, ("#000000",)), "all grey levels or all RGB"),
        ((("a",), {}, ("#000000",)), "at least one"),
        (((), {}, ()), "0 classes"),
    ],
)
def test_faulty_maps_are_refused(parts, fault):
    with pytest.raises(ValueError, match=fault):
        ClassMap("m", *parts)
