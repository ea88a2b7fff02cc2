"""A program for a fixed number of images, run on any number of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.types import Tensors
from augnet.errors import AuditError

log = logging.getLogger(__name__)


class BatchedProgram:
    """A compiled program and the batch that it is compiled for.

    A smaller batch is padded by repeating its last image. Where memory runs out, the batch is halved and the
    program compiled again.

    Args:
        build: batch size -> a program of the arrays, of an int32 scalar, how many images are no padding, and
            of what else every batch gets.
        dtypes: of the arrays.
        shared_dtypes: of what every batch gets.
        batch_size: to begin with.

    Attributes:
        batch_size: images per run of the program; smaller once memory has run out.
    """

    def __init__(
        self,
        build: Callable[[int], backend.Program],
        dtypes: Sequence[str],
        batch_size: int,
        shared_dtypes: Sequence[str] = (),
    ):
        self._build, self._dtypes = build, (*dtypes, "int32", *shared_dtypes)
        self._program: backend.Program | None = None
        self._compiled_for = 0
        self.batch_size = batch_size

    def compile(self) -> backend.Program:
        """The program for the batch of the moment; compiled when that is new."""
        if self._program is None or self._compiled_for != self.batch_size:
            self._program, self._compiled_for = self._build(self.batch_size), self.batch_size
        return self._program

    def __call__(self, arrays: Sequence[Any], *shared: Any) -> Iterator[tuple[Tensors, int]]:
        """The program's results on the device, batch by batch, each with how many images are in it.

        Args:
            arrays: each (n, ...), n at least 1.
            shared: what every batch gets as it is.

        Raises:
            AuditError: not even one image fits in memory.
        """
        done, count = 0, len(arrays[0])
        while done < count:
            size = min(self.batch_size, count - done)
            batch = [padded(array[done : done + size], self.batch_size) for array in arrays]
            try:
                results = backend.run(self.compile(), [*batch, np.int32(size), *shared], self._dtypes)
            except backend.OutOfMemory as error:
                self._halve(error)
                continue
            yield results, size
            done += size

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise AuditError(
                f"engine: one image does not fit in memory on the {backend.device_kind()} "
                f"({str(error)[:200]}); choose fewer rows (`outputs`), a smaller size, or a "
                "device with more memory"
            ) from error
        self.batch_size = math.ceil(self.batch_size / 2)
        log.warning("engine: out of memory, going on with %d images per batch", self.batch_size)


def padded(array: Any, size: int) -> Any:
    """`array` (n, ...) with its last entry repeated up to `size`; of an empty one, zeros."""
    if len(array) == size:
        return array
    array = np.asarray(array)
    last = array[-1:] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(last, size - len(array), axis=0)])
