"""All statistics of a finished audit, by an independent program: NumPy in float64, from its stored Jacobians.

Nothing of augnet but the reader is used: formulas are those of docs/STATISTICS.md, written out for one image.
"""

from itertools import pairwise

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, SIZE, small_cnn, write_images
from PIL import Image
from scipy.stats import multivariate_normal

import augnet
from augnet.storage.catalog import CATALOG, SCALARS

BORDER, SIGMA = 0.1, 0.5
TOLERANCE = 1e-5
INTEGRATION = 1e-3
"""Of survival: what quasi-random points leave of the probability of an orthant, see `statistics.orthant`."""


def colour_cnn():
    """Larger than a block of `views`' pixels, outputs with a sigmoid each."""
    keras.utils.set_random_seed(6)
    layers = keras.layers
    stack = [
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(8, 3, activation="gelu"),
        layers.Flatten(),
        layers.Dense(4, activation="sigmoid"),
    ]
    return keras.Sequential([keras.Input((70, 41, 3)), *stack])


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def audit(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model, size = (small_cnn(), SIZE) if request.param == "softmax" else (colour_cnn(), (70, 41))
    write_images(folder / "images", 40, size)
    keys = {"findings.enabled": False, "statistics.border": BORDER, "store.shard_bytes": 300_000}
    keys |= {"statistics.noise": [SIGMA], "statistics.noise_copies": 0}
    return augnet.audit(model, folder / "images", folder / "out", progress=False, **keys)


@pytest.fixture(scope="module")
def rows(audit):
    return stored_rows(audit)


def stored_rows(audit):
    """image_id -> rows (K, height, width, channel) float64, from the Parquet files alone."""
    found = {}
    for name in audit.folder.names("jacobians"):
        table = pq.read_table(audit.folder.path(name))
        shape = tuple(table.schema.field("jacobian").type.shape)
        values = table["jacobian"].combine_chunks().storage.flatten().to_numpy().astype(np.float64)
        for image_id, row in zip(table["image_id"].to_pylist(), values.reshape(-1, *shape), strict=True):
            found.setdefault(image_id, []).append(row)
    return {image_id: np.stack(parts) for image_id, parts in found.items()}


def recomputed(line, rows, sigmoid):
    """Statistics of one image, of its line of the table, of which outputs, label and pixels are used."""
    f, count = np.asarray(line["outputs"], np.float64), len(rows)
    i = int(f.argmax())
    flat = rows.reshape(count, -1)
    with Image.open(line["uri"]) as picture:
        x = np.asarray(picture, np.float64) / 255
    p = 1 / (1 + np.exp(-f)) if sigmoid else np.exp(f - f.max()) / np.exp(f - f.max()).sum()
    singular = np.linalg.svd(flat, compute_uv=False)
    if count >= 128:  # then what is below the rounding of products in float32 counts as zero
        singular[np.square(singular) < 4e-6 * np.square(flat).sum() / count] = 0.0
    shares = singular / singular.sum()
    label = CLASSES.index(line["label"])
    found = {
        "predicted": i,
        "probability": p[i],
        "selected": list(range(count)),
        "frobenius": np.sqrt(np.square(flat).sum()),
        "spectral": singular[0],
        "stable_rank": np.square(flat).sum() / singular[0] ** 2,
        "effective_rank": np.exp(-sum(s * np.log(s) for s in shares if s > 0)),
        "singular_values": singular,
        "row_l2": [np.linalg.norm(row) for row in flat],
        "alignment": abs((x.ravel() * flat[i]).sum()) / np.linalg.norm(flat[i]),
        "flags": [],
    }
    if sigmoid:
        l2 = {j: abs(f[j]) / np.linalg.norm(flat[j]) for j in range(count)}
        linf = [abs(f[j]) / np.abs(flat[j]).sum() for j in range(count)]
        found |= {"correct": None, "loss_gradient_l2": None}
    else:
        l2 = {j: (f[i] - f[j]) / np.linalg.norm(flat[i] - flat[j]) for j in range(count) if j != i}
        linf = [(f[i] - f[j]) / np.abs(flat[i] - flat[j]).sum() for j in range(count) if j != i]
        found["correct"] = i == label
        found["loss_gradient_l2"] = np.linalg.norm((p - np.eye(count)[label]) @ flat)
    found |= {"margin_l2": min(l2.values()), "margin_linf": min(linf), "rival": min(l2, key=l2.get)}
    return found | of_one_row(rows[i])


def recomputed_survival(line, rows, sigmoid):
    """That of the linearised outputs: the signs of all, or the lead over all others, under noise of SIGMA."""
    f, flat = np.asarray(line["outputs"], np.float64), rows.reshape(len(rows), -1)
    i = int(f.argmax())
    gaps = np.abs(f) if sigmoid else np.delete(f[i] - f, i)
    slopes = np.sign(f)[:, None] * flat if sigmoid else np.delete(flat[i] - flat, i, axis=0)
    return multivariate_normal.cdf(gaps, cov=SIGMA**2 * slopes @ slopes.T, allow_singular=True)


def of_one_row(row):
    a = np.sqrt(np.square(row).sum(axis=-1))
    (height, width), n, total = a.shape, a.size, a.sum()
    ascending, share = np.sort(a.ravel()), a.ravel() / total
    frame = max(1, round(BORDER * min(height, width)))
    y, x = np.mgrid[:height, :width] + 0.5
    centre = (y * a).sum() / total, (x * a).sum() / total
    second = ((np.square(y - centre[0]) + np.square(x - centre[1])) * a).sum() / total
    energy = np.square(np.abs(np.fft.fft2(row, axes=(0, 1), norm="ortho"))).sum(axis=-1)
    v, u = np.meshgrid(2 * np.fft.fftfreq(height), 2 * np.fft.fftfreq(width), indexing="ij")
    radius, edges = np.hypot(v, u), [-1, 1 / 8, 1 / 4, 1 / 2, 1, 2]
    bands = [energy[(radius > low) & (radius <= high)].sum() for low, high in pairwise(edges)]
    return {
        "gini": ((2 * np.arange(1, n + 1) - n - 1) * ascending).sum() / (n * total),
        "entropy": -sum(s * np.log(s) for s in share if s > 0) / np.log(n),
        "border_fraction": 1 - a[frame:-frame, frame:-frame].sum() / total,
        "centre_y": centre[0] / height,
        "centre_x": centre[1] / width,
        "spread": np.sqrt(second) / np.hypot(height, width),
        "high_frequency_share": sum(bands[3:]) / energy.sum(),
        "frequency_shares": np.array(bands) / energy.sum(),
    }


@pytest.mark.parametrize("hidden", [None, 20])
def test_every_statistic_of_many_outputs(tmp_path, hidden):
    """Products are made in float32 then; behind `hidden` numbers, most singular values are zero."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    stack = [keras.Input((*SIZE, 3)), layers.Conv2D(16, 3, activation="gelu"), layers.Flatten()]
    stack += [layers.Dense(hidden)] if hidden else []
    stack += [layers.Dense(140, activation="softmax")]
    write_images(tmp_path / "images", 12)
    keys = {"findings.enabled": False, "statistics.border": BORDER}
    model, folder = keras.Sequential(stack), tmp_path / "out"
    audit = augnet.audit(model, tmp_path / "images", folder, progress=False, **keys)
    compare_all(audit, stored_rows(audit), sigmoid=False, named=False)


def test_every_statistic_of_every_image(audit, rows):
    assert len(rows) == 40
    compare_all(audit, rows, "sigmoid" in audit.run["model"]["activation"])


def compare_all(audit, rows, sigmoid, named=True):
    """Every statistic of every image; those of a label are null unless labels are `named` as outputs are."""
    lines = audit.statistics.to_pylist()
    assert len(lines) == len(rows)
    exact = {entry.name for entry in CATALOG if not entry.estimated and not entry.per_noise}
    for line in lines:
        expected = recomputed(line, rows[line["image_id"]], sigmoid)
        assert expected.keys() == exact - {"outputs"}
        if not named:
            expected |= {"correct": None, "loss_gradient_l2": None}
        for name, value in expected.items():
            found = line[name]
            if value is None or (isinstance(value, bool | list) and name in ("flags", "correct")):
                assert found == value, name
            else:
                np.testing.assert_allclose(found, value, rtol=TOLERANCE, atol=TOLERANCE * 0.1, err_msg=name)


def test_survival_of_every_image(audit, rows):
    sigmoid = "sigmoid" in audit.run["model"]["activation"]
    found = audit.column(f"survival_{SIGMA}").to_numpy()
    lines = audit.statistics.to_pylist()
    expected = [recomputed_survival(line, rows[line["image_id"]], sigmoid) for line in lines]
    assert 0.2 < np.mean(expected) < 0.98, "little is told by noise that all survive, or none"
    np.testing.assert_allclose(found, expected, atol=INTEGRATION)


def test_the_summary_of_every_statistic(audit):
    for name in SCALARS:
        values = audit.column(name).drop_null().to_numpy()
        figures = audit.summary["statistics"][name]
        assert figures["count"] == len(values)
        if len(values):
            expected = {"mean": values.mean(), "std": values.std(ddof=1), "min": values.min()}
            expected |= {"q05": np.quantile(values, 0.05), "q50": np.quantile(values, 0.5)}
            for figure, value in expected.items():
                assert figures[figure] == pytest.approx(value, rel=TOLERANCE), (name, figure)


def test_the_maps_of_every_output(audit, rows):
    every = np.stack(list(rows.values()))
    expected = {
        "mean": every.mean(axis=0),
        "mean_abs": np.abs(every).mean(axis=0),
        "rms": np.sqrt(np.square(every).mean(axis=0)),
        "std": every.std(axis=0),
        "max_abs": np.abs(every).max(axis=0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(audit.maps[name], value, rtol=TOLERANCE, atol=TOLERANCE * value.max())


def test_the_norms_of_every_output_and_pairs_of_outputs(audit, rows):
    flat = np.stack([part.reshape(len(part), -1) for part in rows.values()])
    norms = np.linalg.norm(flat, axis=2)
    outputs = audit.outputs.to_pydict()
    np.testing.assert_allclose(outputs["mean_row_l2"], norms.mean(axis=0), rtol=TOLERANCE)
    np.testing.assert_allclose(outputs["std_row_l2"], norms.std(axis=0, ddof=1), rtol=TOLERANCE)
    np.testing.assert_allclose(outputs["rms"], np.sqrt(np.square(flat).mean(axis=(0, 2))), rtol=TOLERANCE)
    cosines = (flat @ flat.transpose(0, 2, 1) / (norms[:, :, None] * norms[:, None, :])).mean(axis=0)
    for line in audit.output_pairs.to_pylist():
        found, expected = line["mean_cosine"], cosines[line["output"], line["other"]]
        assert found == pytest.approx(expected, abs=TOLERANCE)
