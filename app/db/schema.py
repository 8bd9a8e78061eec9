"""SQLAlchemy metadata of all tables, which tests compare with the migrations in `alembic/versions`.

Partitions, the stamp triggers and HNSW indexes exist only in the migrations: SQLAlchemy cannot
describe them.
"""

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
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

SCHEMA_REVISION = "0013"
"""The migration that this code needs; a test compares it with the newest one in `alembic/`."""

WORDS = """to_tsvector('simple'::regconfig, regexp_replace(normalize(left(
    coalesce(title, '') || ' ' || coalesce(brand, '') || ' ' || coalesce(category, '') || ' '
    || coalesce(colour, ''), 10000), NFKD), '[\\u0300-\\u036F]', '', 'g'))"""

VEC_COMMENT = "unit-length embedding, float16; compare with <=> (cosine)"
STAMP_COMMENT = (
    "transaction that last wrote this row; set by a trigger, whatever the statement says"
)
CATEGORY_COMMENT = "products of this category only; empty: the whole catalogue"


class _PlainType(UserDefinedType[Any]):
    """A PostgreSQL type that SQLAlchemy knows only by its name."""

    cache_ok = True
    spelling = ""

    def get_col_spec(self, **_: Any) -> str:
        return self.spelling


class Xid8(_PlainType):
    """A 64-bit transaction id, which never wraps around."""

    spelling = "xid8"


class PgSnapshot(_PlainType):
    """The set of transactions that a query sees."""

    spelling = "pg_snapshot"


for _type in (Xid8, PgSnapshot):
    ischema_names.setdefault(_type.spelling, _type)

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


