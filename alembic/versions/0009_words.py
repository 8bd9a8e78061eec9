"""Words for search: stemmed in a language that can change, weighted by field, with the vocabulary
that corrections come from and a table of synonyms.

The words are a table of their own, with rows for one or, during a change, two languages: a
generated column could change its language only by rewriting the products. `product.words` stays
for analysts and for the previous version.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Explicit characters, because character classes depend on the database's locale. The functions set
# no search_path, which would take longer than their work; the triggers that call them set it.
FUNCTIONS = r"""
CREATE OR REPLACE FUNCTION split_words(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- Most values are ASCII and need no steps for accents.
    SELECT CASE WHEN octet_length(value) = length(value)
        THEN btrim(regexp_replace(lower(left(value, 10000)), '[^a-z0-9]+', ' ', 'g'))
        ELSE btrim(regexp_replace(translate(
            lower(regexp_replace(
                normalize(left(value, 10000), NFKD), '[\u0300-\u036F]', '', 'g')),
            '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~' || U&'\2019\2018\00B7',
            repeat(' ', 35)), '\s+', ' ', 'g')) END
$$;
COMMENT ON FUNCTION split_words(text) IS
    'lower case, without accents, a space for punctuation: T-Shirt is "t shirt"';

CREATE OR REPLACE FUNCTION joined_words(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF value IS NULL OR value !~ ('[^ ][''.&' || U&'\2019' || '-][^ ]') THEN
        RETURN '';
    END IF;
    RETURN (
        SELECT coalesce(string_agg(replace(split_words(chunk), ' ', ''), ' '), '')
        FROM regexp_split_to_table(left(value, 10000), '\s+') AS chunk
        WHERE chunk ~ ('[^ ][''.&' || U&'\2019' || '-][^ ]') AND split_words(chunk) LIKE '% %');
END $$;
COMMENT ON FUNCTION joined_words(text) IS
    'the words with punctuation inside, without it: T-Shirt is "tshirt"';

CREATE OR REPLACE FUNCTION product_code(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    written text := replace(split_words(left(value, 500)), ' ', '');
BEGIN
    IF written = '' THEN
        RETURN NULL;
    END IF;
    RETURN coalesce(nullif(ltrim(written, '0'), ''), '0');
END $$;
COMMENT ON FUNCTION product_code(text) IS
    'a sku or gtin without case, punctuation and leading zeros; null: nothing else is in it';

CREATE OR REPLACE FUNCTION weighted_words(
    language regconfig, title text, brand text, category text, colour text
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    of_brand text := coalesce(split_words(brand), '');
    of_title text := ' ' || split_words(title) || ' ';
    joined_title text := '';
BEGIN
    IF title ~ ('[^ ][''.&' || U&'\2019' || '-][^ ]') THEN
        joined_title := joined_words(CASE WHEN brand <> ''
            THEN replace(lower(title), lower(brand), ' ') ELSE title END);
    END IF;
    -- The brand in a title counts as the brand: "Red Tape" is not a colour.
    IF of_brand <> '' THEN
        of_title := replace(of_title, ' ' || of_brand || ' ', ' ');
    END IF;
    RETURN setweight(to_tsvector(language, of_title || joined_title), 'A')
        || setweight(to_tsvector(language,
            coalesce(split_words(category) || ' ' || joined_words(category), '')), 'B')
        || setweight(to_tsvector(language,
            coalesce(split_words(colour) || ' ' || joined_words(colour), '')), 'C')
        || setweight(to_tsvector(language, of_brand || ' ' || joined_words(brand)), 'D');
END $$;
COMMENT ON FUNCTION weighted_words(regconfig, text, text, text, text) IS
    'the words of a product with the weights A title, B category, C colour, D brand';

CREATE OR REPLACE FUNCTION product_codes(sku text, attributes jsonb) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    codes text[] := ARRAY[product_code(sku)];
BEGIN
    IF attributes <> '{}' THEN
        codes := codes || ARRAY(
            SELECT product_code(value) FROM jsonb_each_text(attributes)
            WHERE lower(key) IN ('gtin', 'gtin8', 'gtin12', 'gtin13', 'gtin14', 'ean', 'upc',
                'isbn', 'mpn', 'barcode'));
    END IF;
    RETURN array_to_tsvector(ARRAY(
        SELECT DISTINCT '#' || code FROM unnest(codes) AS code WHERE code IS NOT NULL));
END $$;
COMMENT ON FUNCTION product_codes(text, jsonb) IS
    'the sku and the gtin of a product as lexemes that begin with #';
"""

TABLES = """
CREATE TABLE IF NOT EXISTS word_language (
    language text NOT NULL,
    active boolean NOT NULL DEFAULT false,
    CONSTRAINT word_language_pkey PRIMARY KEY (language)
);
CREATE UNIQUE INDEX IF NOT EXISTS word_language_active_idx ON word_language (active) WHERE active;
COMMENT ON TABLE word_language IS
    'text search configurations in which words are kept; searches read the active one';
INSERT INTO word_language (language) VALUES ('english') ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS product_words (
    product_id bigint NOT NULL,
    language text NOT NULL,
    words tsvector NOT NULL,
    surface tsvector NOT NULL,
    CONSTRAINT product_words_pkey PRIMARY KEY (product_id, language)
);
CREATE INDEX IF NOT EXISTS product_words_words_idx ON product_words USING gin (words);
COMMENT ON TABLE product_words IS
    'the words of each product, kept by triggers; A title, B category, C colour, D brand';
COMMENT ON COLUMN product_words.words IS 'stemmed; the sku and the gtin begin with #';
COMMENT ON COLUMN product_words.surface IS 'not stemmed, as counted in vocabulary';

CREATE TABLE IF NOT EXISTS vocabulary (
    id bigint GENERATED ALWAYS AS IDENTITY,
    language text NOT NULL,
    word text COLLATE "C" NOT NULL,
    lexeme text COLLATE "C",
    products bigint NOT NULL,
    kinds bigint NOT NULL,
    brands bigint NOT NULL,
    CONSTRAINT vocabulary_pkey PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS vocabulary_word_idx ON vocabulary (word, language);
CREATE INDEX IF NOT EXISTS vocabulary_lexeme_idx ON vocabulary (lexeme, language);
COMMENT ON TABLE vocabulary IS
    'the words of the catalogue, counted by triggers; a word''s counts are the sums of its rows';
COMMENT ON COLUMN vocabulary.lexeme IS 'its stem in this language; null: a stop word';
COMMENT ON COLUMN vocabulary.products IS 'products that have the word';
COMMENT ON COLUMN vocabulary.kinds IS 'products that have it in their category or colour';
COMMENT ON COLUMN vocabulary.brands IS 'products that have it in their brand';

CREATE TABLE IF NOT EXISTS synonym (
    word text COLLATE "C" NOT NULL,
    means text COLLATE "C" NOT NULL,
    CONSTRAINT synonym_pkey PRIMARY KEY (word, means),
    CONSTRAINT synonym_words_check CHECK (word <> '' AND means <> '' AND word <> means)
);
COMMENT ON TABLE synonym IS
    'a search for `word` also finds products that have `means`; both as split_words writes them';
"""

TRIGGERS = """
CREATE OR REPLACE FUNCTION keep_words() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM product_words;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM product_words USING before WHERE product_id = before.id;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO product_words
        SELECT p.id, l.language,
            weighted_words(l.language::regconfig, p.title, p.brand, p.category, p.colour)
                || product_codes(p.sku, p.attributes),
            weighted_words('simple', p.title, p.brand, p.category, p.colour)
        FROM after AS p, word_language AS l
        ON CONFLICT (product_id, language)
            DO UPDATE SET words = excluded.words, surface = excluded.surface;
    ELSE
        INSERT INTO product_words
        SELECT p.id, l.language,
            weighted_words(l.language::regconfig, p.title, p.brand, p.category, p.colour)
                || product_codes(p.sku, p.attributes),
            weighted_words('simple', p.title, p.brand, p.category, p.colour)
        FROM after AS p JOIN before AS b USING (id), word_language AS l
        WHERE (p.title, p.brand, p.category, p.colour, p.sku, p.attributes)
            IS DISTINCT FROM (b.title, b.brand, b.category, b.colour, b.sku, b.attributes)
        ON CONFLICT (product_id, language)
            DO UPDATE SET words = excluded.words, surface = excluded.surface;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION count_words() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    changes jsonb := '[]';
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        SELECT changes || coalesce(jsonb_agg(to_jsonb(more)), '[]') INTO changes
        FROM (
            SELECT language, lexeme AS word, count(*) AS products,
                count(*) FILTER (WHERE weights && '{B,C}') AS kinds,
                count(*) FILTER (WHERE weights && '{D}') AS brands
            FROM after, unnest(surface) GROUP BY language, lexeme
        ) AS more;
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        SELECT changes || coalesce(jsonb_agg(to_jsonb(less)), '[]') INTO changes
        FROM (
            SELECT language, lexeme AS word, -count(*) AS products,
                -count(*) FILTER (WHERE weights && '{B,C}') AS kinds,
                -count(*) FILTER (WHERE weights && '{D}') AS brands
            FROM before, unnest(surface) GROUP BY language, lexeme
        ) AS less;
    END IF;
    -- Writers of the same words never wait for each other: what changes is a row of its own, into
    -- which the rows that nobody else holds are merged. A transaction of a stricter isolation
    -- level merges none, because a row that another has merged meanwhile would be an error there.
    WITH change AS (
        SELECT language, word, sum(products) AS products, sum(kinds) AS kinds, sum(brands) AS brands
        FROM jsonb_to_recordset(changes) AS part (
            language text, word text COLLATE "C", products bigint, kinds bigint, brands bigint)
        GROUP BY language, word
        HAVING (sum(products), sum(kinds), sum(brands)) <> (0, 0, 0)
    ), free AS MATERIALIZED (
        SELECT v.id FROM vocabulary AS v JOIN change USING (language, word)
        WHERE current_setting('transaction_isolation') = 'read committed'
        FOR UPDATE OF v SKIP LOCKED
    ), merged AS (
        DELETE FROM vocabulary AS v USING free WHERE v.id = free.id
        RETURNING v.language, v.word, v.products, v.kinds, v.brands
    )
    INSERT INTO vocabulary (language, word, lexeme, products, kinds, brands)
    SELECT language, word, (tsvector_to_array(to_tsvector(language::regconfig, word)))[1],
        sum(products), sum(kinds), sum(brands)
    FROM (SELECT * FROM change UNION ALL SELECT * FROM merged) AS part
    GROUP BY language, word HAVING (sum(products), sum(kinds), sum(brands)) <> (0, 0, 0);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_words() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM vocabulary;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER product_words_more AFTER INSERT ON product_words
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_words();
CREATE OR REPLACE TRIGGER product_words_other AFTER UPDATE ON product_words
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_words();
CREATE OR REPLACE TRIGGER product_words_less AFTER DELETE ON product_words
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION count_words();
CREATE OR REPLACE TRIGGER product_words_none AFTER TRUNCATE ON product_words
    FOR EACH STATEMENT EXECUTE FUNCTION forget_words();
"""

# Not ALWAYS: a replica gets the words themselves, and a restored dump holds them.
ON_PRODUCT = """
CREATE OR REPLACE TRIGGER product_words_insert AFTER INSERT ON product
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION keep_words();
CREATE OR REPLACE TRIGGER product_words_update AFTER UPDATE ON product
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION keep_words();
CREATE OR REPLACE TRIGGER product_words_delete AFTER DELETE ON product
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION keep_words();
CREATE OR REPLACE TRIGGER product_words_truncate AFTER TRUNCATE ON product
    FOR EACH STATEMENT EXECUTE FUNCTION keep_words();
"""

# The lock keeps a product from being deleted between reading it and writing its words.
FILL = """
DO $$
DECLARE
    last bigint := 0;
BEGIN
    LOOP
        WITH batch AS MATERIALIZED (
            SELECT * FROM product WHERE id > last ORDER BY id LIMIT 2000 FOR KEY SHARE
        ), written AS (
            INSERT INTO product_words
            SELECT p.id, l.language,
                weighted_words(l.language::regconfig, p.title, p.brand, p.category, p.colour)
                    || product_codes(p.sku, p.attributes),
                weighted_words('simple', p.title, p.brand, p.category, p.colour)
            FROM batch AS p, word_language AS l
            ON CONFLICT DO NOTHING
        )
        SELECT max(id) INTO last FROM batch;
        EXIT WHEN last IS NULL;
        COMMIT;
    END LOOP;
END $$
"""

ACTIVATE = "UPDATE word_language SET active = true WHERE language = 'english'"

SYNONYMS = (
    ("grey", "gray"), ("navy", "dark blue"), ("beige", "sand"), ("beige", "tan"),
    ("purple", "violet"), ("purple", "lilac"), ("red", "crimson"), ("burgundy", "maroon"),
    ("burgundy", "wine red"), ("multicolour", "multicolor"), ("turquoise", "teal"),
    ("khaki", "olive"), ("golden", "gold"), ("silvery", "silver"), ("ivory", "off white"),
    ("cream", "ivory"), ("trousers", "pants"), ("jeans", "denims"), ("tshirt", "tee"),
    ("sweater", "jumper"), ("sweater", "pullover"), ("sneakers", "trainers"),
    ("sneakers", "sport shoes"), ("sneakers", "running shoes"), ("bag", "handbag"),
    ("bag", "purse"), ("backpack", "rucksack"), ("hat", "cap"), ("outerwear", "outwear"),
    ("outerwear", "coat"), ("outerwear", "jacket"), ("outwear", "coat"), ("outwear", "jacket"),
    ("undershirt", "vest"), ("bodysuit", "body"), ("hoodie", "hooded sweatshirt"),
    ("longsleeve", "long sleeve"), ("couch", "sofa"), ("lamp", "light"), ("watch", "wristwatch"),
    ("sunglasses", "shades"), ("yoghurt", "yogurt"), ("aubergine", "eggplant"),
    ("zucchini", "courgette"), ("pepper", "capsicum"), ("satsumas", "mandarin"),
    ("beet", "beetroot"), ("children", "kids"), ("women", "ladies"), ("men", "gents"),
)  # fmt: skip
"""Words that mean the same, either way."""

ONE_WAY = (
    ("jeans", "trousers"), ("jeans", "pants"), ("blazer", "jacket"), ("shirt", "blouse"),
    ("sneakers", "shoes"), ("trainers", "shoes"), ("boots", "shoes"), ("heels", "shoes"),
    ("loafers", "shoes"), ("sandals", "shoes"), ("scarlet", "red"), ("azure", "blue"),
)  # fmt: skip
"""Words of which the first also finds the second."""

VALUE_COLUMNS = ("brand", "category", "colour")
"""Columns whose values are looked up without case."""


def upgrade() -> None:
    _in_turn(FUNCTIONS, TABLES, TRIGGERS, ON_PRODUCT)
    pairs = {*SYNONYMS, *((means, word) for word, means in SYNONYMS), *ONE_WAY}
    rows = ", ".join(f"('{word}', '{means}')" for word, means in sorted(pairs))
    op.execute(f"INSERT INTO synonym VALUES {rows} ON CONFLICT DO NOTHING")
    with op.get_context().autocommit_block():
        op.execute(FILL)
    op.execute(ACTIVATE)
    with op.get_context().autocommit_block():
        for column in VALUE_COLUMNS:  # an interrupted run leaves an invalid index
            name = f"product_{column}_lower_idx"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON product (lower({column}), {column})")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for column in VALUE_COLUMNS:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS product_{column}_lower_idx")
    _in_turn(
        *(
            f"DROP TRIGGER IF EXISTS product_words_{event} ON product"
            for event in ("insert", "update", "delete", "truncate")
        ),
        "DROP TABLE IF EXISTS product_words",
        "DROP TABLE IF EXISTS vocabulary",
        "DROP TABLE IF EXISTS synonym",
        "DROP TABLE IF EXISTS word_language",
        *(
            f"DROP FUNCTION IF EXISTS {function}"
            for function in (
                "keep_words()",
                "count_words()",
                "forget_words()",
                "weighted_words(regconfig, text, text, text, text)",
                "product_codes(text, jsonb)",
                "product_code(text)",
                "joined_words(text)",
                "split_words(text)",
            )
        ),
    )


def _in_turn(*parts: str) -> None:
    """Run each statement in its own transaction. One transaction that locks several tables could
    deadlock with a search that locks them in another order."""
    for part in parts:
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(part)
        with op.get_context().autocommit_block():
            pass
