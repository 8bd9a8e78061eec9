"""Settings, from `app.config`."""

from __future__ import annotations

from typing import get_args

from pydantic.fields import FieldInfo

from app.config import Settings
from reference.markdown import code, table


def settings() -> str:
    """A table of all settings."""
    rows = [
        (code(f"LOOKALIKE_{name.upper()}"), _type(field), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return table(("variable", "type", "default", "meaning"), rows)


def _type(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind]
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
    found = [names.get(kind.__name__, kind.__name__.lower()) for kind in kinds]
    bounds = [
        f"{word} {getattr(limit, attribute)}"
        for limit in field.metadata
        for attribute, word in (("gt", "above"), ("ge", "at least"), ("le", "at most"))
        if hasattr(limit, attribute)
    ]
    return ", ".join([*(name for name in found if name != "nonetype"), *bounds])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "by system"
    return "" if field.default is None else code(field.default)
