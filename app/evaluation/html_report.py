"""The picture report of an evaluation: the worst queries with what they found, one HTML file.

It needs nothing beside itself: pictures are inside, and every text of the catalogue is escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.evaluation.metrics import Difference, Evaluation, Outcome
from app.types import Match, Product

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; font-variant-numeric: tabular-nums }
section { display: flex; gap: 1rem; flex-wrap: wrap; padding: 1rem 0;
  border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
figure { margin: 0; width: 9.5rem; overflow-wrap: anywhere }
figure img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff }
figure.expected img { outline: 3px solid #2f8f4e }
h2 { font-size: 1.1rem; margin: 1rem 0 0; width: 100% }
small { opacity: .75 }
article { flex: 1; min-width: 20rem }
article div { display: flex; gap: 1rem; overflow-x: auto }
article figure { flex: none; width: 7.5rem }
h3 { font-size: 1rem; margin: 0 0 .4rem }
div + h3 { margin-top: 1rem }
"""

DEPTHS = ("recall@1", "recall@5", "recall@10")


@dataclass(frozen=True, slots=True)
class QueryCase:
    """A query with its photo, the product it should find, and what it found.

    `photo` and `expected_picture` are JPEG files, None where there is none; `similarity` is that
    of the expected product, -1 to 1.
    """

    outcome: Outcome
    photo: bytes | None
    expected: Product
    expected_picture: bytes | None
    similarity: float | None
    found: tuple[Match, ...]


def report(
    title: str, found: Evaluation, cases: Sequence[QueryCase], against: Difference | None = None
) -> str:
    """The report as an HTML document."""
    parts = [_head(title), _table(("", "value", "95 % interval"), _shares(found))]
    if against is not None:
        said = f"{against.better} better, {against.worse} worse, {against.same} the same"
        parts.append(f"<h2>Beside the other run: {said}</h2>")
        parts.append(_table(("", "difference", "95 % interval"), _shares(against)))
    parts.append("<h2>By category</h2>")
    rows = [
        (c.category or "none", c.queries, f"{c.recall_at_1:.3f}", f"{c.recall_at_10:.3f}",
         f"{c.mrr:.3f}")
        for c in found.categories
    ]  # fmt: skip
    parts.append(_table(("category", "queries", "recall@1", "recall@10", "mrr"), rows))
    parts.append(f"<h2>The {len(cases)} worst queries</h2>" if cases else "<p>All came first.</p>")
    return "".join((*parts, *map(_case, cases), "</html>"))


def beside(
    names: tuple[str, str],
    found: tuple[Evaluation, Evaluation],
    pairs: Sequence[tuple[QueryCase, QueryCase]],
    difference: Difference,
) -> str:
    """Two models on the same queries as an HTML document: under each photo what either found.

    `difference` is the first beside the second, and `pairs` are the cases of one query each.
    """
    shares = [[f"{value} ({between})" for _, value, between in _shares(each)]
              for each in (*found, difference)]  # fmt: skip
    said = f"{difference.better} better, {difference.worse} worse, {difference.same} the same"
    parts = [
        _head(f"{names[0]} beside {names[1]}"),
        _table(("", *names, "difference"), list(zip(DEPTHS, *shares, strict=True))),
        f"<p>{escape(names[0])}: {said}.</p>",
        f"<h2>The {len(pairs)} queries they answer most differently</h2>"
        if pairs
        else "<p>Both answer every query alike.</p>",
    ]
    return "".join((*parts, *(_pair(names, pair) for pair in pairs), "</html>"))


def _pair(names: tuple[str, str], pair: tuple[QueryCase, QueryCase]) -> str:
    outcome, expected = pair[0].outcome, pair[0].expected
    answers = [
        f"<h3>{escape(f'{name}: {_came(case)}')}</h3>"
        f"<div>{_expected(case)}{''.join(_found(case))}</div>"
        for name, case in zip(names, pair, strict=True)
    ]
    heading = escape(f"{outcome.query}: {expected.sku}")
    photo = _figure(pair[0].photo, "query", "")
    return f"<section><h2>{heading}</h2>{photo}<article>{''.join(answers)}</article></section>"


def _head(title: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
    )


def _shares(found: Evaluation | Difference) -> list[tuple[object, ...]]:
    return [
        (f"recall@{depth}", f"{getattr(found, name):.3f}",
         f"{getattr(found, f'{name}_low'):.3f} to {getattr(found, f'{name}_high'):.3f}")
        for depth in (1, 5, 10)
        for name in (f"recall_at_{depth}",)
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(x))}" for x in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _case(case: QueryCase) -> str:
    heading = f"{case.outcome.query}: {case.expected.sku} {_came(case)}."
    figures = [_figure(case.photo, "query", ""), _expected(case), *_found(case)]
    return f"<section><h2>{escape(heading)}</h2>{''.join(figures)}</section>"


def _came(case: QueryCase) -> str:
    rank = case.outcome.rank
    return f"came {rank}" if rank else "did not come among the first ten"


def _expected(case: QueryCase) -> str:
    name = f"expected: {case.expected.title or case.expected.sku}"
    said = "" if case.similarity is None else f"similarity {case.similarity:.3f}"
    return _figure(case.expected_picture, name, said, "expected")


def _found(case: QueryCase) -> list[str]:
    figures = []
    for match in case.found:
        right = "expected" if match.product.sku == case.expected.sku else ""
        said = "" if match.similarity is None else f"similarity {match.similarity:.3f}"
        name = f"{match.rank}. {match.product.title or match.product.sku}"
        figures.append(_figure(match.thumbnail, name, said, right))
    return figures


def _figure(picture: bytes | None, name: str, said: str, kind: str = "") -> str:
    shown = ""
    if picture is not None:
        data = b64encode(picture).decode("ascii")
        shown = f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
    return (
        f'<figure class="{kind}">{shown}<figcaption>{escape(name)}<br>'
        f"<small>{escape(said)}</small></figcaption></figure>"
    )
