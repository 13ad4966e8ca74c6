"""What a caller passes is one of what there is, or the message says what there is."""

import pytest

from micro_lib.core.checks import one_of


def test_a_known_value_passes_and_an_unknown_one_is_named_with_those_there_are():
    one_of("loss", "dice", iter(("dice", "focal")))
    with pytest.raises(ValueError, match=r"^loss is 'dise'; there are dice, focal$"):
        one_of("loss", "dise", ("dice", "focal"))


def test_nothing_is_not_listed_among_the_names():
    one_of("ablate", "", ("", "noise"))
    with pytest.raises(ValueError, match=r"there are noise$"):
        one_of("ablate", "dust", ("", "noise"))
