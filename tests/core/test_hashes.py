import hashlib

import numpy as np

from micro_lib.core.hashes import arrays_sha256


def test_shape_type_values_and_order_count_and_layout_in_memory_does_not():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert arrays_sha256([grey]) == hashlib.sha256(b"2x3 uint8;" + bytes(range(6))).hexdigest()
    other = grey.copy()
    other[1, 2] += 1
    different = ([grey], [other], [grey.T], [grey.reshape(3, 2)], [grey.astype(np.int16)], [grey, other], [other, grey])
    assert len({arrays_sha256(arrays) for arrays in different}) == len(different)
    assert arrays_sha256([np.asfortranarray(grey)]) == arrays_sha256([grey])
