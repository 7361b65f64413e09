"""How llama.cpp wants some weights, where transformers keeps them in another way: changes that families name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def rotation_order(rows: int, heads: int) -> NDArray[np.intp]:
    """llama.cpp's order of the rows of a query or key layer.

    transformers rotates channel i of a head with channel i + half, llama.cpp with its neighbour.
    """
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def parted_order(rows: int, heads: int) -> NDArray[np.intp]:
    """The order of a fused layer with all queries first, then all keys, then all values.

    GPT-NeoX keeps query, key and value of one head together; `heads` counts all three.
    """
    return np.arange(rows).reshape(heads // 3, 3, rows // heads).swapaxes(0, 1).reshape(-1)


ORDERS: dict[str, Callable[[int, int], NDArray[np.intp]]] = {"rotate": rotation_order, "part": parted_order}
"""New orders of a layer's rows by (rows, heads): they move blocks of codes and leave them as they are."""

VALUES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "transpose": lambda weight: weight.T,
    "add_one": lambda weight: weight + np.float32(1),
    "squeeze": lambda weight: weight.reshape(len(weight), -1),
    "decay": lambda weight: -np.exp(weight),
}
"""Changes of the numbers or of the shape."""

REVERSIBLE = frozenset({*ORDERS, "transpose"})
"""Changes that lose nothing: the others round, or say a shape that is not theirs alone."""
