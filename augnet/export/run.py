"""`augnet export`: a finished audit written for another program, and what to tell of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from augnet.errors import AuditError, ConfigError
from augnet.export.fiftyone import write_fiftyone
from augnet.export.images import ExportedImages, Part, Progress
from augnet.export.parquet import write_atlas, write_parquet
from augnet.export.projection import require_viewer_extra
from augnet.redact import without_secrets
from augnet.storage import names
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit

ENDINGS = {"parquet": ".parquet", "embedding-atlas": "-atlas.parquet", "fiftyone": "-fiftyone"}
"""Whom an audit is exported to -> what its name ends with, where no other name is given."""

COMMANDS = {
    "embedding-atlas": "uvx embedding-atlas {} --image image --x projection_x --y projection_y",
    "fiftyone": "fiftyone datasets create --name audit --dataset-dir {} "
    "--type fiftyone.types.FiftyOneDataset && fiftyone app launch audit",
}
"""How the program opens it."""


def prepare_export(path: str, to: str, output: str | None = None) -> Export:
    """The export of the audit in folder `path`; nothing is written yet.

    Args:
        path: a local path or an address.
        to: of ENDINGS.
        output: file or, for "fiftyone", folder to write; default: beside the audit.

    Raises:
        ConfigError: a library is missing, or `output` cannot be written to.
        AuditError: the folder holds no finished audit.
    """
    require_viewer_extra()
    audit = Audit.open(path)
    output = output or (path.rstrip("/") if "://" in path else os.path.abspath(path)) + ENDINGS[to]
    folder, name = _free_place(output, to)
    return Export(audit, to, output, folder, name)


@dataclass(frozen=True)
class Export:
    """An audit that is to be written for another program.

    Attributes:
        to: of ENDINGS.
        output: the place as it was given.
        folder: to write to.
        name: of the file in it; "" where the whole folder is written.
    """

    audit: Audit
    to: str
    output: str
    folder: OutputFolder
    name: str

    def write(self, everything: bool = False, progress: Progress = lambda *_: None) -> list[str]:
        """Write it.

        Args:
            everything: whether images that the report does not hold get a picture, read again from where it
                is, and a map, of their stored Jacobian.
            progress: told of a step, the images done, and of how many.

        Returns:
            What was written, what it lacks and how to open it, in sentences.

        Raises:
            AuditError: no image could be shown by the program, or the place cannot be written to.
        """
        images, tally = ExportedImages(self.audit, everything, progress), Tally(self.to)
        parts = tally.counting(images.parts())
        if self.to == "fiftyone":
            write_fiftyone(self.folder, parts, images.columns)
        else:
            write = write_atlas if self.to == "embedding-atlas" else write_parquet
            with self.folder.writing(self.name) as file:
                write(file, parts, images.columns)
        lines = [f"{without_secrets(self.output)}: {tally.sentence(images.projection.method)}"]
        if not everything and tally.maps < tally.images:
            lines.append(
                "the report does not hold the others: --images all reads their pictures where they are, and "
                "their heat maps from stored Jacobians"
            )
        if tally.clusters:
            lines.append(
                f"{len(tally.clusters)} clusters of heat maps inside predicted classes, {tally.in_none:,} "
                "images in none: where to look first, no findings"
            )
        if self.to in COMMANDS:
            lines.append(f"open it: {COMMANDS[self.to].format(shlex.quote(self.output))}")
        return lines


@dataclass
class Tally:
    """How many images were handed to a program, and how many of them have what."""

    to: str
    images: int = 0
    pictures: int = 0
    maps: int = 0
    places: int = 0
    clusters: set[str] = field(default_factory=set)
    in_none: int = 0

    def counting(self, parts: Iterator[Part]) -> Iterator[Part]:
        """The same parts, counted on the way; raises AuditError at their end where nothing can be shown."""
        for part in parts:
            self.images += len(part.rows)
            self.pictures += sum(picture is not None for picture in part.pictures)
            self.maps += int(part.has_map.sum())
            self.places += int(part.has_place.sum())
            self.clusters.update(filter(None, part.clusters))
            self.in_none += int(part.has_place.sum()) - sum(map(bool, part.clusters))
            yield part
        if not self.shown:
            raise AuditError(
                f"export: no image has a {'picture' if self.to == 'fiftyone' else 'heat map'}, which "
                f"{self.to} needs; give --images all, or audit with report.images above 0"
            )

    @property
    def shown(self) -> int:
        """Images that the program can show."""
        return {"parquet": self.images, "embedding-atlas": self.places, "fiftyone": self.pictures}[self.to]

    def sentence(self, method: str) -> str:
        return (
            f"{self.shown:,} of {self.images:,} images; {self.pictures:,} have a picture, {self.maps:,} a "
            f"heat map, {self.places:,} a place by {method}"
        )


def _free_place(output: str, to: str) -> tuple[OutputFolder, str]:
    """The folder to write to, and the name in it, "" for the whole folder.

    Raises:
        ConfigError: there is something already, or the name is none of a Parquet file.
    """
    given = without_secrets(output)
    if to == "fiftyone":
        folder, name = OutputFolder(output), ""
        taken = bool([*folder.foreign_names(), *folder.audit_names()])
    else:
        parent, slash, name = output.rpartition("/")
        folder = OutputFolder(parent or slash or ".")
        taken = folder.exists(name)
        if not name.endswith(".parquet"):
            raise ConfigError(f"--output: {given!r} does not end as Parquet does; give {given}.parquet")
        if folder.exists(names.RUN):
            raise ConfigError(f"--output: {folder} holds an audit; give a place outside of it")
    if taken:
        raise ConfigError(f"--output: {given} is there already; delete it, or give another place")
    return folder, name
