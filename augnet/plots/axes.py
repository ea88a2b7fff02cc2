"""Maps and rows of Jacobians drawn into matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from augnet.errors import optional
from augnet.plots.colors import color_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 2.6


def plot_map(
    values: np.ndarray,
    image: np.ndarray | None = None,
    *,
    signed: bool = False,
    limit: float | None = None,
    opacity: float = 0.75,
    colorbar: bool = True,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a map, such as `audit.maps["mean_abs"][3]`, or a row of a Jacobian, over a picture or alone.

    Args:
        values: (height, width) or (height, width, channel). Channels become their l2 norm, or, where signed,
            their sum.
        image: the picture below, (height, width) or (height, width, 1, 3 or 4), uint8 or in [0, 1]. It may
            have more pixels than the map, whose blocks of pixels are then enlarged.
        signed: blue for what is below zero and red for what is above, instead of dark to bright.
        limit: value of the brightest colour; default: the largest magnitude.
        opacity: in [0, 1], of the map over a picture; alone it is opaque.
        colorbar: whether a colour bar stands beside it.
        title: of the axes.
        ax: the axes to draw into; default: of a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: matplotlib is not installed.
        ValueError: arrays of another shape.
    """
    reduced = _reduced(np.asarray(values), signed)
    if ax is None:
        ax = _new_axes(1)[0]
    below = None if image is None else _picture(np.asarray(image))
    height, width = reduced.shape if below is None else below.shape[:2]
    if below is not None:
        ax.imshow(below, cmap="gray", vmin=0, vmax=_white(below))
    largest = float(np.nanmax(np.abs(reduced), initial=0.0)) if limit is None else limit
    alpha = None if below is None else np.full(reduced.shape, opacity)
    if alpha is not None and signed and largest > 0:  # what is near zero lets the picture through
        alpha *= np.sqrt(np.minimum(1, np.abs(np.nan_to_num(reduced)) / largest))
    drawn = ax.imshow(
        reduced,
        cmap=_color_map("signed" if signed else "magnitude"),
        vmin=-largest if signed else 0.0,
        vmax=largest or 1.0,
        alpha=alpha,
        interpolation="nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    if colorbar:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
    ax.set_title(title, fontsize="small")
    ax.set_axis_off()
    return ax


def plot_jacobian(
    image: np.ndarray,
    jacobian: np.ndarray | Sequence[np.ndarray],
    *,
    signed: bool = False,
    limit: float | None = None,
    titles: Sequence[str] = (),
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw an image, and beside it every row of its Jacobian: what each output depends on there.

    Args:
        image: the picture, as of `plot_map`.
        jacobian: (output, height, width, channel); a list of rows, which may differ in size; or one row
            (height, width, channel).
        signed: as of `plot_map`.
        limit: value of the brightest colour; default: the largest magnitude of each row by itself.
        titles: of the image, and then of the rows.
        axes: as many as rows, and one more; default: of a new figure, side by side.

    Returns:
        The axes, (1 + output,).

    Raises:
        ConfigError: matplotlib is not installed.
        ValueError: arrays of another shape, or another number of axes.
    """
    rows = [jacobian] if isinstance(jacobian, np.ndarray) and jacobian.ndim == 3 else [*jacobian]
    drawn = _new_axes(1 + len(rows)) if axes is None else np.asarray(axes, object).ravel()
    if len(drawn) != 1 + len(rows):
        raise ValueError(f"axes: {len(drawn)} for an image and {len(rows)} rows; give {1 + len(rows)}")
    texts = [*titles, *[""] * (len(drawn) - len(titles))]
    picture = _picture(np.asarray(image))
    drawn[0].imshow(picture, cmap="gray", vmin=0, vmax=_white(picture))
    drawn[0].set_title(texts[0], fontsize="small")
    drawn[0].set_axis_off()
    for ax, row, text in zip(drawn[1:], rows, texts[1:], strict=True):
        plot_map(row, signed=signed, limit=limit, title=text, ax=ax)
    return drawn


def _new_axes(count: int) -> np.ndarray:
    pyplot = optional("matplotlib.pyplot", "figures")
    size = (PANEL_INCHES * (count + 0.2), PANEL_INCHES)
    return pyplot.subplots(1, count, figsize=size, layout="constrained", squeeze=False)[1][0]


def _color_map(kind: str) -> Any:
    colors = optional("matplotlib.colors", "figures")
    return colors.ListedColormap(color_table(kind) / 255, f"augnet {kind}")


def _reduced(values: np.ndarray, signed: bool) -> np.ndarray:
    """(height, width) float64."""
    if values.ndim == 2:
        return values.astype(np.float64) if signed else np.abs(values, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"map: {values.shape} is neither (height, width) nor (height, width, channel)")
    if signed:
        return values.sum(axis=-1, dtype=np.float64)
    return np.sqrt(np.square(values, dtype=np.float64).sum(axis=-1))


def _picture(image: np.ndarray) -> np.ndarray:
    """The picture as matplotlib takes it: without the axis of a single channel."""
    if image.ndim == 3 and image.shape[-1] == 1:
        return image[..., 0]
    if image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (3, 4)):
        return image
    raise ValueError(f"image: {image.shape} is neither (height, width) nor with 1, 3 or 4 channels")


def _white(picture: np.ndarray) -> float:
    return 255 if picture.dtype == np.uint8 else 1
