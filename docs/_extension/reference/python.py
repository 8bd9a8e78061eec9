"""What `import lookalike` offers, from its docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import lookalike


def interface() -> str:
    """A section for each name: functions and classes first, then errors."""
    named = [(name, getattr(lookalike, name)) for name in lookalike.__all__]
    parts = ["## Functions and classes"]
    parts += [_described(name, each) for name, each in named if not _is_error(each)]
    parts.append("## Errors")
    parts += [_described(name, each) for name, each in named if _is_error(each)]
    return "\n\n".join(parts)


def _is_error(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, Exception)


def _described(name: str, each: object) -> str:
    lines = [f"### {name}", _text(each)]
    if not _is_error(each):
        lines.insert(1, f"```text\nlookalike.{name}{_signature(each)}\n```")
    if inspect.isclass(each) and not _is_error(each):
        lines += _methods(name, each)
    return "\n\n".join(lines)


def _methods(name: str, each: type) -> Iterator[str]:
    for method, function in inspect.getmembers(each, inspect.isfunction):
        if not method.startswith("_") and function.__doc__:
            yield f"#### {name}.{method}"
            yield f"```text\n{method}{_signature(function)}\n```"
            yield _text(function)


def _signature(each: object) -> str:
    """The parameters, one a line where there are several; annotations as they are written."""
    try:
        signature = inspect.signature(each)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    shown = [str(p) for p in signature.parameters.values() if p.name != "self"]
    returned = signature.return_annotation
    arrow = "" if returned is inspect.Signature.empty else f" -> {returned}"
    if len(shown) < 3:
        return f"({', '.join(shown)}){arrow}"
    return "(\n    " + ",\n    ".join(shown) + f",\n){arrow}"


def _text(each: object) -> str:
    return inspect.getdoc(each) or ""
