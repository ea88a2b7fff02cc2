"""`augnet.open_audit`: a finished audit to ask and to look at, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from augnet.audits.pictures import AuditedPictures
from augnet.engine.batch import VIEWS
from augnet.errors import AuditError
from augnet.plots.axes import plot_jacobian
from augnet.report.sentences import output_names
from augnet.sources import ImageRef
from augnet.statistics.gallery import view_of
from augnet.storage.reader import Audit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME_LENGTH = 28
"""Of an image's name, letters that stand over it."""


def open_audit(path: str) -> OpenedAudit:
    """The finished audit in folder `path` (a local path or an fsspec URI).

    Raises:
        AuditError: when the folder holds no finished audit.
    """
    return OpenedAudit.open(path)


class OpenedAudit(Audit):
    """A finished audit: its tables and arrays, and its images with what the model looks at in them."""

    def image(self, image_id: str) -> np.ndarray:
        """The picture as the model was given it, uint8 (height, width, 1 or 3).

        It is read again from where it was. Where it is not any more, or was an array in memory, it is the
        small picture of the report, at most 128 pixels a side.

        Raises:
            KeyError: no such image was audited.
            AuditError: it cannot be read again, and the report does not hold it.
        """
        row = self.row(image_id)
        picture = self._pictures.of(ImageRef(image_id, row["uri"], row["label"]))
        if picture is not None:
            return picture
        if image_id not in self.held:
            raise AuditError(
                f"{image_id!r} cannot be read again, and is not among the {len(self.held)} images that the "
                "report holds (report.images)"
            )
        return self.gallery["thumbnail"][self.held[image_id]]

    def show(self, image_id: str, *, signed: bool = False, axes: Sequence[Axes] | None = None) -> np.ndarray:
        """An image, and beside it what its predicted output and the nearest rival depend on.

        The rows are the stored ones, or those of the report, at most 64 pixels a side; one that is in neither
        is left out.

        Args:
            image_id: of an audited image.
            signed: as of `augnet.plot_map`.
            axes: of the image and of its rows; default: of a new figure, side by side.

        Returns:
            The axes; `axes[0].figure` is the figure.

        Raises:
            KeyError, AuditError: as of `image`.
            ConfigError: matplotlib is not installed.
            ValueError: another number of axes.
        """
        row, names = self.row(image_id), output_names(self)
        titles, maps = [_about(row)], []
        for role, output in (("predicted", self._own(row)), ("rival", row["rival"])):
            if output is not None and (found := self._seen(image_id, role, output, signed)) is not None:
                titles.append(f"{role}: {names[output]}")
                maps.append(found)
        return plot_jacobian(self.image(image_id), maps, signed=signed, titles=titles, axes=axes)

    def _own(self, row: dict[str, Any]) -> int | None:
        """The predicted output; of a model with a single one, that."""
        return 0 if self.has_one_output else row["predicted"]

    def _seen(self, image_id: str, role: str, output: int, signed: bool) -> np.ndarray | None:
        """A row (height, width, channel), stored or held for the report; None where it is neither."""
        try:
            return self.jacobian(image_id, output)
        except KeyError:
            held = self.held.get(image_id)
        if held is None:
            return None
        view = VIEWS.index(role if signed else f"{role}_magnitude")
        seen = view_of(self.gallery, np.array([held]), view)[0, ..., None]
        return None if np.isnan(seen).any() else seen

    @cached_property
    def _pictures(self) -> AuditedPictures:
        return AuditedPictures(self)


def _about(row: dict[str, Any]) -> str:
    """What stands over the image: the end of its name, label and margin."""
    name = row["image_id"]
    facts = [] if row["label"] is None else [f"label {row['label']}"]
    if row["margin_l2"] is not None:
        facts.append(f"margin {row['margin_l2']:.3g}")
    shown = name if len(name) <= NAME_LENGTH else f"…{name[-NAME_LENGTH:]}"
    return f"{shown}\n{', '.join(facts)}".strip()
