"""`augnet.audit`: what the command does, in this process and without Beam, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from augnet.audits.preflight import mistakes_in, refuse_other_audit
from augnet.config import Config, load_config
from augnet.errors import ConfigError
from augnet.jobs.opened import OpenedAudit, open_audit
from augnet.jobs.progress import Progress, ProgressLine
from augnet.sources import Source
from augnet.sources.memory import MemorySource
from augnet.storage import names

if TYPE_CHECKING:
    import keras

GO_ON = "interrupted; the same call goes on from the finished units"


def audit(
    model: keras.Model | str | os.PathLike[str] | Mapping[str, Any],
    images: Any,
    output: str | os.PathLike[str],
    *,
    fresh: bool = False,
    progress: bool | Progress = True,
    **keys: Any,
) -> OpenedAudit:
    """Audit a model over a dataset, and open the result.

    The files are those of `augnet audit` with the same keys, byte for byte, whether the model is handed over
    or loaded; only the report says which. The same call again goes on from the units that are finished.

    Args:
        model: a Keras model, or the path or address of one. With more keys of its section:
            {"path": model, "space": "model"}.
        images: a path or address of a dataset; an array (image, height, width[, channel]); or (array,
            labels). Values of uint8 and uint16 are levels, as in image files; floats are what the model is
            fed. With more keys of its section: {"path": images, "limit": 1000}.
        output: folder to write.
        fresh: replace the audit that the folder holds.
        progress: whether to show how far it is, on standard error; or what to tell it instead: a step, the
            images done, and of how many.
        keys: sections as in a config file, jacobian={"outputs": "top:5"}, or single keys,
            **{"jacobian.outputs": "top:5"}.

    Returns:
        The audit; the images that could not be audited are in its `failures`.

    Raises:
        ConfigError: what does not fit, before any work; one line for each mistake.
        AuditError: more images failed than failures.max_fraction allows (the results are written), or a file
            cannot be written.
        KeyboardInterrupt: it was interrupted; what is finished is kept.
    """
    model_section, own_model = _by_path(model, f"{getattr(model, 'name', 'model')} {names.IN_MEMORY}")
    image_section, own_images = _by_path(images, f"arrays {names.IN_MEMORY}")
    if "beam" in keys:
        raise ConfigError("beam: there is no Beam here; leave the section out, or use the augnet command")
    handed_over = {"model": own_model is not None, "images": own_images is not None}

    def look(parts: Mapping[str, Any]) -> list[str]:
        return [*mistakes_in({name: part for name, part in parts.items() if not handed_over.get(name)})]

    given = {"model": model_section, "images": image_section, "output": os.fspath(output)}
    config = load_config(flags=given | keys, look=look)
    if not fresh:
        refuse_other_audit(config)
    source = None if own_images is None else _memory_source(config, own_images)
    line = ProgressLine() if progress is True else None
    tell = progress if callable(progress) else line or _tell_nobody
    try:
        _run(config, fresh, own_model, source, tell)
    except KeyboardInterrupt:
        if line:
            line.end(GO_ON)
        raise KeyboardInterrupt(GO_ON) from None
    found = open_audit(config.output)
    if line:
        audited, failed = found.counts["audited"], found.counts["failed"]
        line.end(f"{audited} images audited, {failed} failed; report: {found.folder.path(names.REPORT)}")
    from augnet.audits.finalize import refuse_failures

    refuse_failures(config.output, config.failures.max_fraction)
    return found


def _run(
    config: Config, fresh: bool, model: keras.Model | None, source: Source | None, tell: Progress
) -> None:
    """Plan, audit one unit after another, and finish."""
    # Here, because TensorFlow comes with them, and mistakes are told before.
    from augnet.audits.engine_setup import engine_errors_by_key
    from augnet.audits.plan import plan
    from augnet.audits.records import WorkUnit
    from augnet.audits.unit import Auditor
    from augnet.audits.worker import handing_on
    from augnet.engine.graph.precision import refuse_missing
    from augnet.jobs.finish import finish

    with engine_errors_by_key():
        refuse_missing(config.jacobian.precision)
    planned = plan(config, fresh, model, source)
    run, done, in_unit = planned.run, 0, 0

    def count(name: str, amount: int) -> None:
        nonlocal in_unit
        if name in ("images_audited", "images_failed"):
            in_unit += amount
            tell("auditing", done + in_unit, run.images)

    with handing_on(run, planned.model, source):
        auditor = Auditor.open(config.output)
        for unit in range(run.units):
            in_unit = 0
            done += auditor.audit(WorkUnit(unit, run.units), count).planned
        tell("summing up", done, run.images)
        finish(auditor)


def _tell_nobody(step: str, done: int, total: int) -> None:
    pass


def _by_path(given: Any, stand_in: str) -> tuple[dict[str, Any], Any]:
    """A section of the configuration; and what was handed over in the place of its path, None for a path."""
    section = dict(given) if isinstance(given, Mapping) else {"path": given}
    path = section.get("path")
    if path is None or isinstance(path, str | os.PathLike):
        return section | ({} if path is None else {"path": os.fspath(path)}), None
    return section | {"path": stand_in}, path


def _memory_source(config: Config, given: Any) -> MemorySource:
    images, labels = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    return MemorySource(config.images, images, labels)
