"""Tables of products, their pictures and words, and what people decided about them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from app.db.schema.columns import metadata, moment, stamp

WORDS = """to_tsvector('simple'::regconfig, regexp_replace(normalize(left(
    coalesce(title, '') || ' ' || coalesce(brand, '') || ' ' || coalesce(category, '') || ' '
    || coalesce(colour, ''), 10000), NFKD), '[\\u0300-\\u036F]', '', 'g'))"""

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
    moment("created_at"),
    moment("updated_at"),
    stamp(),
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
    moment("created_at"),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    CheckConstraint("width > 0 AND height > 0", name="size"),
    CheckConstraint("octet_length(thumbnail) <= 20480", name="thumbnail"),
)

picture_colours = Table(
    "picture_colours",
    metadata,
    Column("picture_id", BigInteger, ForeignKey("picture.id", ondelete="CASCADE")),
    Column(
        "version", SmallInteger, nullable=False,
        comment="of the computation; pictures with an older one are computed again",
    ),
    Column(
        "main", SmallInteger, nullable=False,
        comment="number of the colour with the largest share, from 0",
    ),
    Column("main_share", SmallInteger, nullable=False, comment="its share, 0 to 255"),
    Column(
        "shares", LargeBinary, nullable=False,
        comment="share of each basic colour, a byte each, 0 to 255: red, orange, yellow, green,"
        " blue, light blue, navy, purple, lilac, pink, brown, beige, white, grey, black, teal,"
        " burgundy, olive; all 0: not known",
    ),
    PrimaryKeyConstraint("picture_id"),
    CheckConstraint("octet_length(shares) = 18", name="shares"),
    CheckConstraint("main BETWEEN 0 AND 17", name="main"),
    Index("picture_colours_main_idx", "main", text("main_share DESC"), "picture_id"),
    comment="the visible colours of what each picture shows, computed from its thumbnail",
)  # fmt: skip

product_picture = Table(
    "product_picture",
    metadata,
    Column("product_id", BigInteger, ForeignKey("product.id", ondelete="CASCADE")),
    Column("picture_id", BigInteger, ForeignKey("picture.id")),
    Column("position", Integer, nullable=False),
    Column("uri", Text, nullable=False),
    stamp(),
    PrimaryKeyConstraint("product_id", "picture_id"),
    Index("product_picture_picture_id_product_id_idx", "picture_id", "product_id"),
    CheckConstraint("position >= 0", name="position"),
)

duplicate_verdict = Table(
    "duplicate_verdict",
    metadata,
    Column("sku_a", Text, nullable=False),
    Column("sku_b", Text, nullable=False),
    Column("same", Boolean, nullable=False),
    Column("decided_by", Text, nullable=False),
    moment("decided_at"),
    PrimaryKeyConstraint("sku_a", "sku_b"),
    CheckConstraint('sku_a COLLATE "C" < sku_b COLLATE "C"', name="ordered"),
    Index("duplicate_verdict_sku_b_idx", "sku_b"),
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
