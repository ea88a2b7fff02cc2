"""The code of docs/how-to/read-jacobians.md, run on an audit, and what it reads."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from audit_processes import audit_command
from conftest import small_cnn, write_images

import augnet
from pipeline.main import main

PAGE = (Path(__file__).parents[1] / "docs/how-to/read-jacobians.md").read_text(encoding="utf-8")
SECTIONS = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for title, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def audit(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("read")
    small_cnn().save(folder / "model.keras")
    write_images(folder / "images", 30)
    dtype = f"--store.dtype={request.param}"
    command = audit_command(folder / "model.keras", folder / "images", folder / "out", dtype)
    assert main([*command, "--log-level=warning"]) == 0
    return augnet.open_audit(str(folder / "out"))


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "DuckDB", "polars"])
def test_the_code_of_the_page_gives_the_jacobian(audit, monkeypatch, library):
    monkeypatch.chdir(audit.folder.root)
    found = {"Path": Path}
    exec(compile(SECTIONS[library], f"{PAGE[:20]} {library}", "exec"), found)
    image_id = audit.worst("margin_l2", 1)["image_id"][0].as_py()
    np.testing.assert_array_equal(found["jacobian"], audit.jacobian(image_id))
    assert found["jacobian"].shape == (3, 12, 10, 3)
    if library == "DuckDB":
        image_id, _, value = found["strongest"]
        place = (0, found["y"], found["x"], found["channel"])
        assert abs(audit.jacobian(image_id)[place]) == value
        assert value == max(np.abs(audit.jacobian(each)[0]).max() for each in audit._row_of)


def test_every_reader_sees_the_same_statistics(audit, monkeypatch):
    """Lists of numbers and of text too, and which values are missing; of maps, each has its own idea."""
    monkeypatch.chdir(audit.folder.root)
    expected = audit.statistics.drop("metadata").to_pylist()
    assert any(isinstance(value, list) and value for value in expected[0].values())
    assert plain(pd.read_parquet("statistics").drop(columns="metadata").to_dict("records")) == expected
    relation = duckdb.sql("SELECT * EXCLUDE metadata FROM 'statistics/*.parquet'")
    assert plain(dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()) == expected
    assert pl.read_parquet("statistics/*.parquet").drop("metadata").to_dicts() == expected
    assert pq.read_table("statistics").drop("metadata").to_pylist() == expected


def plain(records):
    """Records of Python's own values, None where a value is missing."""

    def value(cell):
        if isinstance(cell, np.ndarray | list | tuple):
            return [value(each) for each in cell]
        if isinstance(cell, np.generic):
            cell = cell.item()
        return None if cell is pd.NaT or cell is pd.NA or cell != cell else cell

    return [{key: value(cell) for key, cell in record.items()} for record in records]
