"""An audit where the model was trained, as the cells of a notebook: `# %%`, for VS Code and Jupytext.

    python examples/audit_in_notebook.py

It writes the audits digits-audit/ and sample-audit/ and the pictures nearest.png and rival.png;
docs/how-to/notebook.md explains it.
"""

# %% Train: a small CNN on scikit-learn's handwritten digits.
import keras
import matplotlib

matplotlib.use("Agg")  # leave this out in a notebook: it shows the figure itself

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import augnet

digits = load_digits()
x = digits.images[..., None].astype("float32") / 16  # (1797, 8, 8, 1), what the model is fed
y = digits.target

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ],
    name="digits",
)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, batch_size=32, epochs=10, verbose=0)

# %% Audit: the model and the arrays as they are.
audit = augnet.audit(model, (x, y), "digits-audit")

# %% Look: the images nearest to a decision boundary, and what their predictions depend on.
print(audit, f"accuracy {audit.summary['accuracy']:.3f}")
nearest = audit.worst("margin_l2", 6)
for row in nearest.select(["image_id", "label", "predicted", "margin_l2"]).to_pylist():
    print(row)

# %%
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for column, row in zip(axes.T, nearest.to_pylist(), strict=True):
    gradient = audit.jacobian(row["image_id"])[row["predicted"], ..., 0]
    column[0].imshow(x[int(row["image_id"]), ..., 0], cmap="gray")
    column[0].set_title(f"{row['label']} taken for {row['predicted']}", fontsize=8)
    column[1].imshow(gradient, cmap="RdBu_r", vmin=-abs(gradient).max(), vmax=abs(gradient).max())
figure.savefig("nearest.png")

# %% Ask: what a condition picks; and what the prediction of the nearest image, and its rival, depend on.
sure_and_wrong = audit.query("not correct and probability > 0.9")
axes = audit.show(nearest["image_id"][0].as_py())
axes[0].figure.savefig("rival.png")

# %% Keys: a sample of the images, few rows, and no Jacobians kept.
sample = augnet.audit(
    model,
    {"path": (x, y), "limit": 200},
    "sample-audit",
    jacobian={"outputs": "top:3"},
    store={"jacobians": "none"},
)
print(sample)
