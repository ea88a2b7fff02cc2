"""The catalog of statistics: what follows from it, and that its documentation is up to date."""

import doctest
import importlib.util
from pathlib import Path

import pyarrow as pa

from augnet.statistics.image import FLAGS
from augnet.storage import catalog, schema
from augnet.storage.catalog import CATALOG, SCALARS

DOCS = Path(__file__).parents[1] / "docs"


def test_every_statistic_says_what_it_is():
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert entry.meaning and bool(entry.label) == entry.is_scalar, entry.name
        assert not entry.worst or entry.is_scalar, f"{entry.name}: only a single number has a worse end"


def test_the_columns_are_those_of_the_catalog_in_its_order():
    between = schema.STATISTICS.names[4:-2]
    assert between == [entry.name for entry in CATALOG]
    assert [schema.STATISTICS.field(entry.name).type for entry in CATALOG] == [e.type for e in CATALOG]
    assert list(SCALARS) == [field.name for field in schema.STATISTICS if field.type == pa.float64()]


def test_the_flags_are_named():
    flags = next(entry for entry in CATALOG if entry.name == "flags")
    assert flags.meaning.endswith(": " + ", ".join(FLAGS))


def test_the_documentation_holds_the_catalog():
    path = DOCS / "statistics_table.py"
    spec = importlib.util.spec_from_file_location("statistics_table", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (DOCS / "STATISTICS.md").read_text(encoding="utf-8")
    assert text == script.page(text), "run: python docs/statistics_table.py"
    assert all(f"| `{entry.name}` |" in text for entry in CATALOG)


def test_the_example_of_a_new_statistic_works():
    assert doctest.testmod(catalog).attempted == 1
    assert doctest.testmod(catalog).failed == 0
