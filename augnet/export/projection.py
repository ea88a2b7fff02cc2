"""All small maps as points in the plane, alike ones near each other, and groups inside each predicted class.

Two maps are compared by the share of the sensitivity that lies on each block of pixels, so by where the
model looks and not by how strongly it reacts; their distance is Hellinger's. Groups inside a class are
different ways of looking, of which one may be a shortcut (SpRAy: Lapuschkin et al. 2019, arXiv 1902.10178).
They show where to look first and are no findings: anything has groups.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

from augnet.errors import ConfigError
from augnet.statistics.moments import shrunk

SIDE = 16
"""Blocks of pixels along the longest side of a map that is compared."""

NEIGHBOURS = 15
"""Images to which each is held near; UMAP's own default."""

FEWEST = 4 * NEIGHBOURS
"""Of fewer images, whose neighbourhoods would be most of them, the two principal components are taken."""

MOST_IMAGES = 50_000
"""That are given a place; of more, a sample drawn by their names. UMAP takes minutes for as many."""

CLUSTER_SHARE = 1 / 20
"""Of the images of a predicted class, that a cluster has at least."""

CLUSTER_IMAGES = 5
"""Images that a cluster has at least."""


@dataclass(frozen=True)
class Projection:
    """Places of n images.

    Attributes:
        points: (n, 2) float32.
        clusters: (n,) int32, counted from 1 for the largest of each predicted class; 0 for an image in none.
        method: "UMAP" or "PCA".
    """

    points: np.ndarray
    clusters: np.ndarray
    method: str


def require_viewer_extra() -> None:
    """Raise ConfigError where a library that projections need is not installed."""
    for module, package in (("sklearn", "scikit-learn"), ("umap", "umap-learn")):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"export: {package} is needed for the projection, and is not installed; "
                "pip install 'augnet[viewer]'"
            )


def features(maps: np.ndarray) -> np.ndarray:
    """(n, block) float32, whose Euclidean distances are Hellinger's; NaN for a map that is zero or not known.

    Args:
        maps: (n, height, width), not negative.
    """
    means = shrunk(maps[..., None], SIDE)
    blocks = means.reshape(len(maps), means.shape[1] * means.shape[2])
    total = blocks.sum(axis=1, keepdims=True)
    share = np.divide(blocks, total, out=np.full(blocks.shape, np.nan), where=total > 0)
    return np.sqrt(share).astype(np.float32)


def project(points: np.ndarray, predicted: np.ndarray) -> Projection:
    """Places of n images in the plane; the same on every call.

    Args:
        points: (n, k), without NaN.
        predicted: (n,) integers, the predicted class of each.
    """
    method = "PCA" if len(points) < FEWEST else "UMAP"
    places = (_principal if method == "PCA" else _embedded)(points)
    clusters = np.zeros(len(points), np.int32)
    for number in np.unique(predicted):
        clusters[predicted == number] = _clusters(places[predicted == number])
    return Projection(places, clusters, method)


def _embedded(points: np.ndarray) -> np.ndarray:
    """(n, 2) float32, by UMAP."""
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that equal maps are islands
        found = UMAP(n_neighbors=NEIGHBOURS, random_state=0, n_jobs=1).fit_transform(points)
    return found.astype(np.float32)


def _principal(points: np.ndarray) -> np.ndarray:
    """(n, 2) float32, the first two principal components, zero where there are no more."""
    from sklearn.decomposition import PCA

    found = np.zeros((len(points), 2), np.float32)
    if len(points) > 1 and np.ptp(points, axis=0).any():
        components = min(2, *points.shape)
        found[:, :components] = PCA(components, svd_solver="full").fit_transform(points)
    return found


def _clusters(places: np.ndarray) -> np.ndarray:
    """(n,) int32, dense groups by HDBSCAN, the largest first; 0 for none, and where all are one group."""
    from sklearn.cluster import HDBSCAN

    least = max(CLUSTER_IMAGES, round(CLUSTER_SHARE * len(places)))
    if len(places) < 2 * least:
        return np.zeros(len(places), np.int32)
    found = HDBSCAN(min_cluster_size=least, copy=True).fit_predict(places)
    sizes = np.bincount(found + 1)[1:]  # without those in none
    rank = np.zeros(1 + len(sizes), np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, 1 + len(sizes))
    return rank[found + 1]
