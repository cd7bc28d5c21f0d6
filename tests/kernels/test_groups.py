"""Groups of rows: sums against a loop over the groups."""

import numpy as np

from bossa.kernels.groups import Groups


def test_sums_are_those_of_the_rows_of_each_group():
    rng = np.random.default_rng(1)
    codes, v, columns = rng.choice([0, 2, 3, 7], 40), rng.normal(size=(2, 3, 40)), rng.normal(size=(2, 40))
    groups = Groups(codes)
    masks = [codes == g for g in (0, 2, 3, 7)]
    np.testing.assert_array_equal(codes[groups.first], (0, 2, 3, 7))
    for rows, mask in zip(groups.rows, masks, strict=True):
        np.testing.assert_array_equal(rows, np.flatnonzero(mask))
    np.testing.assert_allclose(groups.sums(v), np.stack([v[..., m].sum(axis=-1) for m in masks], axis=-1), atol=1e-13)
    expected = np.stack([np.stack([(v * z)[..., m].sum(axis=-1) for m in masks], axis=-1) for z in columns])
    np.testing.assert_allclose(groups.sums_of_products(v, columns), expected, atol=1e-13)
