"""Which of several models nobody beats: none is as good in everything and better in something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def front(points: Sequence[Mapping[str, float | None]], higher: Sequence[str] = ()) -> list[bool]:
    """Whether each of `points`, {number: value}, is on the Pareto front; more is better of the numbers in `higher`.

    Numbers that one of them lacks are left out of account: what is not known beats nothing.
    """
    names = [name for name in (points[0] if points else ()) if all(point.get(name) is not None for point in points)]
    scores = [[float(point[name] or 0) * (-1 if name in higher else 1) for name in names] for point in points]

    def beaten(mine: list[float]) -> bool:
        return any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in scores)

    return [not beaten(mine) for mine in scores]
