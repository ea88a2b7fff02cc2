"""All that is measured of one batch's rows: on the device as part of its program, and then on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batch import JacobianBatch, view_pool
from augnet.engine.measures import on_device
from augnet.engine.measures.frequency import ring_shares
from augnet.engine.measures.gram import noise, products
from augnet.engine.measures.moments import densify
from augnet.engine.model_spec import ModelSpec
from augnet.engine.options import EngineOptions, RowLayout
from augnet.engine.rows import product
from augnet.engine.selection import ALL, position, taken
from augnet.engine.types import Tensor, Tensors


@dataclass(frozen=True)
class BatchMeasures:
    """What is measured of the rows of a model by these options.

    Attributes:
        map_pool: maps are gathered over blocks of map_pool x map_pool pixels.
    """

    spec: ModelSpec
    options: EngineOptions
    layout: RowLayout

    @property
    def map_pool(self) -> int:
        """Side in pixels of the blocks that maps are gathered over; not larger than the image."""
        return min(self.options.map_pool, max(self.spec.input_shape[:2]))

    @property
    def separate(self) -> bool:
        """Whether each output decides by its own sign: those of a final sigmoid, or a single one."""
        return self.spec.activation == "sigmoid" or self.spec.output_count == 1

    @property
    def exact(self) -> bool:
        """Whether G is of float64 products alone: rows are, or float32 products would be coarse."""
        return self.options.precision in ("float64", "tf32")

    def on_device(
        self,
        images: Tensor,
        scores: Tensor,
        selected: Tensor,
        factors: tuple[Tensor, ...],
        labels: Tensor,
        targets: Tensor,
        draws: Tensor,
        counts: Tensor,
    ) -> dict[str, Tensors]:
        """The measures of one batch, for tensors, as part of its program.

        Args:
            images: (batch, height, width, channel), in the model's own input space.
            scores: (batch, K).
            selected: (batch, R) int32, the output of each row; -1 where there is none.
            factors: the rows (batch, R + M, inputs), those of the sketch behind those of outputs, or two
                factors of them, (batch, R + M, width) and (batch, width, inputs).
            labels: (batch,) int32, whose maps an image counts for; -1 for none.
            targets: (batch,) int32, the right output; -1 where it is not known.
            draws: (batch,) int32, not negative, by which the one row is drawn that is measured beside i.
            counts: (batch,) bool, false for padding.
        """
        spec, options, nan = self.spec, self.options, math.nan
        batch, row_count = images.shape[0], self.layout.row_count
        *left, right = factors
        if options.input_scale is not None:
            scale = ops.convert_to_tensor(np.asarray(options.input_scale, float), dtype=right.dtype)
            pixels = ops.reshape(right, (*right.shape[:2], *spec.input_shape))
            right = ops.reshape(pixels * scale, right.shape)
        rows = product((*left, right))
        rows, mixed = rows[:, :row_count], rows[:, row_count:]
        if options.outputs.kind == "label":
            rows = ops.where(selected[:, :, None] < 0, nan, rows)
        predicted = ops.cast(ops.argmax(scores, axis=-1), "int32")
        place, found = position(selected, predicted[:, None])
        place, found = place[:, 0], found[:, 0]
        parts = (left[0][:, :row_count], right) if left else ()
        gram, l1 = products(rows, None if self.separate else place, self.exact, parts)
        rows = ops.reshape(rows, (batch, row_count, *spec.input_shape))
        flat = ops.reshape(rows, (batch * row_count, *spec.input_shape))
        own = taken(flat, place)
        measures: dict[str, Tensors] = {
            "scores": scores,
            "selected": selected,
            "gram": gram,
            "l1": l1 if self.separate else ops.where(found[:, None], l1, nan),
        }
        measures |= _frequencies(own, flat, gram, place, ops.mod(draws, row_count), selected)
        measures |= self._of_predicted(images, scores, selected, own, flat, gram, place, found)
        finite = ops.isfinite(ops.diagonal(gram, axis1=1, axis2=2))
        gathered = ops.logical_and(counts[:, None], finite)
        if options.outputs.fixed:
            weights = ops.cast(gathered, rows.dtype)
            measures["moments"] = on_device.moments_over_batch(rows, weights, finite, self.map_pool)
        else:
            group = ops.reshape(ops.where(gathered, selected, -1), (-1,))
            measures["moments"] = on_device.moments_by_group(flat, group, spec.output_count, self.map_pool)
        if options.label_count:
            own_gathered = taken(ops.reshape(gathered, (-1,)), place)
            group = ops.where(ops.logical_and(own_gathered, found), labels, -1)
            measures["label_group"] = group
            measures["label_moments"] = on_device.moments_by_group(
                own, group, options.label_count, self.map_pool
            )
        if options.attributions == "lead":
            lead = self._lead(flat, own, selected, scores, predicted)
            measures["attributions"] = ops.where(
                found[:, None, None, None], on_device.attributions(lead[:, None], images), nan
            )
        elif options.attributions == "each":
            measures["attributions"] = on_device.attributions(rows, images)
        if options.sketch:
            measures["sketch_gram"], measures["sketch_l1"] = products(mixed, None, self.exact)
        if options.stored is not None:
            measures["rows"], measures["stored"] = self._stored(flat, selected, scores, targets)
        return measures

    def _of_predicted(
        self,
        images: Tensor,
        scores: Tensor,
        selected: Tensor,
        own: Tensor,
        flat: Tensor,
        gram: Tensor,
        place: Tensor,
        found: Tensor,
    ) -> dict[str, Tensor]:
        """What is measured of the predicted rows (batch, ...) and their nearest rivals', of `flat`."""
        chosen = backend.elements_at(scores, ops.maximum(selected, 0))
        rival, met = on_device.nearest_rival(gram, chosen, place)
        met = ops.logical_and(met, found)
        other = taken(flat, rival)
        pool = view_pool(*self.spec.input_shape[:2])
        magnitude, dot, maps = backend.fused(partial(on_device.of_two_rows, pool=pool))(own, other, images)
        known = ops.stack([found, met, found, met, met], axis=1)
        return {
            "magnitude": ops.where(found[:, None, None], magnitude, math.nan),
            "dot": ops.where(found, dot, math.nan),
            "rival": ops.where(met, backend.elements_at(selected, rival[:, None])[:, 0], -1),
            "views": ops.where(known[:, :, None, None], maps, math.nan),
        }

    def _lead(self, flat: Tensor, own: Tensor, selected: Tensor, scores: Tensor, predicted: Tensor) -> Tensor:
        """The predicted row less that of the best other output with one, (batch, height, width, channel)."""
        if selected.shape[1] == 1:
            return own
        reached = backend.elements_at(scores, ops.maximum(selected, 0))
        reached = ops.where(ops.equal(selected, predicted[:, None]), -math.inf, reached)
        rival = ops.cast(ops.argmax(reached, axis=1), "int32")
        return own - taken(flat, rival)

    def _stored(
        self, flat: Tensor, selected: Tensor, scores: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rows to hand back (batch, S, height, width, channel), and the output (batch, S) of each."""
        options, wanted = self.options, self.options.stored
        if wanted is None or wanted in (ALL, options.outputs):
            stored, rows = selected, flat
        else:
            stored = wanted.select(scores, targets)
            places, found = position(selected, stored)
            rows = taken(flat, places)
            if wanted.kind == "label":
                rows = ops.where(found[:, :, None, None, None], rows, math.nan)
        rows = on_device.stored_rows(rows, options.store_channels, options.store_pool, options.store_dtype)
        return ops.reshape(rows, (selected.shape[0], *self.layout.stored_shape)), stored

    def on_host(self, measures: dict[str, Any], count: int) -> JacobianBatch:
        """What `on_device` returned, as arrays, without the padding behind the first `count` images."""
        spec, labels = self.spec, self.options.label_count
        scores = measures["scores"][:count].astype(np.float64)
        selected, gram = measures["selected"][:count], measures["gram"][:count]
        finite = np.isfinite(np.diagonal(gram, axis1=1, axis2=2))
        if self.options.outputs.fixed:
            outputs = np.asarray(self.options.outputs.numbers(spec.output_count))
            groups = [(outputs, finite.sum(axis=0), measures["moments"])]
        else:
            known = selected[(selected >= 0) & finite]
            counted = np.bincount(known, minlength=spec.output_count)
            groups = [(np.arange(spec.output_count), counted, measures["moments"])]
        if labels:
            known = measures["label_group"][:count]
            counted = np.bincount(known[known >= 0], minlength=labels)
            groups.append((spec.output_count + np.arange(labels), counted, measures["label_moments"]))
        return JacobianBatch(
            outputs=scores,
            probabilities=probabilities(scores, spec.activation, spec.space),
            selected=selected,
            gram=gram,
            gram_noise=noise(self.layout.row_count, math.prod(spec.input_shape), self.exact),
            boundary_l1=measures["l1"][:count],
            magnitude=measures["magnitude"][:count],
            input_dot=measures["dot"][:count],
            rings=measures["rings"][:count].astype(np.float64),
            drawn=measures["drawn"][:count],
            stored=measures["stored"][:count] if "stored" in measures else np.zeros((count, 0), np.int32),
            rows=measures["rows"][:count] if "rows" in measures else None,
            rival=measures["rival"][:count],
            views=measures["views"][:count],
            attributions=measures["attributions"][:count] if "attributions" in measures else None,
            moments=densify(groups, spec.output_count + labels),
            sketch_gram=measures["sketch_gram"][:count] if "sketch_gram" in measures else None,
            sketch_l1=measures["sketch_l1"][:count] if "sketch_l1" in measures else None,
        )


def _frequencies(
    own: Tensor, flat: Tensor, gram: Tensor, place: Tensor, other: Tensor, selected: Tensor
) -> dict[str, Tensor]:
    """Energy by spatial frequency of two rows of each image: transforms of all would cost as much as G.

    Args:
        own: (batch, height, width, channel), the predicted rows.
        flat: (batch * R, height, width, channel), all rows.
        place, other: (batch,) int32, positions of the two rows.
        selected: (batch, R) int32.
    """
    drawn = taken(flat, other)
    both = ops.stack([place, other], axis=1)
    squared = backend.elements_at(ops.diagonal(gram, axis1=1, axis2=2), both)
    return {
        "rings": ring_shares(ops.stack([own, drawn], axis=1), squared),
        "drawn": backend.elements_at(selected, other[:, None])[:, 0],
    }


def probabilities(scores: np.ndarray, activation: str | None, space: str) -> np.ndarray | None:
    """Probabilities (n, K) float64 of scores (n, K); None for a model without a final softmax or sigmoid."""
    if activation is None:
        return None
    if space == "model":
        return scores
    if activation == "softmax":
        shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)
    return np.exp(-np.logaddexp(0, -scores))
