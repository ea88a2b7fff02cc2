"""The ten most brittle images of an audit: those that the smallest change would take to another class.

    augnet demo
    python examples/most_brittle_images.py augnet-demo/audit

It needs `pip install 'augnet[notebook]'`; docs/how-to/notebook.md has more of what an audit can be asked.
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")  # leave this out in a notebook: it shows the figure itself

from matplotlib import pyplot as plt

import augnet

SHOWN = 10


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("audit", help="folder of a finished audit")
    parser.add_argument("--output", default="most_brittle.png", help="picture to write")
    options = parser.parse_args(arguments)
    audit = augnet.open_audit(options.audit)

    # The images nearest to a boundary, the nearest first.
    brittle = audit.worst("margin_l2", SHOWN)
    for row in brittle.select(["image_id", "label", "predicted", "rival", "margin_l2"]).to_pylist():
        print(row)

    farthest = brittle["margin_l2"].to_pylist()[-1]
    right = audit.query(f"correct and margin_l2 <= {farthest}")
    print(f"{len(right)} of these {len(brittle)} are predicted right")

    # A line of axes for each: the image, what its prediction depends on, what speaks for the nearest rival.
    size = (8, 2.2 * len(brittle))
    figure, axes = plt.subplots(len(brittle), 3, figsize=size, layout="constrained", squeeze=False)
    for line, image_id in zip(axes, brittle["image_id"].to_pylist(), strict=True):
        audit.show(image_id, axes=line)
    figure.savefig(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
