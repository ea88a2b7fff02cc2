"""Reading a finished audit back."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from augnet.errors import LOOKED_AT, AuditError, did_you_mean, optional
from augnet.storage import names, schema
from augnet.storage.catalog import End, Statistic, catalog, scalars
from augnet.storage.files import OutputFolder
from augnet.storage.shards import read_table

CLOSED = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
"""Of DuckDB: what a condition cannot reach are files, the variables of this program, and these settings."""


class Audit:
    """Tables are Arrow tables, maps are NumPy arrays; everything is read when first asked for."""

    def __init__(self, folder: OutputFolder):
        self.folder = folder
        self._listed: dict[str, list[str]] = {}

    @classmethod
    def open(cls, path: str) -> Self:
        """The finished audit in folder `path` (a local path or an fsspec URI).

        Raises:
            AuditError: when the folder holds no finished audit.
        """
        folder = OutputFolder(str(path))
        if not folder.exists(names.MANIFEST):
            started = folder.exists(names.RUN)
            state = "an audit that has not finished; run the same command again" if started else "no audit"
            raise AuditError(f"{path}: holds {state} ({names.MANIFEST} is missing)")
        return cls(folder)

    def __repr__(self) -> str:
        counts = self.counts
        return f"Audit({self.folder.root!r}: {counts['audited']} audited, {counts['failed']} failed)"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Counts, and name, size and checksum of every result file."""
        return self.folder.read_sealed(names.MANIFEST)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Images planned, audited and failed."""
        audited, failed = self.summary["images"], self.summary["failures"]
        return {"planned": audited + failed, "audited": audited, "failed": failed}

    @cached_property
    def run(self) -> dict[str, Any]:
        """Resolved config, model, versions, times."""
        return self.folder.read_sealed(names.RUN)

    @property
    def has_one_output(self) -> bool:
        """Whether the model has one output: every image has the row 0 then, also where it is predicted 1."""
        return bool(self.run["model"]["output_count"] == 1)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Dataset-wide figures."""
        return self.folder.read_json(names.SUMMARY)

    @cached_property
    def findings(self) -> dict[str, Any]:
        """What the model was found to lean on, and what was tried; see docs/FINDINGS.md."""
        return self.folder.read_json(names.FINDINGS)

    @cached_property
    def interventions(self) -> pa.Table:
        """One row per changed image; columns as in augnet.storage.schema.INTERVENTIONS."""
        return self._parts("interventions", schema.INTERVENTIONS)

    @cached_property
    def triage(self) -> dict[str, Any]:
        """Which statistic tells wrong predictions, and the images to review; see augnet.findings.errors."""
        return self.folder.read_json(names.TRIAGE)

    @cached_property
    def noise(self) -> tuple[float, ...]:
        """`statistics.noise`, the standard deviations under which survival was foretold."""
        return tuple(self.run["config"]["statistics"].get("noise", ()))

    @property
    def _catalog(self) -> tuple[Statistic, ...]:
        return catalog(self.noise, self.run["config"]["jacobian"].get("sketch") is not None)

    @cached_property
    def scalars(self) -> dict[str, Statistic]:
        """The statistics that are one number for each image, by the name of their column."""
        return scalars(self._catalog)

    @cached_property
    def statistics_schema(self) -> pa.Schema:
        """Of the files in `statistics/`."""
        return schema.statistics(self._catalog)

    @cached_property
    def statistics(self) -> pa.Table:
        """One row per image, in plan order; columns as in augnet.storage.schema.statistics."""
        return self._parts("statistics", self.statistics_schema)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of `statistics`, read alone: what a large audit has memory for."""
        chunks = [chunk for part in self.column_parts(name) for chunk in part.chunks]
        return pa.chunked_array(chunks, self.statistics_schema.field(name).type)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of `statistics`, in one pass over its files by Arrow's dataset API.

        Raises:
            AuditError: a file cannot be read.
        """
        files = [self.folder.path(part) for part in self._names("statistics")]
        try:
            found = ds.dataset(files, self.statistics_schema, "parquet", filesystem=self.folder.fs)
            return found.to_table(columns=list(names))
        except (OSError, ValueError) as error:
            raise AuditError(
                f"{self.folder}: statistics/ cannot be read ({error}); augnet check tells what is damaged"
            ) from error

    def parts(self, kind: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The tables of `statistics` or `failures`, one by one: of a large audit, only one fits in memory."""
        return (self._table(name, columns) for name in self._names(kind))

    def column_parts(self, name: str) -> Iterator[pa.ChunkedArray]:
        """One column of `statistics`, file by file: a column of lists may be larger than memory."""
        return (part[name] for part in self.parts("statistics", [name]))

    @cached_property
    def failures(self) -> pa.Table:
        """One row per image that could not be audited: image_id, uri, stage, error."""
        return self._parts("failures", schema.FAILURES)

    @cached_property
    def outputs(self) -> pa.Table:
        """One row per model output."""
        return self._table(names.OUTPUTS)

    @cached_property
    def slices(self) -> pa.Table:
        """One row per (slice column, value, statistic)."""
        return self._table(names.SLICES)

    @cached_property
    def output_pairs(self) -> pa.Table:
        """One row per pair of outputs."""
        return self._table(names.OUTPUT_PAIRS)

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """mean, mean_abs, rms, std, max_abs (output, height, width, channel), and label_* by label."""
        return self._arrays(names.MAPS)

    @cached_property
    def gallery(self) -> dict[str, np.ndarray]:
        """Pictures and small maps of rows of the images that the report shows, see statistics.gallery."""
        return self._arrays(names.GALLERY)

    @cached_property
    def held(self) -> dict[str, int]:
        """The place of every image in the gallery."""
        return {image_id: k for k, image_id in enumerate(self.gallery.get("image_id", np.array([])).tolist())}

    def row(self, image_id: str) -> dict[str, Any]:
        """What `statistics` holds of one image, by column.

        Raises:
            KeyError: no such image was audited.
        """
        return self.statistics.slice(self._place(image_id), 1).to_pylist()[0]

    def jacobian(self, image_id: str, output: int | str | None = None) -> np.ndarray:
        """The stored Jacobian of one image, (output, height, width, channel).

        Args:
            image_id: of an audited image.
            output: its number, or the label that names it: the row of that output alone, (height, width,
                channel).

        Raises:
            KeyError: no such image was audited, or no such output is there, or it was not stored.
        """
        outputs, rows = self._stored(image_id)
        if output is None:
            return rows
        number = self._output_number(output)
        found = np.flatnonzero(outputs == number)
        if not len(found):
            stored = ", ".join(map(str, outputs[outputs >= 0].tolist()))
            raise KeyError(f"output {number} of {image_id!r} was not stored; stored: {stored}")
        return rows[found[0]]

    def jacobian_outputs(self, image_id: str) -> np.ndarray:
        """The model output of each row of `jacobian(image_id)`, (output,) int32."""
        return self._stored(image_id)[0]

    def stored_rows(self, name: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Jacobians of m images of one shard, which is read once.

        Args:
            name: the images' `jacobian_file`.
            places: (m,) their `jacobian_row`.

        Returns:
            outputs (m, row) int32, -1 for no row, and Jacobians (m, row, height, width, channel).
        """
        if name.endswith(".npz"):
            arrays = self._arrays(name)
            return arrays["output"][places], arrays["jacobian"][places]
        table = self._table(name).combine_chunks()
        count = max(1, pc.count_distinct(table["image_id"]).as_py())
        rows = places[:, None] + np.arange(len(table) // count)  # as many of each image
        outputs = table["output"].to_numpy()
        return outputs[rows], table["jacobian"].chunk(0).to_numpy_ndarray()[rows]

    def worst(self, statistic: str, count: int = 20, end: End | None = None) -> pa.Table:
        """The rows of the `count` images at one end of a statistic, the most extreme first.

        Images without a value are left out. `end` is by default the alarming one of the statistic in
        `augnet.storage.catalog`: the smallest margin, the largest norm.

        Raises:
            KeyError: no such statistic.
            ValueError: neither end of this one is alarming in itself, and none is named.
        """
        if statistic not in self.scalars:
            meant = did_you_mean(statistic, self.scalars)
            raise KeyError(f"{statistic!r} is not a statistic{meant}; known: {', '.join(self.scalars)}")
        end = end or self.scalars[statistic].worst
        if end not in get_args(End):
            wrong = f"end {end!r} is not known" if end else "neither end is alarming in itself"
            raise ValueError(f"{statistic}: {wrong}; give end='lowest' or end='highest'")
        known = self.statistics.filter(pc.is_valid(self.statistics[statistic]))
        order = "ascending" if end == "lowest" else "descending"
        return known.sort_by([(statistic, order), ("image_id", "ascending")]).slice(0, count)

    def query(self, condition: str) -> pa.Table:
        """The rows of `statistics` for which a condition of SQL holds, in plan order.

        Names are those of the columns: "margin_l2 < 0.01 and not correct", "label = 'cat'",
        "list_contains(flags, 'nan')", "metadata['site'] = 'Oslo'". A value that is not known fulfils no
        condition. DuckDB evaluates it, without access to files or anything but these rows.

        Raises:
            ValueError: it is no condition on these columns; the message says what fits.
            ConfigError: DuckDB is not installed.
        """
        duckdb = optional("duckdb", "Audit.query")
        with duckdb.connect(config=CLOSED) as database:
            try:
                found = database.from_arrow(self.statistics).filter(condition).project("image_id").fetchall()
            except duckdb.Error as error:
                problem = str(error).partition("\n\nLINE")[0].strip()
                raise ValueError(
                    f"query {condition!r}: {problem}\nnames are the columns of `statistics`; text stands in "
                    "single quotes"
                ) from None
        chosen = pa.array([image_id for (image_id,) in found], pa.string())
        return self.statistics.filter(pc.is_in(self.statistics["image_id"], chosen))

    def to_pandas(self) -> Any:
        """`statistics` as a pandas.DataFrame, one row per image.

        Raises:
            ConfigError: pandas is not installed.
        """
        optional("pandas", "Audit.to_pandas")
        return self.statistics.to_pandas()

    def _stored(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        row = self._place(image_id)
        name, first = (self.statistics[key][row].as_py() for key in ("jacobian_file", "jacobian_row"))
        if name is None:
            raise KeyError(f"{image_id!r}: its Jacobian was not stored (store.jacobians: none)")
        if name.endswith(".npz"):
            arrays = self._arrays(name)
            return arrays["output"][first], arrays["jacobian"][first]
        return self._stored_in_parquet(name, image_id, first)

    def _place(self, image_id: str) -> int:
        """The image's row in `statistics`."""
        row = self._row_of.get(image_id)
        if row is None:
            raise KeyError(f"{image_id!r}: {self._why_unknown(image_id)}")
        return row

    def _why_unknown(self, image_id: str) -> str:
        failed = self.failures.filter(pc.equal(self.failures["image_id"], image_id)).to_pylist()
        if failed:
            return f"it could not be audited ({failed[0]['stage']}: {failed[0]['error']})"
        known = self.statistics["image_id"]
        holding = known.filter(pc.match_substring(known, image_id, ignore_case=True)).slice(0, 1).to_pylist()
        meant = did_you_mean(image_id, islice(self._row_of, LOOKED_AT))
        meant = f"; did you mean {holding[0]}?" if holding else meant
        return f"no such image among the {len(self._row_of)} audited{meant}"

    def _output_number(self, output: int | str) -> int:
        count, named = self.run["model"]["output_count"], self.run["label_outputs"]
        number = named.get(output) if isinstance(output, str) else output
        if number is None:
            raise KeyError(f"{output!r} names no output{did_you_mean(str(output), named)}")
        if not 0 <= number < count:
            raise KeyError(f"output {number}: the model has {count}, 0 to {count - 1}")
        return number

    def _stored_in_parquet(self, name: str, image_id: str, first: int) -> tuple[np.ndarray, np.ndarray]:
        with self._reading(name) as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            tables, start = [], 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if stop > first:
                    table = file.read_row_group(group, use_threads=False).slice(max(0, first - start))
                    mine = pc.sum(pc.equal(table["image_id"], image_id)).as_py() or 0
                    tables.append(table.slice(0, mine))
                    if mine < len(table):
                        break
                start = stop
            table = pa.concat_tables(tables).combine_chunks()
        return table["output"].to_numpy(), table["jacobian"].chunk(0).to_numpy_ndarray()

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.statistics["image_id"].to_pylist())}

    def _parts(self, kind: str, empty: pa.Schema) -> pa.Table:
        parts = [self._table(name) for name in self._names(kind) if name.endswith(".parquet")]
        return pa.concat_tables(parts) if parts else empty.empty_table()

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        with self._reading(name) as stream:
            return read_table(stream, columns)

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        with self._reading(name) as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)

    def _names(self, kind: str) -> list[str]:
        """The finished files of a kind, listed once."""
        if kind not in self._listed:
            self._listed[kind] = self.folder.names(kind)
        return self._listed[kind]

    def _open(self, name: str) -> BinaryIO:
        """The file; of statistics in a store, which are read for every column, a copy made the first time."""
        if self.folder.is_local or not name.startswith("statistics/"):
            return self.folder.open(name)
        copy = self._copies / name
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._copies, delete=False) as whole:
                whole.write(self.folder.read_bytes(name))
            os.replace(whole.name, copy)
        return copy.open("rb")

    @cached_property
    def _copies(self) -> Path:
        """A folder on this machine that goes with this object."""
        path = tempfile.mkdtemp(prefix="augnet-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return Path(path)

    @contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        """The file opened; what is wrong with it becomes an AuditError."""
        try:
            with self._open(name) as stream:
                yield stream
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise AuditError(
                f"{self.folder}: {name} cannot be read ({error}); augnet check tells what is damaged"
            ) from error
