"""How many products `--prune` may delete, because a source may have been cut short."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import BadInput

SHARE = 0.1
FEW = 10
"""By itself, --prune deletes up to SHARE of the products, or FEW."""


@dataclass(frozen=True, slots=True)
class PruneLimit:
    """Up to this many products, or this share (0 to 1) of those in the catalogue."""

    products: int = FEW
    share: float = SHARE

    def objection(self, count: int, total: int, examples: Sequence[str]) -> str | None:
        """Why `count` of `total` products should not be deleted; None if they may be."""
        if count <= max(self.products, self.share * total):
            return None
        names = ", ".join(examples)
        more = f" and {count - len(examples):,} more" if count > len(examples) else ""
        return (
            f"{count:,} of {total:,} products are not in the source and would be deleted, more "
            f"than {self}: {names}{more}. If the source was cut short, fetch it again; if they "
            f"should go, run it with --prune-at-most {count}."
        )

    def __str__(self) -> str:
        if self == PruneLimit():
            return f"a tenth of them or {FEW}"
        return f"{self.share:.4g} of them" if self.share else f"{self.products:,}"


UNLIMITED = PruneLimit(share=1)


def parse(text: str) -> PruneLimit:
    """A number of products such as 500, or a share such as 25%. Raises BadInput."""
    number = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)(%?)", text.strip(), re.ASCII)
    if number and number[2] and float(number[1]) <= 100:
        return PruneLimit(0, float(number[1]) / 100)
    if number and not number[2] and "." not in number[1]:
        return PruneLimit(int(number[1]), 0)
    raise BadInput(
        f"{text!r} is not a number of products such as 500, nor a share such as 25%; correct "
        "--prune-at-most."
    )
