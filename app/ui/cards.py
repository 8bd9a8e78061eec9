"""A match as a card: picture, words, similarity."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from app.values import Match, Product

STYLE = """<style>
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(12rem, 42%), 1fr)) }
.card { border: 1px solid color-mix(in srgb, currentColor 18%, transparent);
  border-radius: .6rem; overflow: hidden; display: flex; flex-direction: column;
  overflow-wrap: anywhere; font-size: .875rem; line-height: 1.4 }
.card img { aspect-ratio: 1; width: 100%; object-fit: contain; background: #fff; display: block;
  border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent) }
.card .words { padding: .6rem .75rem .7rem; display: flex; flex-direction: column; flex: 1 }
.card .title { font-weight: 600; font-size: .95rem; margin-bottom: .25rem; min-height: 2.8em;
  overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3 }
.card .faint { color: color-mix(in srgb, currentColor 72%, transparent) }
.card .last { display: flex; justify-content: space-between; flex-wrap: wrap; column-gap: .5rem;
  margin-top: auto; padding-top: .4rem }
.card .similarity { margin-bottom: .35rem }
.card .bar { height: .3rem; border-radius: 1rem; margin-top: .15rem;
  background: color-mix(in srgb, currentColor 14%, transparent) }
.card .bar div { height: 100%; border-radius: 1rem; background: #2f5fd0 }
</style>"""


def grid(matches: Sequence[Match]) -> str:
    """The cards of some matches, as HTML in which every text is escaped."""
    return f"{STYLE}<div class=cards>{''.join(map(_card, matches))}</div>"


def _card(match: Match) -> str:
    product = match.product
    thumbnail = b64encode(match.thumbnail).decode("ascii")
    title = escape(product.title or product.sku)
    facts = (product.brand, product.category, product.colour, product.year)
    means = f" · {match.means}" if match.means else ""
    filled = min(1.0, max(0.0, match.similarity or 0.0))
    return (
        f'<div class=card><img alt="{title}" src="data:image/jpeg;base64,{thumbnail}">'
        f'<div class=words><div class=title title="{title}">{title}</div>'
        f"<div class=similarity>similarity {match.similarity:.3f}{means}"
        f'<div class=bar><div style="width:{filled:.1%}"></div></div></div>'
        f"<div class=faint>{escape(' · '.join(str(fact) for fact in facts if fact))}</div>"
        f"<div class=faint>{escape(_folded(match))}</div>"
        f"<div class=last><span>{escape(_price(product))}</span>"
        f"<span class=faint>{escape(product.sku)}</span></div></div></div>"
    )


def _folded(match: Match) -> str:
    """The years, or else the skus, of the products that came as this one."""
    also = [str(fold.product.year or fold.product.sku) for fold in match.folded]
    return f"also {', '.join(dict.fromkeys(also))}" if also else ""


def _price(product: Product) -> str:
    return "" if product.price is None else f"{product.price:.2f} {product.currency or ''}".strip()
