"""HTML reports of an evaluation: the worst queries with their pictures, in one file.

Pictures are embedded, and all text of the catalogue is escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.evaluation.metrics import Evaluation, QueryOutcome, RunDifference
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
    """A query with its photo, the expected product, and the matches (`found`).

    `photo` and `expected_picture` are JPEG files, or None; `similarity` is that of the expected
    product, -1 to 1.
    """

    outcome: QueryOutcome
    photo: bytes | None
    expected: Product
    expected_picture: bytes | None
    similarity: float | None
    found: tuple[Match, ...]


def evaluation_report(
    title: str,
    evaluation: Evaluation,
    cases: Sequence[QueryCase],
    against: RunDifference | None = None,
) -> str:
    """The report of one run as an HTML document; `against` compares it with another run."""
    parts = [_head(title), _table(("", "value", "95 % interval"), _shares(evaluation))]
    if against is not None:
        parts.append(f"<h2>Compared with the other run: {_counts(against)}</h2>")
        parts.append(_table(("", "difference", "95 % interval"), _shares(against)))
    parts.append("<h2>By category</h2>")
    rows = [
        (c.category or "none", c.queries, f"{c.recall_at_1:.3f}", f"{c.recall_at_10:.3f}",
         f"{c.mrr:.3f}")
        for c in evaluation.categories
    ]  # fmt: skip
    parts.append(_table(("category", "queries", "recall@1", "recall@10", "mrr"), rows))
    parts.append(f"<h2>The {len(cases)} worst queries</h2>" if cases else "<p>All came first.</p>")
    return "".join((*parts, *map(_case, cases), "</html>"))


def comparison_report(
    names: tuple[str, str],
    evaluations: tuple[Evaluation, Evaluation],
    pairs: Sequence[tuple[QueryCase, QueryCase]],
    difference: RunDifference,
) -> str:
    """Two models on the same queries as an HTML document, with the matches of both.

    `difference` compares the first with the second; each of `pairs` has the cases of one query.
    """
    shares = [[f"{value} ({interval})" for _, value, interval in _shares(each)]
              for each in (*evaluations, difference)]  # fmt: skip
    parts = [
        _head(f"{names[0]} compared with {names[1]}"),
        _table(("", *names, "difference"), list(zip(DEPTHS, *shares, strict=True))),
        f"<p>{escape(names[0])}: {_counts(difference)}.</p>",
        f"<h2>The {len(pairs)} queries they answer most differently</h2>"
        if pairs
        else "<p>Both answer every query in the same way.</p>",
    ]
    return "".join((*parts, *(_pair(names, pair) for pair in pairs), "</html>"))


def _pair(names: tuple[str, str], pair: tuple[QueryCase, QueryCase]) -> str:
    outcome, expected = pair[0].outcome, pair[0].expected
    answers = [
        f"<h3>{escape(f'{name}: {_position(case)}')}</h3>"
        f"<div>{_expected(case)}{''.join(_matches(case))}</div>"
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


def _counts(difference: RunDifference) -> str:
    return f"{difference.better} better, {difference.worse} worse, {difference.same} the same"


def _shares(metrics: Evaluation | RunDifference) -> list[tuple[object, ...]]:
    return [
        (f"recall@{depth}", f"{getattr(metrics, name):.3f}",
         f"{getattr(metrics, f'{name}_low'):.3f} to {getattr(metrics, f'{name}_high'):.3f}")
        for depth in (1, 5, 10)
        for name in (f"recall_at_{depth}",)
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(x))}" for x in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _case(case: QueryCase) -> str:
    heading = f"{case.outcome.query}: {case.expected.sku} {_position(case)}."
    figures = [_figure(case.photo, "query", ""), _expected(case), *_matches(case)]
    return f"<section><h2>{escape(heading)}</h2>{''.join(figures)}</section>"


def _position(case: QueryCase) -> str:
    rank = case.outcome.rank
    return f"came {rank}" if rank else "did not come among the first ten"


def _expected(case: QueryCase) -> str:
    name = f"expected: {case.expected.title or case.expected.sku}"
    caption = "" if case.similarity is None else f"similarity {case.similarity:.3f}"
    return _figure(case.expected_picture, name, caption, "expected")


def _matches(case: QueryCase) -> list[str]:
    figures = []
    for match in case.found:
        kind = "expected" if match.product.sku == case.expected.sku else ""
        caption = "" if match.similarity is None else f"similarity {match.similarity:.3f}"
        name = f"{match.rank}. {match.product.title or match.product.sku}"
        figures.append(_figure(match.thumbnail, name, caption, kind))
    return figures


def _figure(picture: bytes | None, name: str, caption: str, kind: str = "") -> str:
    image = ""
    if picture is not None:
        data = b64encode(picture).decode("ascii")
        image = f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
    return (
        f'<figure class="{kind}">{image}<figcaption>{escape(name)}<br>'
        f"<small>{escape(caption)}</small></figcaption></figure>"
    )
