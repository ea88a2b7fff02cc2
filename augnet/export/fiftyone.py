"""A FiftyOne dataset, in the format that FiftyOne exports and imports itself, written without FiftyOne.

A folder: metadata.json describes the fields, samples.json has a document for each image, data/ the pictures,
and fields/heat_map/ the maps of the `Heatmap` field, in grey, as FiftyOne has colours of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from augnet.export.encoding import encoded_picture, grey_map, picture_format
from augnet.export.images import Part
from augnet.statistics.gallery import draw
from augnet.storage.files import OutputFolder

VERSION = "1.0.0"
"""Of FiftyOne, whose format this is; a newer one brings it up to date as it imports."""

WRITES_AT_ONCE = 16
"""Each may wait for the network."""

DESCRIPTION = (
    "An audit by augnet. heat_map: where the model looks, the magnitude of the predicted output's row of the "
    "Jacobian. cluster: heat maps of one predicted class that look alike; where to look first, no finding."
)

FIELDS = {
    pa.string(): ("StringField", None),
    pa.float64(): ("FloatField", None),
    pa.int32(): ("IntField", None),
    pa.bool_(): ("BooleanField", None),
    pa.list_(pa.string()): ("ListField", "StringField"),
}
"""Type of a column -> FiftyOne's field, and that of a list's elements. Lists of numbers are left out."""

PLACES = ("projection_x", "projection_y")


def write_fiftyone(folder: OutputFolder, parts: Iterable[Part], columns: pa.Schema) -> None:
    """The images that have a picture, as samples. metadata.json comes last: without it there is no dataset.

    Args:
        columns: of `Part.rows`.
    """
    fields = {field.name: FIELDS[field.type] for field in columns if field.type in FIELDS}
    with folder.writing("samples.json") as path, path.open("w", encoding="utf-8") as stream:
        stream.write('{"samples": [')
        for number, sample in enumerate(_samples(folder, parts, list(fields))):
            stream.write(",\n" if number else "\n")
            json.dump(sample, stream, ensure_ascii=False, allow_nan=False)
        stream.write("\n]}\n")
    folder.write_json("metadata.json", _metadata(fields))


def field_name(column: str) -> str:
    """A column's name as FiftyOne takes it: letters, digits and _."""
    return re.sub(r"\W", "_", column)


def _samples(folder: OutputFolder, parts: Iterable[Part], columns: list[str]) -> Iterator[dict[str, Any]]:
    """A document for each image, once its files are written."""
    first = 0
    with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
        for part in parts:
            rows = part.rows.select(columns).to_pylist()
            written = [pool.submit(_write_files, folder, part, k, first + k) for k in range(len(rows))]
            for k, row in enumerate(rows):
                if names := written[k].result():
                    yield _sample(part, k, row, *names)
            first += len(rows)


def _write_files(folder: OutputFolder, part: Part, k: int, number: int) -> tuple[str, str | None] | None:
    """Write image k's picture and map; their names, None where there is none."""
    picture = part.pictures[k]
    if picture is None:
        return None
    name, map_name = f"data/{number:08d}.{picture_format(picture)}", None
    folder.write_bytes(name, encoded_picture(picture))
    if part.has_map[k]:
        map_name = f"fields/heat_map/{number:08d}.png"
        folder.write_bytes(map_name, grey_map(part.maps[k]))
    return name, map_name


def _sample(part: Part, k: int, row: dict[str, Any], picture: str, heat_map: str | None) -> dict[str, Any]:
    """The document of image k."""
    image_id, predicted = row["image_id"], row["predicted_name"]
    sample: dict[str, Any] = {
        "_id": _object_id(image_id, "sample"),
        "_media_type": "image",
        "_rand": draw(image_id),
        "filepath": picture,
        "tags": [],
        "cluster": part.clusters[k],
        "ground_truth": row["label"]
        and _label(image_id, "ground_truth", "Classification", label=row["label"]),
        "prediction": predicted
        and _label(image_id, "prediction", "Classification", label=predicted, confidence=row["probability"]),
        "heat_map": heat_map and _label(image_id, "heat_map", "Heatmap", map_path=heat_map),
    }
    sample |= {field_name(name): value for name, value in row.items()}
    if part.has_place[k]:
        sample |= dict(zip(PLACES, part.points[k].tolist(), strict=True))
    return sample


def _label(image_id: str, field: str, kind: str, **values: Any) -> dict[str, Any]:
    return {"_id": _object_id(image_id, field), "_cls": kind, "tags": [], **values}


def _object_id(image_id: str, part: str) -> dict[str, str]:
    """An identifier of MongoDB's kind that the image's name decides."""
    return {"$oid": hashlib.blake2b(f"{part} {image_id}".encode(), digest_size=12).hexdigest()}


def _metadata(fields: dict[str, tuple[str, str | None]]) -> dict[str, Any]:
    """The document of the dataset."""
    label = {"label": "StringField", "confidence": "FloatField", "logits": "VectorField"}
    heat_map = {"map": "ArrayField", "map_path": "StringField", "range": "HeatmapRangeField"}
    own = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("_dataset_id", "ObjectIdField"),
        _field("_media_type", "StringField"),
        _field("_rand", "FloatField"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", "StringField"),
        _field("created_at", "DateTimeField", read_only=True),
        _field("last_modified_at", "DateTimeField", read_only=True),
        _label_field("ground_truth", "Classification", label),
        _label_field("prediction", "Classification", label),
        _label_field("heat_map", "Heatmap", heat_map),
    ]
    measured = [_field(field_name(name), *kinds) for name, kinds in fields.items()]
    places = [*(_field(name, "FloatField") for name in PLACES), _field("cluster", "StringField")]
    return {
        "version": VERSION,
        "media_type": "image",
        "description": DESCRIPTION,
        "tags": [],
        "info": {},
        "app_config": {},
        "sample_fields": [*own, *measured, *places],
    }


def _label_field(name: str, kind: str, parts: dict[str, str]) -> dict[str, Any]:
    fields = [_field("id", "ObjectIdField", db_field="_id"), _field("tags", "ListField", "StringField")]
    fields += [_field(part, part_kind) for part, part_kind in parts.items()]
    document = f"fiftyone.core.labels.{kind}"
    return _field(name, "EmbeddedDocumentField", embedded_doc_type=document, fields=fields)


def _field(name: str, kind: str, element: str | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}",
        "subfield": element and f"fiftyone.core.fields.{element}",
        "embedded_doc_type": None,
        "fields": [],
        "db_field": name,
        "description": None,
        "info": None,
        "read_only": False,
        "created_at": None,
        **settings,
    }