def _moment(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _stamp() -> Column[Any]:
    return Column(
        "changed_in", Xid8, nullable=False, server_default=text("'0'::xid8"), index=True,
        comment=STAMP_COMMENT,
    )  # fmt: skip


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


product = Table(
    "product",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sku", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False, server_default=""),
    Column("brand", Text, index=True),
    Column("category", Text, index=True),
    Column("colour", Text, index=True),
    Column("year", Integer, index=True),
    Column("price", Numeric(14, 4), index=True),
    Column("currency", Text),
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("identity_key", Text, nullable=False, server_default="", index=True),
    Column("words", TSVECTOR, Computed(WORDS, persisted=True)),
    _moment("created_at"),
    _moment("updated_at"),
    _stamp(),
    CheckConstraint("sku <> ''", name="sku"),
    CheckConstraint("price >= 0", name="price"),
    CheckConstraint("jsonb_typeof(attributes) = 'object'", name="attributes"),
    Index("product_attributes_idx", "attributes", postgresql_using="gin"),
    Index("product_words_idx", "words", postgresql_using="gin"),
    *(
        Index(f"product_{name}_lower_idx", text(f"lower({name})"), name)
        for name in ("brand", "category", "colour")
    ),
)

picture = Table(
    "picture",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("thumbnail", LargeBinary, nullable=False),
    _moment("created_at"),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    CheckConstraint("width > 0 AND height > 0", name="size"),
    CheckConstraint("octet_length(thumbnail) <= 20480", name="thumbnail"),
)

product_picture = Table(
    "product_picture",
    metadata,
    Column("product_id", BigInteger, ForeignKey("product.id", ondelete="CASCADE")),
    Column("picture_id", BigInteger, ForeignKey("picture.id")),
    Column("position", Integer, nullable=False),
    Column("uri", Text, nullable=False),
    _stamp(),
    PrimaryKeyConstraint("product_id", "picture_id"),
    Index("product_picture_picture_id_product_id_idx", "picture_id", "product_id"),
    CheckConstraint("position >= 0", name="position"),
)

model = Table(
    "model",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("active", Boolean, nullable=False, server_default=text("false")),
    _moment("created_at"),
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
    _moment("changed_at"),
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

index_build = Table(
    "index_build",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE"), nullable=False),
    Column("cluster", Text, nullable=False),
    Column("snapshot", PgSnapshot),
    Column("kind", Text),
    Column("parameters", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    _count("rows"),
    Column("sha256", Text),
    _count("size"),
    Column("recall_at_10", REAL),
    Column("recall_sample", Integer),
    Column("seconds", Double),
    Column("state", Text, nullable=False, server_default="building"),
    Column("reason", Text),
    _moment("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("recall_at_50", REAL),
    Column("stamped_by", Text),
    Column("recall_filtered", REAL),
    CheckConstraint("state IN ('building', 'published', 'rejected', 'retired')", name="state"),
    CheckConstraint(
        "state <> 'published' OR (snapshot IS NOT NULL AND sha256 IS NOT NULL)", name="published"
    ),
    Index("index_build_model_id_state_idx", "model_id", "state"),
)

index_chunk = Table(
    "index_chunk",
    metadata,
    Column("build_id", BigInteger, ForeignKey("index_build.id", ondelete="CASCADE")),
    Column("number", Integer),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("build_id", "number"),
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
    _moment("measured_at"),
    CheckConstraint("exact_pictures > 0", name="exact_pictures"),
    CheckConstraint("deep_share > 0 AND deep_share <= 1", name="deep_share"),
    comment="written by `lookalike tune`: which path answers a filtered search",
)

duplicate_verdict = Table(
    "duplicate_verdict",
    metadata,
    Column("sku_a", Text, nullable=False),
    Column("sku_b", Text, nullable=False),
    Column("same", Boolean, nullable=False),
    Column("decided_by", Text, nullable=False),
    _moment("decided_at"),
    PrimaryKeyConstraint("sku_a", "sku_b"),
    CheckConstraint('sku_a COLLATE "C" < sku_b COLLATE "C"', name="ordered"),
    Index("duplicate_verdict_sku_b_idx", "sku_b"),
)

calibration = Table(
    "calibration",
    metadata,
    Column("model_id", Integer, ForeignKey("model.id", ondelete="CASCADE")),
    Column("category", Text, server_default="", comment=CATEGORY_COMMENT),
    *_cut_off("same_photo", "are the same photo", "that are the same photo", "that are not"),
    *_cut_off("same_product", "show the same product", "of the same product", "that are not"),
    *_cut_off("similar", "show similar products", "of one category", "of two categories"),
    _moment("calibrated_at"),
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

ingest_run = Table(
    "ingest_run",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("model_id", Integer, ForeignKey("model.id", ondelete="SET NULL")),
    Column("state", Text, nullable=False, server_default="running"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    _moment("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column(
        "kind", Text, nullable=False, server_default="ingest", comment="ingest, delete or undo"
    ),
    Column("undoes", BigInteger, comment="the run that an undo takes back"),
    Column(
        "history_bytes", BigInteger, nullable=False, server_default=text("0"),
        comment="approximate size of what is kept to undo the run; 0: it cannot be undone",
    ),
    CheckConstraint("state IN ('running', 'finished', 'failed')", name="state"),
)  # fmt: skip

product_history = Table(
    "product_history",
    metadata,
    Column("id", BigInteger, Identity(always=True)),
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE")),
    Column("sku", Text, nullable=False),
    Column(
        "before", JSONB,
        comment="the columns that were changed, as they were, or all of a deleted product; null: "
        "added",
    ),
    Column(
        "after", LargeBinary,
        comment="sha256 of the product as the run left it; null: deleted",
    ),
    PrimaryKeyConstraint("run_id", "id"),
    comment="the products that a run added, changed or deleted",
)  # fmt: skip

picture_history = Table(
    "picture_history",
    metadata,
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE")),
    Column("sha256", LargeBinary),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("thumbnail", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "sha256"),
    Index("picture_history_sha256_idx", "sha256"),
    comment="pictures that a run deleted, because no product showed them",
)

embedding_history = Table(
    "embedding_history",
    metadata,
    Column("run_id", BigInteger),
    Column("sha256", LargeBinary),
    Column("model_id", Integer),
    Column("vec", HALFVEC, nullable=False),
    PrimaryKeyConstraint("run_id", "sha256", "model_id"),
    ForeignKeyConstraint(
        ["run_id", "sha256"], ["picture_history.run_id", "picture_history.sha256"],
        ondelete="CASCADE",
    ),
    Index("embedding_history_sha256_idx", "sha256"),
    comment="embeddings of the pictures in picture_history",
)  # fmt: skip

ingest_reject = Table(
    "ingest_reject",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ingest_run.id", ondelete="CASCADE"), nullable=False),
    Column("line", BigInteger),
    Column("sku", Text),
    Column("image", Text),
    Column("reason", Text, nullable=False),
    Index("ingest_reject_run_id_idx", "run_id"),
)

word_language = Table(
    "word_language",
    metadata,
    Column("language", Text, primary_key=True),
    Column("active", Boolean, nullable=False, server_default=text("false")),
    Index("word_language_active_idx", "active", unique=True, postgresql_where=text("active")),
    comment="text search configurations in which words are kept; searches read the active one",
)

product_words = Table(
    "product_words",
    metadata,
    Column("product_id", BigInteger),
    Column("language", Text),
    Column("words", TSVECTOR, nullable=False, comment="stemmed; the sku and the gtin begin with #"),
    Column("surface", TSVECTOR, nullable=False, comment="not stemmed, as counted in vocabulary"),
    PrimaryKeyConstraint("product_id", "language"),
    Index("product_words_words_idx", "words", postgresql_using="gin"),
    comment="the words of each product, kept by triggers; A title, B category, C colour, D brand",
)

vocabulary = Table(
    "vocabulary",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("language", Text, nullable=False),
    Column("word", Text(collation="C"), nullable=False),
    Column(
        "lexeme", Text(collation="C"), comment="its stem in this language; null: a stop word"
    ),
    Column("products", BigInteger, nullable=False, comment="products that have the word"),
    Column(
        "kinds", BigInteger, nullable=False,
        comment="products that have it in their category or colour",
    ),
    Column(
        "brands", BigInteger, nullable=False, comment="products that have it in their brand"
    ),
    Index("vocabulary_word_idx", "word", "language"),
    Index("vocabulary_lexeme_idx", "lexeme", "language"),
    comment="the words of the catalogue, counted by triggers; a word's counts are the sums of its "
    "rows",
)  # fmt: skip

synonym = Table(
    "synonym",
    metadata,
    Column("word", Text(collation="C")),
    Column("means", Text(collation="C")),
    PrimaryKeyConstraint("word", "means"),
    CheckConstraint("word <> '' AND means <> '' AND word <> means", name="words"),
    comment="a search for `word` also finds products that have `means`; both as split_words "
    "writes them",
)

query_photo = Table(
    "query_photo",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "fingerprint", Text, nullable=False, comment="of the encoder that the vectors are from"
    ),
    Column(
        "vector", LargeBinary, nullable=False,
        comment="unit vector of the whole photo, float32, little-endian",
    ),
    Column(
        "objects", JSONB,
        comment="what was found in the photo; null: the encoder finds no objects",
    ),
    Column("preview", LargeBinary, nullable=False, comment="JPEG"),
    _moment("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
    comment="photos that were sent to search with, without the photo: vector, objects and a "
    "preview",
)  # fmt: skip

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column(
        "digest", LargeBinary, nullable=False, comment="sha256 of the 256 random bits of the key"
    ),
    Column("rate", REAL, comment="requests a second, in each process; null: no limit"),
    Column(
        "origins", ARRAY(Text), nullable=False, server_default=text("'{}'"),
        comment="origins whose pages may use the key in a browser",
    ),
    _moment("created_at"),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("scope IN ('search', 'write', 'admin')", name="scope"),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    CheckConstraint("rate > 0", name="rate"),
    comment="keys of the HTTP API; the key itself is not kept",
)  # fmt: skip

api_secret = Table(
    "api_secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    comment="secrets that all processes of the HTTP API share, by their use",
)

schema_serves = Table(
    "schema_serves",
    metadata,
    Column(
        "code_since", Text, primary_key=True,
        comment="the migration that code is written for; raised by a migration that older code "
        "cannot run on",
    ),
    comment="one row: the oldest code that runs on this database",
)  # fmt: skip
