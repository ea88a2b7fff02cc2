"""The description of an audit that every worker reads: `run.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from augnet.config import Config, config_json
from augnet.engine import ModelSpec
from augnet.errors import AuditError
from augnet.redact import without_secrets
from augnet.statistics.decision import Task, task_of
from augnet.storage import names
from augnet.storage.catalog import Statistic, catalog
from augnet.storage.files import OutputFolder

MAPPED_LABELS = 1000
"""Above this many labels there are no maps per label."""


@dataclass(frozen=True)
class Run:
    """All that a worker must know of an audit; `run.json` holds it.

    Attributes:
        fingerprint: sha256 of `identity`; two audits with the same one give the same files.
        identity: model, config, plan and code, each of which decides about the result.
        preprocess: the resolved size, colour and scale, and why the scale was chosen.
        images, units: how many.
        labels: every label, sorted.
        label_images: planned images with each of them.
        label_outputs: the model output that each label names; empty where labels and outputs do not match.
        label_rule: how that was decided, for a person.
        map_pool: side of the blocks of pixels that the dataset maps are kept over.
        engines: what the engine chose on each kind of device, and the error measured of it; empty until the
            audit has ended. See engine.tuning.Choice.
        times: seconds since the epoch; never part of a result.
        control_of: of a control with random weights, the fingerprint of the trained model, which is
            `identity["model"]` of that one's audits; None of any other audit.
    """

    config: Config
    fingerprint: str
    identity: dict[str, Any]
    model: ModelSpec
    preprocess: dict[str, Any]
    images: int
    units: int
    labels: tuple[str, ...]
    label_images: tuple[int, ...]
    label_outputs: dict[str, int]
    label_rule: str
    map_pool: int
    versions: dict[str, str]
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    control_of: str | None = None

    def write(self, folder: OutputFolder) -> None:
        """Beam's options stay out: they decide nothing of the result, and may hold keys and passwords."""
        config = {key: part for key, part in config_json(self.config).items() if key != "beam"}
        tree = {**asdict(self), "config": config | {"output": without_secrets(self.config.output)}}
        folder.write_sealed(names.RUN, tree)

    @classmethod
    def read(cls, folder: OutputFolder) -> Run:
        """Raises AuditError when run.json is damaged, or of another version."""
        tree = folder.read_sealed(names.RUN)
        try:
            config = Config.model_validate(tree.pop("config"))
            model = ModelSpec.from_json(tree.pop("model"))
            labels, label_images = tuple(tree.pop("labels")), tuple(tree.pop("label_images"))
            return cls(**tree, config=config, model=model, labels=labels, label_images=label_images)
        except (KeyError, TypeError, ValueError):
            raise AuditError(
                f"{folder}: {names.RUN} is of another version of augnet; --fresh makes the audit anew"
            ) from None

    @property
    def task(self) -> Task:
        """What the model's outputs mean."""
        return task_of(self.model.activation, self.model.output_count, bool(self.label_outputs))

    @property
    def catalog(self) -> tuple[Statistic, ...]:
        """The statistics that are measured of each image."""
        return catalog(self.config.statistics.noise, self.config.jacobian.sketch is not None)

    @property
    def attributions(self) -> Literal["lead", "each"] | None:
        """The maps in which findings are sought, see EngineOptions."""
        if not self.config.findings.enabled:
            return None
        return "lead" if self.task in ("multiclass", "binary") else "each"

    @property
    def sampled(self) -> int:
        """Images of each prediction in which findings are sought, at most."""
        return self.config.findings.images if self.config.findings.enabled else 0

    @property
    def mapped_labels(self) -> tuple[str, ...]:
        """The labels that have maps of their own."""
        return self.labels if len(self.labels) <= MAPPED_LABELS else ()

    @property
    def mapped_label_images(self) -> tuple[int, ...]:
        """Planned images with each of `mapped_labels`."""
        return self.label_images[: len(self.mapped_labels)]
