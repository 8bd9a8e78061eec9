"""Amounts with a currency, as feeds write them."""

from __future__ import annotations

import re

from ingest.product_fields import BadField, short

_MONEY = re.compile(r"(?:([A-Z]{3})\s*)?([0-9][0-9.,]*)(?:\s*([A-Z]{3}))?")


def amount_and_currency(text: str) -> tuple[str, str]:
    """`("1234.50", "EUR")` of "1234.50 EUR", "EUR 1,234.50" or "1234,50 EUR"; empty if missing.

    Where both separators occur, the last one is that of the decimals; a single comma with other
    than three digits after it is one too. Raises BadField for another text.
    """
    if not text:
        return "", ""
    match = _MONEY.fullmatch(text.strip())
    if match is None or (match[1] and match[3]):
        raise BadField(f"the price {short(text)!r} is not an amount such as 12.50 EUR")
    return _amount(match[2]), match[1] or match[3] or ""


def _amount(digits: str) -> str:
    point = max(digits.rfind("."), digits.rfind(","))
    decimals = len(digits) - point - 1
    alone = digits.count(",") + digits.count(".") == 1
    if point < 0 or (digits[point] == "," and alone and decimals == 3):
        return digits.replace(",", "")
    whole = re.sub(r"[.,]", "", digits[:point])
    repeated = not alone and digits.count(digits[point]) > 1
    return whole + digits[point + 1 :] if repeated else f"{whole}.{digits[point + 1 :]}"
