import sys

import numpy as np
import pytest

import augnet
from augnet.errors import AuditError, ConfigError
from pipeline.main import main


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    from conftest import small_cnn, write_images

    folder = tmp_path_factory.mktemp("reader")
    write_images(folder / "images", 30)
    (folder / "images" / "ant" / "broken.png").write_bytes(b"no picture")
    small_cnn().save(folder / "m.keras")
    arguments = [
        "audit",
        "--model",
        folder / "m.keras",
        "--images",
        folder / "images",
        "--output",
        folder / "out",
    ]
    arguments += ["--failures.max_fraction=0.1", "--log-level=error"]
    assert main([str(argument) for argument in arguments]) == 0
    return augnet.open_audit(folder / "out")


def test_worst_means_small_margins_and_large_norms(audit):
    margins, norms = audit.statistics["margin_l2"].to_numpy(), audit.statistics["frobenius"].to_numpy()
    np.testing.assert_array_equal(audit.worst("margin_l2", 5)["margin_l2"], np.sort(margins)[:5])
    np.testing.assert_array_equal(audit.worst("frobenius", 5)["frobenius"], np.sort(norms)[::-1][:5])
    with pytest.raises(KeyError, match="did you mean frobenius"):
        audit.worst("frobnius")


def test_either_end_can_be_asked_for_and_must_be_where_neither_is_worse(audit):
    gini = audit.statistics["gini"].to_numpy()
    np.testing.assert_array_equal(audit.worst("gini", 4, "lowest")["gini"], np.sort(gini)[:4])
    margins = audit.statistics["margin_l2"].to_numpy()
    np.testing.assert_array_equal(
        audit.worst("margin_l2", 4, end="highest")["margin_l2"], np.sort(margins)[::-1][:4]
    )
    with pytest.raises(ValueError, match=r"gini: neither end is alarming.*end='lowest'"):
        audit.worst("gini")
    with pytest.raises(ValueError, match=r"'top'.*end='highest'"):
        audit.worst("margin_l2", end="top")


def test_stored_jacobians_agree_with_the_statistics(audit):
    for row in audit.statistics.to_pylist():
        jacobian = audit.jacobian(row["image_id"])
        np.testing.assert_allclose(np.linalg.norm(jacobian), row["frobenius"], rtol=1e-6)
        assert audit.jacobian_outputs(row["image_id"]).tolist() == row["selected"]


def test_maps_are_the_means_of_the_stored_jacobians(audit):
    every = np.stack([audit.jacobian(name) for name in audit.statistics["image_id"].to_pylist()]).astype(
        np.float64
    )
    expected = {
        "mean": every.mean(0),
        "mean_abs": np.abs(every).mean(0),
        "rms": np.sqrt((every**2).mean(0)),
        "std": every.std(0),
        "max_abs": np.abs(every).max(0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(audit.maps[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def test_one_output_is_asked_for_by_number_or_by_label(audit):
    image_id = audit.statistics["image_id"][4].as_py()
    whole = audit.jacobian(image_id)
    for output, label in enumerate(("ant", "bee", "cow")):
        np.testing.assert_array_equal(audit.jacobian(image_id, output), whole[output])
        np.testing.assert_array_equal(audit.jacobian(image_id, output=label), whole[output])
    with pytest.raises(KeyError, match="'bees' names no output; did you mean bee"):
        audit.jacobian(image_id, "bees")
    with pytest.raises(KeyError, match="output 3: the model has 3, 0 to 2"):
        audit.jacobian(image_id, 3)


@pytest.mark.parametrize(
    "given, answer",
    [
        ("ant/9999.png", "no such image among the 30 audited"),
        ("0003.png", "did you mean ant/0003.png"),
        ("bee/0004.jpg", "did you mean bee/0004.png"),
        ("ant/broken.png", "it could not be audited .decode:"),
    ],
)
def test_unknown_images_are_answered_with_what_was_meant(audit, given, answer):
    with pytest.raises(KeyError, match=answer):
        audit.jacobian(given)


def test_a_query_gives_the_rows_of_which_the_condition_holds(audit):
    limit = float(np.median(audit.statistics["margin_l2"]))
    found = audit.query(f"margin_l2 < {limit} and not correct")
    rows = audit.statistics.to_pylist()
    assert found.to_pylist() == [row for row in rows if row["margin_l2"] < limit and not row["correct"]]
    assert 0 < len(found) < len(audit.query("not correct")) < 30
    assert audit.query("label = 'bee'")["label"].to_pylist() == ["bee"] * 10
    assert found.schema == audit.statistics.schema
    assert len(audit.query("list_contains(flags, 'nan')")) == 0


@pytest.mark.parametrize(
    "condition, answer",
    [
        ("margin < 1", '"margin" not found.*"margin_l2"'),
        ('label = "bee"', "text stands in single quotes"),
        ("margin_l2 <", "syntax error"),
        ("true; drop table statistics", "Parser Error"),
        ("exists(select * from read_text('/etc/hostname'))", "file system operations are disabled"),
        ("exists(select * from '/etc/hostname')", "does not exist"),
        ("exists(select * from audit)", "does not exist"),
    ],
)
def test_what_is_no_condition_is_answered_and_reaches_nothing(audit, condition, answer):
    with pytest.raises(ValueError, match=f"(?s){answer}"):
        audit.query(condition)


def test_statistics_as_a_data_frame(audit):
    frame = audit.to_pandas()
    assert list(frame.columns) == audit.statistics.column_names
    np.testing.assert_array_equal(frame["margin_l2"], audit.statistics["margin_l2"])


@pytest.mark.parametrize("name, ask", [("duckdb", "query"), ("pandas", "to_pandas")])
def test_what_is_not_installed_is_asked_for(audit, monkeypatch, name, ask):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ConfigError, match=rf"{name} is needed for Audit\.{ask}.*pip install 'augnet\[notebook\]'"
    ):
        getattr(audit, ask)(*["correct"][: ask == "query"])


def test_an_unfinished_audit_says_so(tmp_path):
    with pytest.raises(AuditError, match="holds no audit"):
        augnet.open_audit(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(AuditError, match="has not finished"):
        augnet.open_audit(tmp_path)


def test_repr_counts(audit):
    assert "30 audited, 1 failed" in repr(audit)
