"""One Ray cluster for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.cluster.session import Cluster, connect
from support.ray_cluster import small_cluster


@pytest.fixture(scope="package")
def nodes() -> Iterator[Any]:
    with small_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Any) -> Iterator[Cluster]:
    with connect(nodes.address, 1) as cluster:
        yield cluster
