"""`app.index.kmeans`: float16 widened exactly, centroids, and assignment to them."""

from __future__ import annotations

import numpy as np
import pytest

from app.index import kmeans
from app.vectors import to_float32
from support.index_vectors import clustered, unit

# Vectors


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(every)
    found = to_float32(every)
    np.testing.assert_array_equal(
        found[finite].view(np.uint32), every[finite].astype(np.float32).view(np.uint32)
    )
    assert (np.abs(found[~finite]) > 60_000).all()


# Clusters


def test_centroids_are_trained_where_the_rows_are() -> None:
    middles = unit(20, 16)
    rows = middles[np.arange(4000) % 20] + 0.05 * unit(4000, 16, seed=7)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = kmeans.train(rows, 80)
    assert (found @ middles.T).max(axis=0).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_identical_rows_still_give_the_requested_number_of_centroids() -> None:
    found = kmeans.train(np.tile(unit(1, 16), (500, 1)), 40)
    assert found.shape == (40, 16)
    assert np.isfinite(found).all()


def test_copies_of_one_picture_take_no_lists_from_the_others() -> None:
    """A third of the rows are one vector, which one centroid represents."""
    rows = np.vstack([np.repeat(unit(1, 32, seed=8), 2000, axis=0), clustered(4000)])
    labels = kmeans.assign(rows, kmeans.train(rows, 200))
    assert len(np.unique(labels)) >= 195


def test_an_empty_cluster_takes_half_of_the_largest_one() -> None:
    rows = np.concatenate([np.tile(unit(1, 16), (50, 1)), clustered(300, 16)])
    labels = kmeans.assign(rows, kmeans.train(rows, 60))
    assert len(np.unique(labels)) > 45


def test_each_row_is_assigned_to_its_nearest_centroid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "BLOCK_ROWS", 37)
    rows, middles = unit(500, 16), unit(30, 16, seed=1)
    found = kmeans.assign(rows, middles)
    assert found.tolist() == (rows @ middles.T).argmax(axis=1).tolist()
    order, bounds = kmeans.group_by_label(found, 30)
    for label in range(30):
        mine = order[bounds[label] : bounds[label + 1]]
        assert mine.tolist() == np.flatnonzero(found == label).tolist()
