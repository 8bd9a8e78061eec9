"""UnionFind: disjoint sets of names, with sets that must never be joined."""

from __future__ import annotations

from collections.abc import Iterable


class UnionFind:
    """Disjoint sets with constraints. A name not added before is a set of its own.

    Sets are kept apart in pairs, or by labels: two sets that both have labels, and none in common.
    """

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._apart: dict[str, set[str]] = {}
        self._labels: dict[str, frozenset[str]] = {}

    def copy(self) -> UnionFind:
        """An independent copy."""
        other = UnionFind()
        other._parent = dict(self._parent)
        other._apart = {name: set(names) for name, names in self._apart.items()}
        other._labels = dict(self._labels)
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
        if child in self._apart.get(root, ()) or self._labels_differ(root, child):
            return False
        self._parent[child] = root
        if labels := self._labels.pop(child, frozenset()):
            self._labels[root] = self._labels.get(root, frozenset()) | labels
        for other in self._apart.pop(child, set()):
            self._apart[other].discard(child)
            self._separate(root, other)
        return True

    def keep_apart(self, a: str, b: str) -> None:
        """Forbid joining the sets of two names; no effect if they are one set already."""
        first, second = self.find(a), self.find(b)
        if first != second:
            self._separate(first, second)

    def label(self, name: str, label: str) -> None:
        """Add a label to the set of a name."""
        root = self.find(name)
        self._labels[root] = self._labels.get(root, frozenset()) | {label}

    def apart_from(self, name: str) -> frozenset[str]:
        """Representatives of the sets that the set of a name is kept apart from as a pair."""
        return frozenset(self._apart.get(self.find(name), ()))

    def labels_of(self, name: str) -> frozenset[str]:
        """The labels of the set of a name."""
        return self._labels.get(self.find(name), frozenset())

    def are_apart(self, a: str, b: str) -> bool:
        """Whether the sets of two names are kept apart as a pair."""
        return self.find(b) in self._apart.get(self.find(a), ())

    def labels_differ(self, a: str, b: str) -> bool:
        """Whether the sets of two names are kept apart by their labels."""
        return self._labels_differ(self.find(a), self.find(b))

    def is_constrained(self, name: str) -> bool:
        """Whether the set of a name is kept apart from any other, or has a label."""
        root = self.find(name)
        return bool(self._apart.get(root)) or root in self._labels

    def join_all(self, names: Iterable[str]) -> None:
        """Join all names, as far as they are not kept apart.

        A name that is kept apart from the sets formed so far begins another set; each further name
        joins the first set that it is not kept apart from.
        """
        sets: list[str] = []  # a name of each
        places: dict[str, set[int]] = {}  # of the sets, by label; '': sets without one
        for name in names:
            own = self.labels_of(name) or frozenset({""})
            tried: Iterable[int] = range(len(sets))
            if "" not in own:  # many names may each have a label of their own
                tried = sorted({n for label in (*own, "") for n in places.get(label, ())})
            place = next((n for n in tried if self.join(sets[n], name)), len(sets))
            if place == len(sets):
                sets.append(name)
            for label in own:
                places.setdefault(label, set()).add(place)

    def _labels_differ(self, root: str, other: str) -> bool:
        if root == other or root not in self._labels or other not in self._labels:
            return False
        return not self._labels[root] & self._labels[other]

    def _separate(self, a: str, b: str) -> None:
        self._apart.setdefault(a, set()).add(b)
        self._apart.setdefault(b, set()).add(a)
