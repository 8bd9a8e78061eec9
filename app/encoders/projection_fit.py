"""Fits the linear map of a `ProjectedEncoder` to photos whose products are known.

The loss is that of contrastive learning (InfoNCE; van den Oord et al., 2018): cross-entropy of a
photo's cosine similarities to the pictures of products, divided by a temperature, plus a penalty
on the squared distance of the map from the identity.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize

from app.encoders.projected_encoder import Matrix
from app.types import Vectors

TEMPERATURE = 0.05
MAX_STEPS = 100

MAX_ROWS = 1500
"""Photos that a fit takes at most, drawn with a fixed seed: its time grows with their number times
that of their products."""


def fit_map(
    gallery: Vectors, photos: Vectors, products: NDArray[np.int64], penalty: float
) -> Matrix:
    """The map (dim, dim) under which photos lie nearest to their products' pictures.

    `gallery` holds one unit row (m, dim) a product, `photos` unit rows (n, dim), and `products`
    the row of the gallery that each photo shows (n,); other rows are not used. A larger `penalty`
    (above 0) keeps the map nearer to the identity. The same arguments give the same map on the same
    machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads wait for each other longer than these products take
    try:
        return _minimise(*_sampled(gallery, photos, products), penalty)
    finally:
        torch.set_num_threads(threads)


def _minimise(
    gallery: Vectors, photos: Vectors, products: NDArray[np.int64], penalty: float
) -> Matrix:
    pictures, queries, shown = map(torch.from_numpy, (gallery, photos, products))
    change = torch.zeros(gallery.shape[1], gallery.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [change], max_iter=MAX_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        similarities = (
            normalize(queries + queries @ change) @ normalize(pictures + pictures @ change).T
        )
        value = cross_entropy(similarities / TEMPERATURE, shown) + penalty * (change**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted: Matrix = (torch.eye(len(change)) + change).detach().numpy()
    return fitted


def _sampled(
    gallery: Vectors, photos: Vectors, products: NDArray[np.int64]
) -> tuple[Vectors, Vectors, NDArray[np.int64]]:
    """At most MAX_ROWS photos, and the rows of the gallery that these show."""
    if len(photos) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(len(photos), MAX_ROWS, replace=False))
        photos, products = photos[chosen], products[chosen]
    shown, products = np.unique(products, return_inverse=True)
    return gallery[shown], photos, products.astype(np.int64)
