"""Groups of names that grow together, but never across a line that was drawn between two."""

from __future__ import annotations

from collections.abc import Iterable


class UnionFind:
    """A union of names in which some groups must stay apart. A name not seen is a group alone."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._apart: dict[str, set[str]] = {}

    def copy(self) -> UnionFind:
        """Groups that grow on their own from here."""
        other = UnionFind()
        other._parent = dict(self._parent)
        other._apart = {name: set(names) for name, names in self._apart.items()}
        return other

    def of(self, name: str) -> str:
        """The name that stands for the group of this one."""
        root = name
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, a: str, b: str) -> bool:
        """Make one group of two, unless they must stay apart; returns whether they are one now."""
        kept, gone = self.of(a), self.of(b)
        if kept == gone:
            return True
        if gone in self._apart.get(kept, ()):
            return False
        self._parent[gone] = kept
        for other in self._apart.pop(gone, set()):
            self._apart[other].discard(gone)
            self._line(kept, other)
        return True

    def part(self, a: str, b: str) -> None:
        """Keep two groups apart from now on; does nothing if they are one already."""
        first, second = self.of(a), self.of(b)
        if first != second:
            self._line(first, second)

    def apart(self, a: str, b: str) -> bool:
        """Whether a line was drawn between the groups of two names."""
        return self.of(b) in self._apart.get(self.of(a), ())

    def join_all(self, names: Iterable[str]) -> None:
        """Join names that belong together: each goes to the first group that may have it."""
        groups: list[str] = []
        for name in names:
            if not any(self.join(group, name) for group in groups):
                groups.append(name)

    def _line(self, a: str, b: str) -> None:
        self._apart.setdefault(a, set()).add(b)
        self._apart.setdefault(b, set()).add(a)
