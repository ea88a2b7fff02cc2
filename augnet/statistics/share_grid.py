"""On a coarse grid over the picture, the share of each output's sensitivity that lies in each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CELLS = 16
"""Cells along a side of the grid; a side of fewer pixels has one cell for each."""

SHOWN_IMAGES = 6
"""Images remembered for each window of each output."""

FIGURES = ("cells", "squares", "top_share")
"""The arrays of numbers of a ShareGrid."""


@dataclass
class ShareGrid:
    """Shares of a, the predicted row's magnitude, over the images predicted as one output.

    An image enters with its shares a / sum a, so that all weigh the same, whatever their gradients' size. A
    window is a quarter of the grid high and wide; there is one at every position on the grid.

    Attributes:
        count: images.
        cells: (row, column) float64, sum over images of a cell's share.
        squares: (row, column) float64, sum over images of the squared share of the window that starts there.
        top_share: (row, column, SHOWN_IMAGES) float32, the largest shares of that window, descending; 0 where
            there is none. Equal shares are ordered by image_id.
        top_image: (row, column, SHOWN_IMAGES) str, their image_ids; "" where there is none.
    """

    count: int
    cells: np.ndarray
    squares: np.ndarray
    top_share: np.ndarray
    top_image: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> ShareGrid:
        """The grid of no images, height x width cells."""
        windows = height - window_cells(height) + 1, width - window_cells(width) + 1
        return cls(
            count=0,
            cells=np.zeros((height, width)),
            squares=np.zeros(windows),
            top_share=np.zeros((*windows, SHOWN_IMAGES), np.float32),
            top_image=np.full((*windows, SHOWN_IMAGES), "", object),
        )

    def add(self, cells: np.ndarray, images: np.ndarray) -> None:
        """Takes in n images: their shares by cell (n, row, column), and their ids (n,)."""
        shares = window_sums(cells)
        self.count += len(cells)
        self.cells += cells.sum(axis=0)
        self.squares += (shares**2).sum(axis=0)
        shares = np.moveaxis(shares, 0, -1).astype(np.float32)
        self._show(shares, np.broadcast_to(images, shares.shape))

    def merge(self, other: ShareGrid) -> None:
        """Takes in the images of another grid."""
        self.count += other.count
        self.cells += other.cells
        self.squares += other.squares
        self._show(other.top_share, other.top_image)

    def _show(self, shares: np.ndarray, images: np.ndarray) -> None:
        """Keeps the largest of what is there and of (row, column, m) more shares and ids."""
        images = np.concatenate([self.top_image, np.where(shares > 0, images, "")], axis=-1)
        shares = np.concatenate([self.top_share, shares], axis=-1)
        order = np.argsort(-shares, axis=-1, kind="stable")[..., : SHOWN_IMAGES + 1]
        leading = np.take_along_axis(shares, order, axis=-1)
        tied = ((leading[..., 1:] == leading[..., :-1]) & (leading[..., 1:] > 0)).any(axis=-1)
        for window in zip(*np.nonzero(tied), strict=True):  # rare: copies of an image
            order[window] = np.lexsort((images[window].astype(str), -shares[window]))[: SHOWN_IMAGES + 1]
        order = order[..., :SHOWN_IMAGES]
        self.top_share = np.take_along_axis(shares, order, axis=-1)
        self.top_image = np.take_along_axis(images, order, axis=-1)


@dataclass(frozen=True)
class ShareGrids:
    """The grid of every output that images were predicted as, of maps of height x width pixels."""

    height: int
    width: int
    by_output: dict[int, ShareGrid] = field(default_factory=dict)

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The pixels at which the grid's rows and columns start, and the end of each side."""
        y_edges, x_edges = (
            np.arange(min(side, CELLS) + 1) * side // min(side, CELLS) for side in (self.height, self.width)
        )
        return y_edges, x_edges

    def add(self, magnitude: np.ndarray, outputs: np.ndarray, image_ids: list[str]) -> None:
        """Takes in n images.

        Args:
            magnitude: (n, height, width), finite and not all zero for each image.
            outputs: (n,) the output each is predicted as.
        """
        if not len(magnitude):
            return
        y_edges, x_edges = self.edges
        cells = np.add.reduceat(magnitude, x_edges[:-1], axis=2, dtype=np.float64)
        cells = np.add.reduceat(cells, y_edges[:-1], axis=1)
        cells /= cells.sum(axis=(1, 2), keepdims=True)
        ids = np.array(image_ids, object)
        for output in np.unique(outputs).tolist():
            chosen = outputs == output
            self._grid(output).add(cells[chosen], ids[chosen])

    def merge(self, other: ShareGrids) -> None:
        """Takes in the images of another ShareGrids of the same size."""
        for output, grid in other.by_output.items():
            self._grid(output).merge(grid)

    def _grid(self, output: int) -> ShareGrid:
        if output not in self.by_output:
            self.by_output[output] = ShareGrid.empty(*(len(edges) - 1 for edges in self.edges))
        return self.by_output[output]

    def arrays(self) -> dict[str, np.ndarray]:
        """Array name -> array, for an NPZ file."""
        if not self.by_output:
            return {}
        outputs = sorted(self.by_output)
        grids = [self.by_output[output] for output in outputs]
        shown = np.stack([grid.top_image for grid in grids])
        images, number = np.unique(shown.astype(str), return_inverse=True)
        return {
            "output": np.array(outputs),
            "count": np.array([grid.count for grid in grids]),
            **{name: np.stack([getattr(grid, name) for grid in grids]) for name in FIGURES},
            "top_image": number.reshape(shown.shape).astype(np.int32),
            "images": images,
        }

    @classmethod
    def from_arrays(cls, height: int, width: int, arrays: Mapping[str, np.ndarray]) -> ShareGrids:
        """The ShareGrids that `arrays` came from."""
        grids = cls(height, width)
        for k, output in enumerate(arrays["output"].tolist() if arrays else ()):
            figures = {name: arrays[name][k] for name in FIGURES}
            shown = arrays["images"].astype(object)[arrays["top_image"][k]]
            grids.by_output[output] = ShareGrid(int(arrays["count"][k]), top_image=shown, **figures)
        return grids


def window_cells(side_cells: int) -> int:
    """Side of a window, in cells: a quarter of the grid's, rounded, at least 1."""
    return max(1, round(side_cells / 4))


def window_sums(cells: np.ndarray) -> np.ndarray:
    """(..., row, column) sums over every window of a (..., row, column) grid."""
    shape = (window_cells(cells.shape[-2]), window_cells(cells.shape[-1]))
    return sliding_window_view(cells, shape, axis=(-2, -1)).sum(axis=(-2, -1))
