"""The health checks as an HTML table: name, state, value and advice."""

from __future__ import annotations

from html import escape

from app.operations.health import HealthCheck, HealthStatus
from app.ui.engine_texts import engine_text
from app.ui.formatting import format_duration, format_number
from app.ui.translation import N_, _

NAMES = {
    "database": N_("Database"),
    "migration": N_("Migration"),
    "model": N_("Model"),
    "encoder": N_("Encoder"),
    "products": N_("Products"),
    "pictures": N_("Pictures"),
    "embeddings": N_("Embeddings"),
    "build": N_("Index"),
    "build_age_seconds": N_("Age of the index"),
    "pgvector_index": N_("pgvector's index"),
    "delta_rows": N_("Changed since the index was built"),
    "close_match": N_("Close match"),
}
"""Names of checks as the page shows them; others are shown as they are."""

STYLE = """<style>
.checks { display: grid; grid-template-columns: max-content max-content 1fr; gap: 0 1rem;
  overflow-wrap: anywhere; line-height: 1.45 }
.checks > div { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid;
  padding: .4rem 0; border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent) }
.checks .is { font-weight: 600; white-space: nowrap }
.checks .ok .is { color: light-dark(#1a7f37, #4cc26a) }
.checks .bad .is { color: light-dark(#b3261e, #ff8a80) }
.checks .advice { font-weight: 600 }
@media (max-width: 640px) {
  .checks { grid-template-columns: max-content 1fr }
  .checks .what { grid-column: 1 / -1 } }
</style>"""


def checks_html(status: HealthStatus) -> str:
    """The table as HTML, with all text escaped."""
    rows = "".join(
        _row(check) for check in status.checks if check.value is not None or not check.ok
    )
    return f"{STYLE}<div class=checks role=table>{rows}</div>"


def _row(check: HealthCheck) -> str:
    name = _(NAMES.get(check.name, check.name.replace("_", " ").capitalize()))
    kind, state = ("ok", _("✓ OK")) if check.ok else ("bad", _("✗ Needs attention"))
    advice = f"<div class=advice>{escape(engine_text(check.advice))}</div>" if check.advice else ""
    return (
        f"<div class={kind} role=row><div role=rowheader>{escape(name)}</div>"
        f"<div class=is role=cell>{state}</div>"
        f"<div class=what role=cell>{escape(_value(check))}{advice}</div></div>"
    )


def _value(check: HealthCheck) -> str:
    if check.value is None:
        return ""
    if check.name == "build_age_seconds":
        return format_duration(check.value)
    if isinstance(check.value, int):
        return format_number(check.value)
    return engine_text(str(check.value))
