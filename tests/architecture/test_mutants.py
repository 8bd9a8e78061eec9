"""Every mutant applies to the present code; `make mutants` runs the checks on them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from freshness.mutant_list import MUTANTS, Mutant
from freshness.mutants import CHECKS, mutated
from support.paths import REPO


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_replaces_texts_that_occur_exactly_once(mutant: Mutant) -> None:
    files = mutated(mutant, lambda path: (REPO / path).read_text("utf-8"))
    assert files
    for text in files.values():
        ast.parse(text)


def test_the_checks_of_all_mutants_exist() -> None:
    for mutant in MUTANTS:
        assert set(mutant.checks) <= CHECKS.keys()
    for arguments in CHECKS.values():
        for path in arguments:
            assert not path.startswith("tests/") or (REPO / Path(path)).is_file(), path


def test_a_text_that_does_not_occur_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        mutated(Mutant("absent", (("a.py", "old", "new"),)), lambda path: "text")
