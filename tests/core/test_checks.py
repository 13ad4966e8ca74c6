"""What a caller passes is one of what there is, or the message says what there is."""

import numpy as np
import pytest

from micro_lib.core.checks import number, one_of


def test_a_known_value_passes_and_an_unknown_one_is_named_with_those_there_are():
    one_of("loss", "dice", iter(("dice", "focal")))
    with pytest.raises(ValueError, match=r"^loss is 'dise'; there are dice, focal$"):
        one_of("loss", "dise", ("dice", "focal"))


def test_nothing_is_not_listed_among_the_names():
    one_of("ablate", "", ("", "noise"))
    with pytest.raises(ValueError, match=r"there are noise$"):
        one_of("ablate", "dust", ("", "noise"))


@pytest.mark.parametrize("value", [0, 3, np.int64(2), 1.5, np.float32(0.5)])
def test_numbers_pass(value):
    number("ratio", value, 0)


@pytest.mark.parametrize("value", ["4", None, -1, -0.5, float("nan"), float("inf"), True, [1]])
def test_what_is_no_number_in_range_is_named(value):
    with pytest.raises(ValueError, match=r"^ratio is .*; a number, 0 or larger, is expected$"):
        number("ratio", value, 0)


def test_whole_numbers_have_no_fraction():
    number("k", np.int32(1), 1, whole=True)
    for value in (2.5, 2.0, 0):
        with pytest.raises(ValueError, match="a whole number, 1 or larger"):
            number("k", value, 1, whole=True)
