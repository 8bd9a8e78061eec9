"""Parses years and prices as users, feeds and filters write them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation


def parse_year(text: str, *, to_compare: bool = False) -> int:
    """A calendar year to store, 0 to 9999, or to compare with: any 32-bit integer.

    A year to compare with may also have underscores between its digits. Raises ValueError, whose
    message continues "The year ...".
    """
    first, last = (-(2**31), 2**31 - 1) if to_compare else (0, 9999)
    try:
        year = int(_without_underscores(text, to_compare))
    except ValueError:
        raise ValueError("is not a whole number") from None
    if not first <= year <= last:
        raise ValueError(f"is not between {first} and {last}")
    return year


def parse_price(text: str, *, to_compare: bool = False) -> Decimal:
    """An amount rounded to four decimals, as `product.price` stores it, from 0 to below 10^10.

    One to compare with may also be negative, have underscores between its digits, and be rounded up
    to 10^10. Raises ValueError, whose message continues "The price ...".
    """
    try:
        price = Decimal(_without_underscores(text, to_compare))
    except (InvalidOperation, ValueError):
        raise ValueError("is not a number such as 12.50") from None
    if price.is_finite() and abs(price) < 10**10:
        price = price.quantize(Decimal("0.0001"))
        # Rounding may have added a digit that the column does not have.
        if to_compare or 0 <= price < 10**10:
            return price
    lowest = "-9,999,999,999" if to_compare else "0"
    raise ValueError(f"is not between {lowest} and 9,999,999,999")


def _without_underscores(text: str, allowed: bool) -> str:
    """The text; raises ValueError if it has underscores, which Python accepts in a number."""
    if "_" in text and not allowed:
        raise ValueError(text)
    return text
