import numpy as np
import pytest

import augnet
from augnet.errors import AuditError
from pipeline.main import main


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    from conftest import small_cnn, write_images

    folder = tmp_path_factory.mktemp("reader")
    write_images(folder / "images", 30)
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
    assert main([str(argument) for argument in [*arguments, "--log-level=error"]]) == 0
    return augnet.open_audit(folder / "out")


def test_worst_means_small_margins_and_large_norms(audit):
    margins, norms = audit.statistics["margin_l2"].to_numpy(), audit.statistics["frobenius"].to_numpy()
    np.testing.assert_array_equal(audit.worst("margin_l2", 5)["margin_l2"], np.sort(margins)[:5])
    np.testing.assert_array_equal(audit.worst("frobenius", 5)["frobenius"], np.sort(norms)[::-1][:5])
    with pytest.raises(KeyError, match="frobenius"):
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


def test_unknown_images_are_named(audit):
    with pytest.raises(KeyError, match="no such image"):
        audit.jacobian("ant/9999.png")


def test_an_unfinished_audit_says_so(tmp_path):
    with pytest.raises(AuditError, match="holds no audit"):
        augnet.open_audit(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(AuditError, match="has not finished"):
        augnet.open_audit(tmp_path)


def test_repr_counts(audit):
    assert "30 audited, 0 failed" in repr(audit)
