"""Which titles are generic: their words distinguish no article of a brand, category and colour."""

from __future__ import annotations

import re
from functools import lru_cache

from app.duplicates.normalization import COLOURS, MAX_KEY, SIZE_WORDS, SIZES, UNITS, normalised

GENERAL_WORDS = frozenset(
    normalised(
        "a accessories adult ankle apparel article bag basic belt best big blouse boot bottle"
        " bottom box boy bra bracelet brief canvas cap cardigan casual chain check checked child"
        " classic clothing coat collar collection combo comfort comfortable cotton cut daily denim"
        " design designer dial double dress ear earring everyday fashion fashionable fit flat flip"
        " flop floral for formal free from full gift girl glass gloves graphic half hand handbag"
        " handmade hat heel high home hooded hoodie in infant item jacket jean jersey jewellery"
        " kid kit knit knitted ladies lady large leather leggings lifestyle light limited linen"
        " little long loose low luxury men mens metal metallic mid mini modern multi natural neck"
        " new of office on open original outdoor oversized pack packet pair pants party pattern"
        " patterned pendant perfume piece plain plastic plus polo polyester pre premium print"
        " printed product pure quality regular relaxed ring round sale sandal scarf set shirt shoe"
        " short shorts silk simple single skinny skirt sleeve sleeveless slim slip small smart"
        " sneaker sock soft solid special sport sports standard steel straight strap street"
        " stretch stripe striped style stylish suit summer sunglasses sweater sweatshirt tank tee"
        " textile textured the tie time to toddler top tracksuit trainer trendy trouser trunk"
        " tshirt two underwear unisex upper vest vintage wallet wash washed watch wear winter with"
        " without women womens wood wooden wool woven young youth"
    )
)
"""Words of titles that describe many articles."""

GENERIC_WORDS = GENERAL_WORDS | COLOURS | SIZES | SIZE_WORDS | UNITS
"""`analytics._generic_words` has the same; a test compares them."""

AMOUNT_OR_SHORT = re.compile("[0-9.]+[a-z]{0,3}|.{1,2}|#year")
"""Other words of a key that distinguish no article: an amount such as `500ml`, two letters, a
year."""


@lru_cache(maxsize=4096)
def is_generic(key: str) -> bool:
    """Whether an identity key holds only brand, category, colour, general words and amounts.

    Two products with such a key need not be the same article.
    """
    parts = key.split("|", 4)
    if len(parts) < 5 or len(key) > MAX_KEY:
        return not key
    named = {word for part in parts[1:4] for word in part.split(" ")}
    return all(
        word in named or word in GENERIC_WORDS or AMOUNT_OR_SHORT.fullmatch(word)
        for word in parts[4].split(" ")
    )
