"""The style sheet of the pages, which is in their document; its colours follow the theme of the
browser."""

from __future__ import annotations

ACCENT = "#2f5fd0"
ACCENT_ON_DARK = "#3f70da"
"""Contrast of at least 4.5:1 with white text and 3:1 with the page background, as WCAG 2.2
requires."""

PIN = (
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath d='M7 4v2h1v6l-2 2v2h5"
    "v6l1 1 1-1v-6h5v-2l-2-2V6h1V4z'/%3E%3C/svg%3E"
)
"""A filled pin, as the contents of a `data:` URL."""

STYLE = """
/* Tokens: one scale of spaces, type and lines; colours follow the text colour of the theme. */
:root { --line: color-mix(in srgb, currentColor 18%, transparent);
  --line-strong: color-mix(in srgb, currentColor 45%, transparent);
  --faint: color-mix(in srgb, currentColor 72%, transparent);
  --small: .8125rem; --text: .875rem; --title: .95rem; --radius: .5rem }
/* As in its wide layout, which Streamlit learns from the script: a page is wide from the first
   paint, below a header of a fixed height. */
.stMainBlockContainer { max-width: none; padding: 4.5rem 5rem 3rem }
.stMainBlockContainer h1 { font-size: 1.75rem; padding: .25rem 0 .5rem }
.stMainBlockContainer h2 { font-size: 1.25rem; padding: 0 }
body [data-testid="stCaptionContainer"] {
  opacity: 1; color: color-mix(in srgb, currentColor 74%, transparent) }
body button[data-selected="true"], body button[data-selected="true"] p {
  color: inherit !important }
button:focus-visible, a:focus-visible, [tabindex]:focus-visible {
  outline: 2px solid ACCENT; outline-offset: 2px }
.stSpinner { position: fixed; bottom: 1rem; right: 1rem; z-index: 100; width: auto !important;
  padding: .5rem 1rem; border-radius: var(--radius); border: 1px solid var(--line);
  background: light-dark(#fff, #1a1c24) }
/* Room for widgets whose code is loaded late, so that nothing below jumps. A skeleton takes the
   place of what is to come; Streamlit gives it one height whatever that is. */
.st-key-figures > .stElementContainer { min-height: 8rem }
.st-key-figures > .stElementContainer > * { height: 100% }
.stPrintGraphic { min-height: 220px }
.stPrintFixedWidth { min-height: 72px }
.st-key-checks { min-height: 24rem }
.st-key-look-at { min-height: 2.5rem; gap: .5rem }
.st-key-pair { min-height: 16rem }
.st-key-pair [data-testid="stSkeleton"] { height: auto; aspect-ratio: 8 / 3 }
.st-key-pair-fields { min-height: 24rem }
.stForm [data-testid="stSkeleton"] { height: 4.25rem }
[class*="st-key-card-"] > .stElementContainer > [data-testid="stSkeleton"] { height: auto;
  aspect-ratio: 1; margin-bottom: 9.5rem }
[class*="st-key-actions-"] [data-testid="stSkeleton"] { height: 2rem; width: 4rem }
.st-key-ask { gap: .75rem; min-height: 5.75rem }
.st-key-ask > :has(.st-key-give), .st-key-give, .st-key-narrow, .st-key-heading {
  min-height: 2.5rem }
.stApp :has(> .st-key-listen), .st-key-listen { position: absolute; height: 0;
  overflow: hidden }
.lookalike-drop { position: fixed; inset: 0; z-index: 999999; display: grid; place-items: center;
  font-size: 1.75rem; font-weight: 600; color: #fff; background: rgb(20 30 60 / .75);
  pointer-events: none }
.lookalike-drop[hidden] { display: none }
.lookalike-notice { position: fixed; bottom: 1rem; left: 1rem; right: 1rem; z-index: 999998;
  margin: auto; width: fit-content; max-width: calc(100% - 2rem); display: flex; gap: .75rem;
  align-items: center; padding: .6rem .75rem .6rem 1rem; border-radius: .5rem; color: #fff;
  background: #1a1c24; border: 1px solid #fff; font: .875rem/1.4 sans-serif }
.lookalike-notice button { font: inherit; font-weight: 600; color: #1a1c24; background: #fff;
  border: none; border-radius: .35rem; padding: 0 .75rem; min-height: 2.25rem; cursor: pointer;
  flex: none }
.st-key-give { gap: .5rem }
/* The files that are being uploaded lie over the buttons, which would jump twice. */
.st-key-give [data-testid="stFileUploader"] { position: relative; min-width: 5.8rem }
.st-key-give [data-testid="stFileChips"] { position: absolute; top: 0; left: 0; z-index: 5;
  height: 100%; width: 14rem; overflow: hidden; border-radius: var(--radius);
  background: light-dark(#fff, #1a1c24) }
.st-key-give [data-testid="stFileChips"] > button { display: none }
.st-key-give [data-testid="stFileChips"] * { margin-top: 0; margin-bottom: 0 }
.st-key-give [data-testid="stFileChip"] { padding: 0 .5rem !important; height: 2.5rem }
.st-key-give > :first-child { min-width: 5.8rem }
.st-key-give > * { width: auto !important; flex: 0 0 auto !important }
.st-key-give [data-testid="stFileUploaderDropzone"] { padding: 0; min-height: 2.5rem;
  height: 2.5rem; flex-direction: row; align-items: center; background: transparent; border: none }
.st-key-give [data-testid="stFileUploaderDropzoneInstructions"] { display: none }
/* The last searches: a picture beside the words, both in the button. */
[class*="st-key-search-"] { position: relative; flex-wrap: nowrap; gap: .5rem;
  align-items: center; min-height: 2.75rem }
[class*="st-key-search-"] > :has(img) { flex: 0 0 2.75rem !important; width: 2.75rem !important }
[class*="st-key-search-"] img { display: block; width: 2.75rem; height: 2.75rem;
  object-fit: contain; border-radius: .25rem; background: #fff }
[class*="st-key-recent-"], [class*="st-key-recent-"] * { position: static }
[class*="st-key-recent-"] button, [class*="st-key-recent-"] button > * { width: 100%;
  justify-content: flex-start; text-align: left }
[class*="st-key-recent-"] button::after { content: ""; position: absolute; inset: 0 }
.st-key-reference { gap: .5rem }
.st-key-tools { gap: .5rem }
/* The button that copies the link is there without a pointer too: for keys and fingers. */
.st-key-ask [data-testid="stCode"] > div { opacity: 1; visibility: visible; pointer-events: auto }
.st-key-ask [data-testid="stCode"] pre { padding-right: 2.75rem }
.st-key-narrow, .st-key-chosen { row-gap: .5rem; column-gap: .5rem }
.st-key-chosen button { min-height: 2rem; padding: .1rem .6rem; border-radius: 1rem }
.st-key-heading { flex-wrap: nowrap }
.st-key-note { min-height: 1.5rem }
.st-key-results { scroll-margin-top: 5rem; outline: none; gap: .75rem }
@media (min-width: 641px) {
  [data-testid="stColumn"]:has(.st-key-ask) { position: sticky; top: 4.5rem;
    align-self: flex-start; max-height: calc(100vh - 5rem); overflow-y: auto;
    scrollbar-width: thin; padding: 4px; margin: -4px }
}
@media (max-width: 640px) {
  .stMainBlockContainer { padding: 4rem 1rem 3rem }
  .stMainBlockContainer h1 { font-size: 1.25rem; padding: .25rem 0 1rem }
  .stMainBlockContainer > .stVerticalBlock { gap: .5rem }
  .stMainBlockContainer h2 { font-size: 1.1rem }
  .stHorizontalBlock:has(> .stColumn .st-key-ask) { gap: .5rem }
  .stColumn:has(.st-key-narrow) > .stVerticalBlock { gap: .5rem }
  .st-key-ask { gap: .5rem }
  .st-key-ask > :has(> .st-key-hint), .st-key-hint { display: none }
  .st-key-note { min-height: 3rem }
  .st-key-look-at { min-height: calc(88px + .5rem); align-content: flex-start }
  .st-key-pair { min-height: 8rem }
  /* The photo is at the right of the buttons, in room that they take anyway. */
  .st-key-ask:has(.st-key-search_photo_box):not(:has(.large)) {
    & .st-key-give { max-width: calc(100% - 7rem) }
    & .st-key-reference { position: relative; margin-top: calc(-44px - .5rem); min-height: 6.5rem;
      pointer-events: none }
    & .st-key-reference:has(.others) { padding-top: 7rem }
    & .st-key-reference > * { pointer-events: auto }
    & .st-key-search_photo_box { position: absolute; right: 0; top: 0; max-height: 6.5rem }
    & .st-key-tools { position: absolute; left: 0; top: calc(6.5rem - 44px);
      max-width: calc(100% - 7rem); flex-wrap: nowrap }
    & .st-key-tools button p { font-size: .8125rem }
    & .st-key-share button { min-width: 44px }
    & .st-key-share button p { position: absolute; width: 1px; height: 1px; overflow: hidden;
      clip-path: inset(50%) }
  }
  /* Rows that scroll fade at the side where they go on. */
  .st-key-give, .st-key-narrow, .st-key-chosen, .st-key-objects,
  .st-key-ask:has(.st-key-search_photo_box):not(:has(.large)) .st-key-tools {
    flex-wrap: nowrap !important; overflow-x: auto; scrollbar-width: thin }
  @supports (animation-timeline: scroll(self inline)) {
    .st-key-give, .st-key-narrow, .st-key-chosen, .st-key-objects,
    .st-key-ask:has(.st-key-search_photo_box):not(:has(.large)) .st-key-tools {
      scrollbar-width: none; animation: goes-on linear both;
      animation-timeline: scroll(self inline);
      mask-image: linear-gradient(to right, transparent, #000 var(--before),
        #000 calc(100% - var(--after)), transparent) }
  }
  .st-key-reference { flex-flow: row wrap; align-items: center }
  .st-key-reference > * { width: auto !important; flex: 0 1 auto }
  .st-key-narrow > *, .st-key-chosen > *, .st-key-objects > * { flex: 0 0 auto !important;
    width: auto !important }
}
@media (pointer: coarse), (max-width: 640px) {
  body button, .stSelectbox [role="group"] { min-height: 44px !important }
  .st-key-ask > :has(.st-key-give), .st-key-give, .st-key-narrow, .st-key-heading {
    min-height: 44px }
  .st-key-give [data-testid="stFileUploaderDropzone"] { height: 44px }
  [class*="st-key-pin-"] button { min-width: 44px !important }
  .stCheckbox label { align-items: center }
  [class*="st-key-actions-"] [data-testid="stSkeleton"] { height: 44px }
}
/* A finger on the field opens the list too, and not its arrow only. */
@media (pointer: coarse) {
  .stSelectbox [role="group"] { position: relative }
  .stSelectbox [role="group"] > button { position: static }
  .stSelectbox [role="group"] > button::after { content: ""; position: absolute; inset: 0 }
}
/* There it opens the camera at once, and no box: see page_input.js. */
@media (pointer: coarse) { .st-key-camera_box button > div > :nth-child(2) { display: none } }
@property --before { syntax: "<length>"; inherits: false; initial-value: 0px }
@property --after { syntax: "<length>"; inherits: false; initial-value: 0px }
@keyframes goes-on {
  from { --before: 0px; --after: 3rem }
  15% { --before: 3rem }
  85% { --after: 3rem }
  to { --before: 3rem; --after: 0px }
}
.faint { color: var(--faint) }

/* Cards: a grid that keeps two side by side on a phone. */
.st-key-cards { display: grid; gap: 1rem; align-items: stretch;
  grid-template-columns: repeat(auto-fill, minmax(min(12.5rem, 42%), 1fr)) }
.st-key-cards > * { width: auto !important; min-width: 0; height: 100%; display: flex }
[class*="st-key-card-"] { border: 1px solid var(--line); border-radius: var(--radius);
  overflow: hidden; height: 100%; gap: 0; position: relative;
  overflow-wrap: anywhere; font-size: .875rem; line-height: 1.4 }
[class*="st-key-card-"]:hover { border-color: var(--line-strong) }
@media (hover: hover) and (prefers-reduced-motion: no-preference) {
  .card .shown img { transition: transform .2s }
  [class*="st-key-card-"]:has([class*="st-key-details-"] button:hover) .shown img {
    transform: scale(1.35) }
}
[class*="st-key-card-"] > :has(.card) { flex: 1 1 auto }
[class*="st-key-card-"] > :has(.card), [class*="st-key-card-"] :has(> .card) { display: flex }
.card { flex: 1; display: flex; flex-direction: column; width: 100%; min-width: 0 }
.card .shown { overflow: hidden; background: #fff; border-bottom: 1px solid var(--line);
  aspect-ratio: 1; width: 100% }
.card .shown img { aspect-ratio: 1; width: 100%; object-fit: contain; display: block }
.card .shown.none { display: grid; place-items: center; background: transparent }
.card .words { padding: .6rem .75rem .5rem; display: flex; flex-direction: column; flex: 1;
  min-height: 9.5rem }
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
[class*="st-key-pin-"] { position: absolute !important; top: .35rem; right: .35rem; z-index: 2 }
[class*="st-key-pin-"] button { padding: 0 !important; min-width: 2.25rem; min-height: 2.25rem;
  border-radius: 50%; border: 1px solid var(--line); background: light-dark(#fffd, #1a1c24dd) }
[class*="st-key-pin-"] button span { gap: 0 }
/* That of a pinned product is filled, which the font of the icons cannot. */
[class*="st-key-pin-"] [data-testid="stBaseButton-primary"] { background: ACCENT; color: #fff;
  border-color: #fff }
[class*="st-key-pin-"] [data-testid="stBaseButton-primary"] [data-testid="stIconMaterial"] {
  font-size: 0; width: 1.25rem; height: 1.25rem; background: #fff;
  mask: center / contain no-repeat url("data:image/svg+xml,PIN") }
[class*="st-key-details-"] button::after { content: ""; position: absolute; aspect-ratio: 1;
  inset: 0 0 auto 0; cursor: pointer; z-index: 1 }
/* Emphasis in a button is for screen readers: what the eye sees beside it. */
[class*="st-key-actions-"] button em, .st-key-chosen button em { position: absolute;
  font-style: normal; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap }
/* A pin is an icon only: its label is beside it while it is pointed at or has the focus. */
[class*="st-key-pin-"] button:is(:hover, :focus-visible) em { right: 100%; width: max-content;
  max-width: 9rem; height: auto; clip-path: none; text-overflow: ellipsis; margin-right: .25rem;
  padding: 0 .5rem; border-radius: .25rem; color: #fff; background: #1a1c24 }
@media (hover: none) { [class*="st-key-pin-"] button:hover:not(:focus-visible) em {
  clip-path: inset(50%) } }

/* The query picture and its region. */
.asked { margin: 0; position: relative; overflow: hidden; border-radius: .6rem; line-height: 0;
  border: 1px solid color-mix(in srgb, currentColor 18%, transparent); width: fit-content;
  max-width: 100% }
.asked img { display: block; max-width: 100%; max-height: 16rem }
@media (max-width: 640px) { .asked img { max-height: 6.5rem; max-width: 40vw } }
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
""".replace("ACCENT", ACCENT).replace("PIN", PIN)


def upload_label(text: str, language: str) -> str:
    """Shows a text in the place of the label of the upload button, which Streamlit has in English
    only. `page_input.js` gives it to screen readers."""
    label = f':root:lang({language}) .st-key-give [data-testid="stFileUploaderDropzone"] button p'
    width = 3.05 + 0.46 * len(text)  # about; before the button is drawn
    return (
        f":root:lang({language}) .st-key-give > :first-child {{ min-width: {width:.1f}rem }}\n"
        f"{label} {{ font-size: 0 }}\n"
        f'{label}::after {{ content: "{text}"; font-size: var(--text) }}\n'
    )  # fmt: skip
