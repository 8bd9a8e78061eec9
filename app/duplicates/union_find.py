"""UnionFind: disjoint sets of names, with pairs of sets that must never be joined."""

from __future__ import annotations

from collections.abc import Iterable


class UnionFind:
    """Disjoint sets with constraints. A name not added before is a set of its own."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._apart: dict[str, set[str]] = {}

    def copy(self) -> UnionFind:
        """An independent copy."""
        other = UnionFind()
        other._parent = dict(self._parent)
        other._apart = {name: set(names) for name, names in self._apart.items()}
        return other

    def find(self, name: str) -> str:
        """The representative of the set that holds this name."""
        root = name
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, a: str, b: str) -> bool:
        """Join the sets of two names unless kept apart; returns whether they are one set."""
        root, child = self.find(a), self.find(b)
        if root == child:
            return True
        if child in self._apart.get(root, ()):
            return False
        self._parent[child] = root
        for other in self._apart.pop(child, set()):
            self._apart[other].discard(child)
            self._separate(root, other)
        return True

    def keep_apart(self, a: str, b: str) -> None:
        """Forbid joining the sets of two names; no effect if they are one set already."""
        first, second = self.find(a), self.find(b)
        if first != second:
            self._separate(first, second)

    def are_apart(self, a: str, b: str) -> bool:
        """Whether the sets of two names are kept apart."""
        return self.find(b) in self._apart.get(self.find(a), ())

    def join_all(self, names: Iterable[str]) -> None:
        """Join all names, as far as they are not kept apart.

        A name that is kept apart from the sets formed so far begins another set; each further name
        joins the first set that it is not kept apart from.
        """
        sets: list[str] = []  # a name of each
        for name in names:
            if not any(self.join(first, name) for first in sets):
                sets.append(name)

    def _separate(self, a: str, b: str) -> None:
        self._apart.setdefault(a, set()).add(b)
        self._apart.setdefault(b, set()).add(a)
