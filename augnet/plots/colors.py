"""The colours of maps, in the report and in figures: those of matplotlib's magma and RdBu_r.

Both can be told apart by colour-blind people. They are kept here as a few colours, with straight lines
between them, so that a report can be made without matplotlib.
"""

from __future__ import annotations

import numpy as np

COLORS = {
    "magnitude": "000004 140e37 3b0f70 641a80 8c2981 b6367a de4968 f66f5c fe9f6d fece91 fcfdbf",
    "signed": "053061 2166ac 4393c3 92c5de d1e5f0 f6f6f6 fddbc7 f4a582 d6604d b2182c 67001f",
}
"""What a map shows -> colours at equal distances: from zero to the largest magnitude, or about zero."""

LEVELS = 256


def color_table(kind: str) -> np.ndarray:
    """(LEVELS, 3) uint8, red, green and blue, from the lowest value to the highest.

    Args:
        kind: of COLORS.
    """
    colors = np.array([[*bytes.fromhex(color)] for color in COLORS[kind].split()], float)
    place = np.linspace(0, len(colors) - 1, LEVELS)
    channels = [np.interp(place, range(len(colors)), channel) for channel in colors.T]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)
