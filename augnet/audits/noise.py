"""Noisy copies of images, predicted: for what survival is foretold with, and for trials of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from augnet.audits.engine_setup import engine_errors_by_key
from augnet.engine import Engine, JacobianBatch
from augnet.statistics.decision import Task
from augnet.statistics.gallery import draw
from augnet.statistics.reliability import PASSES, reliability_sums, same_prediction
from augnet.storage.catalog import noise_column

IMAGES = 64
"""Of an audit, on which survival is tried: about so many."""


def noisy_outputs(engine: Engine, images: np.ndarray, noise: Sequence[float], copies: int) -> np.ndarray:
    """Outputs (n, sigma, copies, K) of noisy copies of images (n, height, width, channel).

    The noise is drawn by the image's own values, so that it is the same in whatever batch the image comes.
    That of the second half of the copies is that of the first with its sign changed.

    Args:
        noise: standard deviations, in the units of the engine's input space.
        copies: of each image, for each sigma; an even number.

    Raises:
        AuditError: not even one image fits in memory.
    """
    found, step = [], max(1, engine.batch_size // copies)
    for start in range(0, len(images), step):
        part = images[start : start + step]
        draws = np.stack([_draws(engine, image, copies // 2, "copies") for image in part])
        found.append(_outputs(engine, part, np.concatenate([draws, -draws], axis=1), noise))
    return np.concatenate(found)


def _draws(engine: Engine, image: np.ndarray, count: int, purpose: str) -> np.ndarray:
    """(count, height, width, channel) noise of standard deviation 1 in the input space, for one image."""
    digest = hashlib.blake2b(image.tobytes(), key=purpose.encode(), digest_size=8).digest()
    draws = np.random.default_rng(int.from_bytes(digest)).standard_normal((count, *image.shape), np.float32)
    if engine.options.input_scale is not None:
        draws *= np.asarray(engine.options.input_scale, np.float32)
    return draws


def _outputs(engine: Engine, images: np.ndarray, draws: np.ndarray, noise: Sequence[float]) -> np.ndarray:
    """(n, sigma, copies, K) of images (n, ...) under draws (n, copies, ...), one sigma after the other."""
    found = []
    for sigma in noise:
        copies = images[:, None] + np.float32(sigma) * draws
        with engine_errors_by_key():
            outputs = engine.outputs(copies.reshape(-1, *images.shape[1:]))
        found.append(outputs.reshape(*draws.shape[:2], -1))
    return np.stack(found, axis=1)


@dataclass(frozen=True)
class NoisyTrials:
    """Trials of what `survival` says, on images of an audit that their names choose.

    Attributes:
        noise: the standard deviations, in the units of the audit's input space.
        images: of the audit.
    """

    engine: Engine
    task: Task
    noise: Sequence[float]
    images: int

    def reliability(
        self,
        batch: JacobianBatch,
        statistics: Mapping[str, pa.Array],
        images: np.ndarray,
        image_ids: Sequence[str],
    ) -> np.ndarray:
        """`reliability_sums` of those of a batch of n images that are chosen.

        Args:
            batch, statistics: as measured, and its columns from `image_statistics`.
            images: (n, height, width, channel), the model inputs.
            image_ids: n ids.

        Raises:
            AuditError: not even one image fits in memory.
        """
        foretold = np.full((len(images), len(self.noise)), np.nan)
        for k, sigma in enumerate(self.noise):
            foretold[:, k] = statistics[noise_column("survival", sigma)].to_numpy(zero_copy_only=False)
        known = np.flatnonzero(~np.isnan(foretold).all(axis=1)).tolist()
        chosen = [k for k in known if draw(image_ids[k]) * self.images < IMAGES]
        seen = np.full((len(chosen), len(self.noise)), np.nan)
        logits = self.engine.spec.gives_logits
        for place, k in enumerate(chosen):
            draws = _draws(self.engine, images[k], PASSES, "trials")
            outputs = _outputs(self.engine, images[k : k + 1], draws[None], self.noise)[0]
            same = [same_prediction(part, batch.outputs[k], self.task, logits) for part in outputs]
            seen[place] = np.mean(same, axis=1)
        return reliability_sums(foretold[chosen], seen)
