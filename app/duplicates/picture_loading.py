"""Reads the pictures and cuts by which products with the same words are told apart."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from app.db.pipeline import open_pipeline
from app.db.queries import calibration, fold_pictures
from app.duplicates.evidence import FoldCuts, LoadPictures, PictureEvidence, no_pictures
from app.types import Model


def picture_loader(connection: Connection, model: Model | None) -> LoadPictures:
    """Reads pictures under a model, with its cuts, in one round trip; without a model, none."""
    if model is None:
        return no_pictures

    def load(skus: Sequence[str]) -> PictureEvidence:
        with open_pipeline(connection) as pipeline:
            vectors = fold_pictures.vectors_in(pipeline, model, skus)
            calibrations = calibration.read_in(pipeline, model.id)
        return PictureEvidence(vectors(), FoldCuts.of_model(model, calibrations()))

    return load
