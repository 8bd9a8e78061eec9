"""Intervals of 95 % for shares of queries, and for the difference of two."""

from __future__ import annotations

import math

Z = 1.959964
"""Standard normal quantile of a two-sided interval of 95 %."""


def wilson(found: int, asked: int) -> tuple[float, float]:
    """The ends of the 95 % score interval of a share (E. B. Wilson, JASA 22, 1927).

    Unlike the share plus or minus its standard error it stays within 0 to 1 and is right for few
    queries and for shares near 0 and 1.
    """
    share, spread = found / asked, Z * Z / asked
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def newcombe(both: int, ours: int, theirs: int, neither: int) -> tuple[float, float]:
    """The ends of the 95 % interval of the difference of two shares of the same queries.

    From how many both runs found, only ours, only theirs, neither: method 10 of R. Newcombe,
    Statistics in Medicine 17, 2635 (1998), made of Wilson's intervals and the correlation of the
    two runs. It stays in doubt where few queries were asked and where the runs never differ.
    """
    asked = both + ours + theirs + neither
    first, second = (both + ours) / asked, (both + theirs) / asked
    low_1, high_1 = wilson(both + ours, asked)
    low_2, high_2 = wilson(both + theirs, asked)
    phi = _phi(both, ours, theirs, neither)
    below, above = first - low_1, high_2 - second
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    over, under = high_1 - first, second - low_2
    up = math.sqrt(max(0.0, over**2 - 2 * phi * over * under + under**2))
    return max(-1.0, first - second - down), min(1.0, first - second + up)


def _phi(both: int, ours: int, theirs: int, neither: int) -> float:
    """The correlation of the two runs, corrected for continuity as that method does."""
    margins = (both + ours) * (theirs + neither) * (both + theirs) * (ours + neither)
    if not margins:
        return 0.0
    product = float(both * neither - ours * theirs)
    if product > 0:
        product = max(0.0, product - (both + ours + theirs + neither) / 2)
    return product / math.sqrt(margins)
