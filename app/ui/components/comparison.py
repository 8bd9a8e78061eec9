"""Products side by side as an HTML table: pictures, then fields, those that differ first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.types import Product
from app.ui.components.product_cards import display_name
from app.ui.engine_texts import column_title
from app.ui.formatting import format_price, html_attribute, img_tag
from app.ui.translation import _

MAX_PRODUCTS = 3
"""Products side by side."""

MAX_ATTRIBUTES = 24

STYLE = """<style>
.compare { overflow-x: auto }
.compare table { width: 100%; border-collapse: collapse; margin: 0; overflow-wrap: anywhere }
.compare th, .compare td { border: none; border-top: 1px solid var(--line); padding: .4rem .5rem;
  text-align: left; vertical-align: top; min-width: 5.5rem; line-height: 1.4 }
.compare tr > :first-child { min-width: 4.5rem; width: 6rem; padding-left: 0 }
.compare thead th, .compare thead td { border: none; font-weight: 600 }
.compare tbody th { font-weight: 400; color: var(--faint) }
.compare .differs td { font-weight: 600 }
.compare img, .compare .none { width: 100%; max-width: 14rem; aspect-ratio: 1; object-fit: contain;
  background: #fff; display: block; border-radius: .4rem; border: 1px solid var(--line);
  margin-bottom: .35rem }
@media (max-width: 640px) {
  .compare table { table-layout: fixed; font-size: .8125rem }
  .compare th, .compare td { min-width: 0; padding: .3rem .25rem }
  .compare tr > :first-child { min-width: 0; width: 4rem } }
.compare .none { background: transparent; display: grid; place-items: center; font-weight: 400 }
</style>"""


def comparison_html(products: Sequence[tuple[Product, bytes | None]]) -> str:
    """The table of products, each with a JPEG if there is one; all text is escaped."""
    heads = "".join(f"<th scope=col>{_picture(*each)}</th>" for each in products)
    rows = "".join(_row(name, values) for name, values in _fields([each for each, _ in products]))
    name = html_attribute(_("Comparison"))
    return (
        f"{STYLE}<div class=compare role=region aria-label={name}"
        f" tabindex=0><table>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _picture(product: Product, jpeg: bytes | None) -> str:
    name = display_name(product)
    none = escape(_("No picture"))
    picture = f"<div class=none>{none}</div>"
    if jpeg is not None:
        picture = img_tag(jpeg, "")
    return f"{picture}{escape(name)}"


def _row(name: str, values: Sequence[str]) -> str:
    kind = " class=differs" if _differ(values) else ""
    cells = "".join(f"<td>{escape(value) or '&mdash;'}</td>" for value in values)
    return f"<tr{kind}><th scope=row>{escape(name)}</th>{cells}</tr>"


def _fields(products: Sequence[Product]) -> list[tuple[str, list[str]]]:
    """The fields that at least one product has, as text: those that differ, then the others."""
    fields = {
        column_title(name): [_text(getattr(each, name)) for each in products]
        for name in ("brand", "category", "colour", "year")
    }
    fields[column_title("price")] = [format_price(each) for each in products]
    fields["SKU"] = [each.sku for each in products]
    names = dict.fromkeys(name for each in products for name in sorted(each.attributes))
    for name in list(names)[:MAX_ATTRIBUTES]:
        fields[name] = [_text(each.attributes.get(name)) for each in products]
    shown = [(name, values) for name, values in fields.items() if any(values)]
    return sorted(shown, key=lambda field: not _differ(field[1]))


def _differ(values: Sequence[str]) -> bool:
    return len(set(values)) > 1


def _text(value: object) -> str:
    return "" if value is None else str(value)
