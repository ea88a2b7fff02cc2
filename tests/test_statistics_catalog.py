"""The catalog of statistics: what follows from it, and that its documentation is up to date."""

import doctest
import importlib.util
from pathlib import Path

import pyarrow as pa
import pytest

from augnet.statistics.image import FLAGS
from augnet.storage import catalog, schema
from augnet.storage.catalog import CATALOG, SCALARS

DOCS = Path(__file__).parents[1] / "docs"


def test_every_statistic_says_what_it_is():
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert entry.meaning and bool(entry.label) == entry.is_scalar, entry.name
        assert not entry.worst or entry.is_scalar, f"{entry.name}: only a single number has a worse end"


@pytest.mark.parametrize("sketch", [False, True])
@pytest.mark.parametrize("noise", [(), (0.05, 1e-7, 2)])
def test_the_columns_are_those_of_the_catalog_in_its_order(noise, sketch):
    entries = catalog.catalog(noise, sketch)
    columns = schema.statistics(entries)
    assert columns.names[4:-2] == [entry.name for entry in entries]
    assert [columns.field(entry.name).type for entry in entries] == [entry.type for entry in entries]
    errors = [catalog.error_column(entry.name) for entry in CATALOG if entry.estimated and sketch]
    described = [field.name for field in columns if field.type == pa.float64() and field.name not in errors]
    assert list(catalog.scalars(entries)) == described and set(SCALARS) <= set(described)
    assert set(errors) <= set(columns.names)


def test_a_statistic_per_noise_has_a_column_for_each():
    (entry,) = (entry for entry in CATALOG if entry.per_noise)
    place = [entry.name for entry in CATALOG].index("survival")
    made = catalog.catalog((0.05, 1e-7))
    assert [part.name for part in made[place : place + 2]] == ["survival_0.05", "survival_1e-07"]
    exact = [part for part in CATALOG if not part.estimated]
    assert [*made[:place], entry, *made[place + 2 :]] == exact
    for part in catalog.catalog((0.05, 1e-7), sketch=True):
        assert catalog.statistic_of(part.name) == part


def test_what_is_estimated_says_so_and_has_an_error_beside_it():
    columns = schema.statistics(catalog.catalog(sketch=True))
    for field in columns:
        approximate = (field.metadata or {}).get(b"approximate") == b"true"
        assert approximate == field.name.startswith("sketch_"), field.name
    for entry in CATALOG:
        if entry.estimated:
            place = columns.get_field_index(entry.name)
            assert entry.label.startswith("approximate") and columns.names[place + 1] == f"{entry.name}_error"
            assert entry.name not in schema.STATISTICS.names


def test_wrong_names_are_no_columns():
    for wrong in ("survival", "survival_", "survival_x", "margin_l2_3", "survival_0.050", "nothing"):
        with pytest.raises(KeyError):
            catalog.statistic_of(wrong)


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
    assert doctest.testmod(catalog).attempted == 2
    assert doctest.testmod(catalog).failed == 0
