"""What an audit would do, before it does it: images, bytes, time, and whether it may start at all."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from augnet.audits.plan import earlier_run, prepare
from augnet.audits.run import Run
from augnet.audits.sample import Sample, take_sample
from augnet.audits.sizing import refuse_oversize, stored_bytes
from augnet.config import Config
from augnet.errors import AugnetError
from augnet.storage.files import OutputFolder, private_file


@dataclass(frozen=True)
class Forecast:
    """What `augnet audit` would do with a config.

    Attributes:
        run: as the audit would describe itself.
        sample: what some of its images took.
        stored_bytes: of the Jacobians, before compression.
        refusals: why the audit would not start; empty if it would.
    """

    run: Run
    sample: Sample
    stored_bytes: int
    refusals: tuple[str, ...]

    @property
    def disk_bytes(self) -> float | None:
        """Of the Jacobians' shards; None where no image of the sample can be read."""
        return None if self.sample.disk_bytes is None else self.sample.disk_bytes * self.run.images

    @property
    def seconds(self) -> float | None:
        """Of all images in one process; None where no image of the sample can be read."""
        return None if self.sample.seconds is None else self.sample.seconds * self.run.images


def forecast(config: Config) -> Forecast:
    """Plan an audit, try a sample of its images, and write nothing that stays.

    Raises:
        ConfigError: config, model and images do not fit together, so that there is nothing to foresee.
    """
    with private_file(tempfile.gettempdir()) as table:
        planned = prepare(config, table)
        run, refusals = planned.run, []
        sample = take_sample(run, planned.model, planned.source, table)
        for rule in (
            lambda: refuse_oversize(config, run.model, run.images, lambda: sample.disk_bytes),
            lambda: earlier_run(OutputFolder(config.output), run),
        ):
            try:
                rule()
            except AugnetError as error:
                refusals.append(str(error))
    return Forecast(
        run=run,
        sample=sample,
        stored_bytes=run.images * stored_bytes(config, run.model),
        refusals=tuple(refusals),
    )
