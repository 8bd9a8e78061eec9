"""Adds the embeddings of a snapshot to an empty index: here, or wherever a `Fill` does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.index import faiss_index
from app.index.embedding_reader import Embeddings, StoredEmbeddings
from app.index.faiss_index import AnnIndex


class Fill(Protocol):
    """Adds embeddings to an empty index."""

    def __call__(self, index: AnnIndex, source: StoredEmbeddings) -> None:
        """Add all embeddings of a snapshot."""

    def fill_part(self, index: AnnIndex, source: StoredEmbeddings, bounds: Sequence[int]) -> None:
        """Add those in ranges of ids, from each bound to before the next one."""


class FillHere:
    """Adds embeddings in this process."""

    def __call__(self, index: AnnIndex, source: Embeddings) -> None:
        """Add all embeddings."""
        for ids, vectors in source.blocks():
            faiss_index.add(index, ids, vectors)

    def fill_part(self, index: AnnIndex, source: StoredEmbeddings, bounds: Sequence[int]) -> None:
        """Add those in ranges of ids, from each bound to before the next one."""
        for ids, vectors in source.blocks_of(bounds):
            faiss_index.add(index, ids, vectors)


fill_here = FillHere()
