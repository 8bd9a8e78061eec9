"""The style sheet of the search page; its colours follow the theme of the browser."""

from __future__ import annotations

ACCENT = "#2f5fd0"
ACCENT_ON_DARK = "#3f70da"
"""Contrast of at least 4.5:1 with white text and 3:1 with the page background, as WCAG 2.2
requires."""

STYLE = """<style>
.stMainBlockContainer { padding-top: 4.5rem; padding-bottom: 3rem }
.stMainBlockContainer h1 { font-size: 2rem; padding: .25rem 0 .5rem }
.stMainBlockContainer h2 { font-size: 1.35rem; padding: .5rem 0 .25rem }
.st-key-ask { gap: .75rem }
.st-key-ask [role="radiogroup"] button { padding-inline: .25rem; min-width: 0; flex: 1 1 0 }
.stApp [data-testid="stButtonGroup"] [aria-checked="true"] { color: inherit }
.st-key-ask [role="radiogroup"] { flex-wrap: nowrap }
.st-key-results { scroll-margin-top: 5rem; outline: none }
@media (min-width: 641px) {
  [data-testid="stColumn"]:has(.st-key-ask) { position: sticky; top: 4.5rem;
    align-self: flex-start }
}
.faint { color: color-mix(in srgb, currentColor 72%, transparent) }

/* Cards: a grid that keeps two side by side on a phone. */
.st-key-cards { display: grid; gap: 1rem; align-items: stretch;
  grid-template-columns: repeat(auto-fill, minmax(min(12.5rem, 42%), 1fr)) }
.st-key-cards > * { width: auto !important; min-width: 0; height: 100%; display: flex }
[class*="st-key-card-"] { border: 1px solid color-mix(in srgb, currentColor 18%, transparent);
  border-radius: .6rem; overflow: hidden; height: 100%; gap: 0; position: relative;
  overflow-wrap: anywhere; font-size: .875rem; line-height: 1.4 }
[class*="st-key-card-"]:hover { border-color: color-mix(in srgb, currentColor 45%, transparent) }
[class*="st-key-card-"] > :has(.card) { flex: 1 1 auto }
[class*="st-key-card-"] > :has(.card), [class*="st-key-card-"] :has(> .card) { display: flex }
.card { flex: 1; display: flex; flex-direction: column; width: 100%; min-width: 0 }
.card img { aspect-ratio: 1; width: 100%; object-fit: contain; background: #fff; display: block;
  border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent) }
.card .words { padding: .6rem .75rem .5rem; display: flex; flex-direction: column; flex: 1 }
.card h3 { font-weight: 600; font-size: .95rem; line-height: 1.4; margin: 0 0 .25rem; padding: 0;
  letter-spacing: 0; min-height: 2.8em; overflow: hidden; display: -webkit-box;
  -webkit-box-orient: vertical; -webkit-line-clamp: 3 }
.card .last { display: flex; justify-content: space-between; flex-wrap: wrap; column-gap: .5rem;
  margin-top: auto; padding-top: .4rem }
.card .similarity { margin-bottom: .35rem }
.bar { height: .3rem; border-radius: 1rem; margin-top: .15rem;
  background: color-mix(in srgb, currentColor 14%, transparent) }
.bar div { height: 100%; border-radius: 1rem; background: ACCENT }
[class*="st-key-actions-"] { padding: 0 .5rem .5rem; gap: .25rem; align-items: center }
[class*="st-key-actions-"] button { min-height: 2rem; padding: .15rem .5rem }
[class*="st-key-actions-"] button p { font-size: .8125rem }
/* The picture is part of the button that opens the details. */
[class*="st-key-actions-"], [class*="st-key-actions-"] * { position: static }
[class*="st-key-details-"] button::after { content: ""; position: absolute; aspect-ratio: 1;
  inset: 0 0 auto 0; cursor: pointer; z-index: 1 }
/* The name of the product in a button is for screen readers; the card shows it already. */
[class*="st-key-actions-"] button em { position: absolute; width: 1px; height: 1px;
  overflow: hidden; clip-path: inset(50%); white-space: nowrap }

/* The query picture and its region. */
.asked { margin: 0; position: relative; overflow: hidden; border-radius: .6rem; line-height: 0;
  border: 1px solid color-mix(in srgb, currentColor 18%, transparent); width: fit-content;
  max-width: 100% }
.asked img { display: block; max-width: 100%; max-height: 16rem }
@media (max-width: 640px) {
  .asked img { max-height: 9rem }
  .stHorizontalBlock:has(> .stColumn .st-key-ask) { gap: 1rem }
}
.asked .frame { position: absolute; border: 2px solid #fff; outline: 2px solid ACCENT;
  box-shadow: 0 0 0 99rem rgb(0 0 0 / .55) }
.others { display: flex; gap: .5rem; flex-wrap: wrap; margin-top: .5rem }
.others img { height: 3.5rem; border-radius: .35rem }

/* Details of a product: pictures next to facts. */
.details { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)) }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: .5rem }
.pictures figure { margin: 0; flex: 1 1 10rem; max-width: 20rem; overflow-wrap: anywhere }
.pictures img { width: 100%; border-radius: .5rem; background: #fff; display: block;
  border: 1px solid color-mix(in srgb, currentColor 14%, transparent) }
.pictures figcaption { font-size: .8125rem; margin-top: .25rem }
.facts { display: grid; grid-template-columns: minmax(5rem, auto) 1fr; gap: .3rem 1rem; margin: 0;
  padding: 0 !important; align-content: start; overflow-wrap: anywhere }
.facts dt { font-weight: 600 } .facts dd { margin: 0 }
.twins { margin: 0; padding-left: 1.1rem !important; overflow-wrap: anywhere }
</style>""".replace("ACCENT", ACCENT)
