"""Tables of models, with their embeddings, calibrations and measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.db.schema.columns import STAMP_COMMENT, VEC_COMMENT, Xid8, metadata, moment

CATEGORY_COMMENT = "products of this category only; empty: the whole catalogue"


def _cut_off(name: str, claim: str, pairs: str, others: str) -> Iterator[Column[Any]]:
    """Columns of a cosine distance, and of the numbers of pairs on both sides that it was fitted
    from."""
    up_to = f"cosine distance (0 to 2) up to which two pictures {claim}; null: not known"
    yield Column(f"{name}_distance", REAL, comment=up_to)
    for suffix, which in (("pairs", pairs), ("others", others)):
        yield Column(
            f"{name}_{suffix}", Integer, nullable=False, server_default=text("0"),
            comment=f"number of pairs {which}",
        )  # fmt: skip


def _close_cut() -> Iterator[Column[Any]]:
    """Columns of the similarity from which on a photo has a close match, as in the migration."""
    numbers = {
        "similarity": "best cosine similarity (-1 to 1) below which a photo has no close match; "
        "null: not known",
        "midpoint": "similarity at which the product of a photo is in the catalogue with "
        "probability 0.5",
        "width": "width of the logistic curve of that probability",
    }
    counts = {
        "present": "number of photos asked whose product is in the catalogue",
        "absent": "number of photos asked against the catalogue without their category",
    }
    shares = {
        "detected": "share of the absent below the similarity, cross-fitted",
        "false_alarms": "share of the present below the similarity, cross-fitted",
    }
    for name, comment in numbers.items():
        yield Column(f"close_{name}", REAL, comment=comment)
    for name, comment in counts.items():
        yield Column(
            f"close_{name}", Integer, nullable=False, server_default=text("0"), comment=comment
        )
    for name, comment in shares.items():
        yield Column(f"close_{name}", REAL, comment=comment)


model = Table(
    "model",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("active", Boolean, nullable=False, server_default=text("false")),
    moment("created_at"),
    Column(
        "maintained",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="new pictures get an embedding under this model too; the active model always is",
    ),
    Column(
        "source",
        Text,
        comment="what the encoder is loaded by: a hub name or a folder; null: its name",
    ),
    CheckConstraint("dim BETWEEN 1 AND 4000", name="dim"),
    Index("model_active_idx", "active", unique=True, postgresql_where=text("active")),
)

model_projection = Table(
    "model_projection",
    metadata,
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE"), primary_key=True),
    Column("base_name", Text, nullable=False),
    Column("base_revision", Text, nullable=False),
    Column(
        "base_source",
        Text,
        comment="what the encoder of the other model is loaded by; null: its name",
    ),
    Column("base_fingerprint", Text, nullable=False),
    Column(
        "weights",
        LargeBinary,
        nullable=False,
        comment="matrix of dim x dim numbers, float32, little-endian, by rows; vectors are"
        " multiplied from the left",
    ),
    Column(
        "provenance",
        JSONB,
        nullable=False,
        comment="what it was fitted from, and what that gained, cross-fitted",
    ),
    moment("fitted_at"),
    comment="models that `lookalike model fit` made: another model, followed by a linear map",
)

model_change = Table(
    "model_change",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("former_id", Integer, ForeignKey("model.id", ondelete="SET NULL")),
    Column("active_id", Integer, ForeignKey("model.id", ondelete="SET NULL")),
    Column("former_name", Text),
    Column("active_name", Text, nullable=False),
    Column(
        "forced",
        Text,
        comment="why it was activated without full coverage or an index; null: it had both",
    ),
    Column("changed_by", Text, nullable=False, server_default=text("SESSION_USER")),
    moment("changed_at"),
    comment="each change of the active model",
)

embedding = Table(
    "embedding",
    metadata,
    Column("model_id", Integer, ForeignKey("model.id")),
    Column("picture_id", BigInteger, ForeignKey("picture.id", ondelete="CASCADE")),
    Column("vec", HALFVEC, nullable=False, comment=VEC_COMMENT),
    Column("changed_in", Xid8, nullable=False, comment=STAMP_COMMENT),
    PrimaryKeyConstraint("picture_id", "model_id"),
    Index("embedding_changed_in_idx", "changed_in"),
    postgresql_partition_by="LIST (model_id)",
)

query_sample = Table(
    "query_sample",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE"), nullable=False),
    Column("vec", HALFVEC, nullable=False),
    Index("query_sample_model_id_idx", "model_id", "id"),
    comment=(
        "vectors of recent searches, without who asked or when; the newest few hundred a model"
    ),
)

tuning = Table(
    "tuning",
    metadata,
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "exact_pictures",
        Integer,
        nullable=False,
        comment="up to so many pictures pass: compare them all in SQL",
    ),
    Column(
        "deep_share",
        REAL,
        nullable=False,
        comment=(
            "from this share of the products (0 to 1): look deeper into the index, filter"
            " afterwards"
        ),
    ),
    Column(
        "figures",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="milliseconds measured, by path and number of pictures",
    ),
    moment("measured_at"),
    CheckConstraint("exact_pictures > 0", name="exact_pictures"),
    CheckConstraint("deep_share > 0 AND deep_share <= 1", name="deep_share"),
    comment="written by `lookalike tune`: which path answers a filtered search",
)

calibration = Table(
    "calibration",
    metadata,
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE")),
    Column("category", Text, server_default="", comment=CATEGORY_COMMENT),
    *_cut_off("same_photo", "are the same photo", "that are the same photo", "that are not"),
    *_cut_off("same_product", "show the same product", "of the same product", "that are not"),
    *_cut_off("similar", "show similar products", "of one category", "of two categories"),
    moment("calibrated_at"),
    *_close_cut(),
    PrimaryKeyConstraint("model_id", "category"),
    CheckConstraint(
        "close_similarity BETWEEN -1 AND 1 AND close_width > 0"
        " AND close_detected BETWEEN 0 AND 1 AND close_false_alarms BETWEEN 0 AND 1"
        " AND least(close_present, close_absent) >= 0"
        " AND num_nulls(close_similarity, close_midpoint, close_width, close_detected,"
        " close_false_alarms) IN (0, 5)",
        name="close",
    ),
    CheckConstraint(
        "same_photo_distance BETWEEN 0 AND 2 AND same_product_distance BETWEEN 0 AND 2"
        " AND similar_distance BETWEEN 0 AND 2",
        name="range",
    ),
    CheckConstraint(
        "same_photo_distance <= same_product_distance AND same_product_distance <= similar_distance"
        " AND same_photo_distance <= similar_distance",
        name="increasing",
    ),
    CheckConstraint(
        "least(same_photo_pairs, same_photo_others, same_product_pairs, same_product_others,"
        " similar_pairs, similar_others) >= 0",
        name="pairs",
    ),
    comment="what a cosine distance means under a model, as `lookalike calibrate` fitted it",
)
