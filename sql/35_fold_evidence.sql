-- The evidence by which products are one, as in `identifiers.py`, `general_words.py` and
-- `evidence.py` of `app/duplicates`; tests compare them.

CREATE OR REPLACE FUNCTION analytics._generic_words() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_split_to_array(btrim('
        2xl 3xl 4xl 5xl 6xl a accessory adult ankle apparel article bag basic beige belt best
        big black blous blue boot bottle bottom box boy bra bracelet brief bronz brown burgundy
        canvas cap cardigan casual chain charcoal check checked child classic clothing cm coat
        collar collection combo comfort comfortable copper coral cotton cream cut cyan daily
        denim design designer dial double dpi dress ear earring eu eur everyday fashion
        fashionable fit flat flip flop floral for formal free from full g gift girl glass glove
        gold graphic green grey half hand handbag handmade hat heel high home hooded hoody hz in
        indigo infant item ivory jacket jean jersey jewellery k kg khaki kid kit knit knitted l
        lady large leather legging lifestyle light lilac limited linen little lm long loos low
        lumen luxury m magenta mah man maroon medium metal metallic mid mini mint ml mm modern
        multi mustard natural navy neck new of office olive on open orange original outdoor
        oversized pack packet pair pant party pattern patterned pcs pendant perfume piece pink
        plain plastic plus polo polyester pre premium print printed product pure purple px
        quality red regular relaxed ring ros round rpm s sale sandal scarf set shirt sho short
        silk silver simple single siz skinny skirt sleeve sleeveless slim slip small smart
        sneaker sock soft solid special sport standard steel straight strap street stretch
        stripe striped style stylish suit summer sunglass sweater sweatshirt sz tan tank taupe
        teal tee textile textured the tie time to toddler top tracksuit trainer trendy trouser
        trunk tshirt turquois two uk underwear unisex upper us v vest vintage violet volt w
        wallet wash washed watch watt wear white winter with without woman wood wooden wool
        woven xl xs xxl xxs xxxl xxxxl yellow young youth
    ', E' \n'), '\s+')
$$;
COMMENT ON FUNCTION analytics._generic_words() IS
    'words of an identity key that describe many articles';

CREATE OR REPLACE FUNCTION analytics._is_generic(key text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT key = '' OR length(key) <= 500 AND key LIKE '%|%|%|%|%' AND NOT EXISTS (
        SELECT FROM unnest(string_to_array(split_part(key, '|', 5), ' ')) AS word
        WHERE word <> ALL (
                string_to_array(translate(
                    split_part(key, '|', 2) || '|' || split_part(key, '|', 3) || '|'
                    || split_part(key, '|', 4), '|', ' '), ' '))
            AND word <> ALL (analytics._generic_words())
            AND word !~ '^([0-9.]+[a-z]{0,3}|.{1,2}|#year)$')
$$;
COMMENT ON FUNCTION analytics._is_generic(text) IS
    'whether an identity key holds only brand, category, colour, general words and amounts';

CREATE OR REPLACE FUNCTION analytics._gtin14(text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT lpad(digits, 14, '0') FROM translate(text, ' -', '') AS digits
    WHERE digits ~ '^[0-9]{8,14}$' AND digits !~ '^0+$' AND (
        SELECT sum(digit::integer * CASE WHEN place % 2 = 1 THEN 3 ELSE 1 END) % 10
        FROM regexp_split_to_table(lpad(digits, 14, '0'), '') WITH ORDINALITY AS d(digit, place)
    ) = 0
$$;
COMMENT ON FUNCTION analytics._gtin14(text) IS
    'a GTIN-8, -12, -13 or -14 as 14 digits, null unless the check digit is right';

-- The value of the first attribute that has one of these names, and a valid value.
CREATE OR REPLACE FUNCTION analytics._identifier(attributes jsonb, kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT valid.value
    FROM jsonb_each(attributes) AS field
    CROSS JOIN LATERAL (
        SELECT lower(regexp_replace(regexp_replace(field.key, '^g:', ''), '[^A-Za-z0-9]', '', 'g')
            COLLATE "C") AS name, field.value #>> '{}' AS text
    ) AS plain
    CROSS JOIN LATERAL (
        SELECT array_position(CASE kind
            WHEN 'gtin' THEN '{gtin,gtin14,gtin13,gtin12,gtin8,ean,ean13,ean8,upc,upca,barcode,'
                'isbn,isbn13}'
            WHEN 'mpn' THEN '{mpn,manufacturerpartnumber,partnumber}'
            WHEN 'item group' THEN '{itemgroupid,itemgroup}'
        END::text[], plain.name) AS place
    ) AS named
    CROSS JOIN LATERAL (
        SELECT CASE kind
            WHEN 'gtin' THEN analytics._gtin14(plain.text)
            WHEN 'mpn' THEN (
                SELECT mpn FROM lower(regexp_replace(plain.text, '[^A-Za-z0-9]', '', 'g')
                    COLLATE "C") AS mpn
                WHERE length(mpn) >= 3 AND mpn ~ '[0-9]')
            WHEN 'item group' THEN (
                SELECT item FROM btrim(plain.text, ' ') AS item
                WHERE item <> '' AND lower(item COLLATE "C")
                    <> ALL ('{0,-,na,n/a,none,"null",unknown}'))
        END AS value
    ) AS valid
    WHERE named.place IS NOT NULL AND valid.value IS NOT NULL
        AND (jsonb_typeof(field.value) = 'string'
            OR jsonb_typeof(field.value) = 'number' AND plain.text ~ '^-?[0-9]+$')
    ORDER BY named.place, field.key COLLATE "C" LIMIT 1
$$;
COMMENT ON FUNCTION analytics._identifier(jsonb, text) IS
    'the gtin, mpn or item group in attributes, null: none that is valid';

CREATE OR REPLACE FUNCTION analytics._same_product_cut(model public.model, category text)
RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT coalesce(
        (SELECT c.same_product_distance::float8 FROM calibration AS c
         WHERE c.model_id = model.id AND c.category = coalesce(_same_product_cut.category, '')),
        (SELECT c.same_product_distance::float8 FROM calibration AS c
         WHERE c.model_id = model.id AND c.category = ''),
        CASE
            WHEN model.name LIKE 'embedded%' AND model.revision LIKE '1-%' THEN 0.25::float8
            WHEN model.name LIKE 'embedded%' AND model.revision LIKE '2-%' THEN 0.2::float8
            ELSE 0.1::float8
        END)
$$;
COMMENT ON FUNCTION analytics._same_product_cut(public.model, text) IS
    'the distance up to which the pictures of two products of a category agree';

CREATE OR REPLACE FUNCTION analytics._generic_share(model public.model)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE
        WHEN model.name LIKE 'embedded%' AND model.revision LIKE '2-%' THEN 0.75::float8
        ELSE 0.625::float8
    END
$$;
COMMENT ON FUNCTION analytics._generic_share(public.model) IS
    'the factor of the cut where the words of two products are generic';
