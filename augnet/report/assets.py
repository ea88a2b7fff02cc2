"""What every page of ours is made with: templates, style, scripts, and data that a script can load from disk.

A page that is opened from disk may load scripts but not fetch files, so data travels as scripts too:
`augnet.receive(NAME, VALUE)`, received in static/core.js.
"""

from __future__ import annotations

import base64
import json
import zlib
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from augnet.storage.files import OutputFolder

STYLE = "report.css"
SCRIPTS = (
    "core.js",
    "colors.js",
    "pictures.js",
    "viewer.js",
    "filters.js",
    "table.js",
    "maps.js",
    "figures.js",
    "report.js",
)
"""In the order in which the page loads them."""


def templates(package: str) -> Environment:
    """The templates that lie in a package; what they are given is escaped."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def static_files() -> dict[str, bytes]:
    """Name -> content of the style and the scripts that lie beside a page."""
    static = files("augnet.report") / "static"
    return {name: (static / name).read_bytes() for name in (STYLE, *SCRIPTS)}


def data_script(name: str, value: Any) -> bytes:
    """A script that hands a JSON value to the page; NaN is an error, as JSON has none."""
    return f"augnet.receive({_json(name)},{_json(value)});\n".encode()


def packed(values: np.ndarray) -> str:
    """The bytes of an array, for `augnet.unpack` in the page: zlib, then base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode()


def numbers(values: np.ndarray | list[float | None], digits: int = 6) -> list[float | None]:
    """Numbers of a few digits for JSON; null for NaN, infinity and None."""
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    return [
        float(f"{value:.{digits}g}") if known else None for value, known in zip(array, finite, strict=True)
    ]


def write_only(folder: OutputFolder, below: str, written: set[str]) -> None:
    """Delete what an earlier report has left in its subfolder beside the files just written."""
    for name in set(folder.names(below)) - written:
        folder.remove(name)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
