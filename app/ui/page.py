"""The upload page: one picture in, the products that look like it out."""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from html import escape

import streamlit as st
from PIL import Image

from app.bootstrap import App
from app.errors import LookalikeError
from app.ui.operating import offer_rebuild, serve_metrics
from app.values import Match, Plan, Product, Query, SearchResult

SHOWN_SIDE = 400  # pixels of the uploaded photo

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

_log = logging.getLogger("lookalike.page")


@st.cache_resource(show_spinner="Starting …")
def services() -> App:
    """The services all sessions share; made once in this process."""
    app = App()
    serve_metrics(app)
    return app


def plain(words: str) -> str:
    """Any text as Markdown that shows it letter for letter."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(words.split()))


def main() -> None:
    st.set_page_config(page_title="Lookalike", page_icon="🔎", layout="wide")
    st.title("Lookalike", anchor=False)
    st.write("Upload a photo and see the products that look like it.")
    left, right = st.columns([1, 3], gap="large")
    with left:
        photo = st.file_uploader("Photo of a product", help="JPEG, PNG, WebP, HEIC and others")
        k = st.slider("Products to show", 4, 48, 12, step=4)
        offer_rebuild(services, plain)
    if photo is None:
        return
    with right:
        answer = _asked(photo.getvalue(), k)
    if answer is None:
        return
    picture, result = answer
    left.image(picture, "Your photo", width="stretch")
    with right:
        _show(result)


def _asked(data: bytes, k: int) -> tuple[Image.Image, SearchResult] | None:
    """The photo and what it finds, or a sentence on the page that says why there is nothing."""
    try:
        with st.spinner("Searching …"):
            result = services().search.search(Query(picture=data, k=k, stranger=True, fold=True))
            return services().sandbox.decode(data, at_least=SHOWN_SIDE), result
    except LookalikeError as exc:
        st.error(plain(str(exc)))
    except Exception:
        _log.exception("a search failed")
        st.error("Something went wrong here; it was logged. Please try again.")
    return None


def _show(result: SearchResult) -> None:
    count = len(result.matches)
    if count:
        st.subheader(f"{count} product{'s' * (count != 1)}, most similar first", anchor=False)
        st.html(f"{STYLE}<div class=cards>{''.join(map(_card, result.matches))}</div>")
    _explain(result.plan)


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


def _explain(plan: Plan) -> None:
    if plan.shortfall:
        st.info(plain(f"Fewer than asked: {plan.shortfall}."))
    times = ", ".join(f"{name} {ms:.0f}" for name, ms in plan.ms.items())
    how = f"Answered by {plan.path}: {plan.reason}. Model: {plan.model}. Milliseconds: {times}."
    st.caption(plain(how))


main()
