import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_lib.core.seeds import stream, stream_seed

names = st.lists(st.text(max_size=5) | st.integers(-3, 3), max_size=3)


@given(st.integers(0, 2**70), names)
def test_same_arguments_give_the_same_numbers(seed, path):
    assert np.array_equal(stream(seed, *path).random(4), stream(seed, *path).random(4))
    assert stream_seed(seed, *path) == stream_seed(seed, *path)


@given(st.integers(0, 2**70), names, names)
def test_other_names_give_other_numbers(seed, one, other):
    if [(type(n), n) for n in one] != [(type(n), n) for n in other]:
        assert stream_seed(seed, *one) != stream_seed(seed, *other)


@pytest.mark.parametrize("one, other", [(("ab", "c"), ("a", "bc")), ((1,), ("1",)), ((), ("",)), (("a",), ("a", ""))])
def test_names_that_look_alike_are_told_apart(one, other):
    assert stream_seed(0, *one) != stream_seed(0, *other)


@given(st.integers(0, 2**40), names)
def test_seed_for_other_libraries_is_in_range(seed, path):
    assert 0 <= stream_seed(seed, *path) < 2**63


def test_numpy_integers_name_the_same_stream():
    assert stream_seed(np.int64(3), "image", np.int32(7)) == stream_seed(3, "image", 7)


def test_stream_is_the_documented_one():
    # Written out once more from the docstring: SHA-256 of the JSON of the names, as eight little-endian words.
    import hashlib

    words = np.frombuffer(hashlib.sha256(b'["grains", 17]').digest(), "<u4").tolist()
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([5, *words])))
    assert stream(5, "grains", 17).random() == expected.random()


def test_streams_are_uncorrelated():
    draws = np.stack([stream(1, "image", i).standard_normal(4000) for i in range(8)])
    off_diagonal = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(4000)


def test_faulty_arguments_are_named():
    with pytest.raises(ValueError, match="-1"):
        stream(-1)
    with pytest.raises(TypeError, match=r"1\.5"):
        stream(1, 1.5)
