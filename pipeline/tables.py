"""What a command found, as a table on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from augnet.audits.forecast import Forecast
    from augnet.audits.status import Status
    from augnet.engine import Choice
    from augnet.engine.verification.checks import Check


def show(title: str, rows: Mapping[str, str]) -> None:
    """Print the rows that have something to say under their names."""
    rows = {name: text for name, text in rows.items() if text}
    console = Console()
    if console.is_terminal:
        table = Table(title=title, show_header=False, title_justify="left")
        for name, text in rows.items():
            table.add_row(name, text, style=None)
        console.print(table, markup=False)
        return
    print(title)
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        print(f"  {name:{width}}  {text}")


def status_rows(status: Status) -> dict[str, str]:
    """What `augnet status` shows."""
    missing = ", ".join(map(str, status.missing)) + (
        ", ..." if status.units - status.units_done > len(status.missing) else ""
    )
    state = "the end: summary and report" if status.units_done == status.units else f"units {missing}"
    rate, rest = status.images_per_second, status.remaining_seconds
    return {
        "state": "finished" if status.finished else "not finished",
        "units": f"{status.units_done} of {status.units}",
        "images": f"{status.images_done} of {status.images}",
        "failed": f"{status.failed}" + "".join(f"; {reason}" for reason in status.reasons),
        "rate": f"{rate:.1f} images per second" if rate else "",
        "remaining": readable_seconds(rest) if rest and not status.finished else "",
        "last unit": f"{readable_seconds(status.idle_seconds)} ago"
        if status.idle_seconds is not None
        else "",
        "missing": "" if status.finished else state,
    }


def check_rows(checks: Sequence[Check]) -> dict[str, str]:
    """What `augnet verify` shows."""
    return {check.name: _check_row(check) for check in checks}


def _check_row(check: Check) -> str:
    if not check.judged:
        reason = check.reason or f"a kink, or rounding, at every one of {check.images}"
        return f"not checked: {reason}"
    state = "passed" if check.passed else "FAILED"
    kinks = f"; {check.kinks} at a kink left out" if check.kinks else ""
    bound = f"largest error {check.error:.1e} of {check.tolerance:.0e} allowed"
    return f"{state}: {bound}, over {check.judged}{kinks}"


def forecast_rows(found: Forecast) -> dict[str, str]:
    """What `augnet plan` shows."""
    from augnet.audits.sizing import readable_bytes  # with it comes TensorFlow

    run, sample = found.run, found.sample
    memory = sample.choice.report.get("memory_bytes")
    failing = f"{sample.failing} of {sample.images} sampled images would fail"
    disk = f"{readable_bytes(found.stored_bytes)} of Jacobians before compression"
    if found.disk_bytes is not None:
        disk = f"about {readable_bytes(found.disk_bytes)} of Jacobians; {disk.replace(' of Jacobians', '')}"
    return {
        "images": f"{run.images}",
        "units": f"{run.units} of up to {-(-run.images // run.units)} images",
        "rows": f"computed: {run.config.jacobian.outputs}; stored: {run.config.store.jacobians or 'none'}",
        "sketch": _sketch(found),
        "disk": disk,
        "scale": str(run.preprocess["reason"]),
        "labels": f"{len(run.labels)}; {run.label_rule}",
        "batch": f"{sample.batch_size} images" + (f", {readable_bytes(memory)}" if memory else ""),
        **engine_rows(sample.choice, run.config.jacobian.precision),
        "time": f"about {readable_seconds(found.seconds)} in one process" if found.seconds else "",
        "findings": _findings_time(found),
        "failures": failing if sample.failing else "",
        "refused": "\n".join(found.refusals),
    }


def _sketch(found: Forecast) -> str:
    """What is estimated beside the rows; nothing where that is not asked for."""
    jacobian, outputs = found.run.config.jacobian, found.run.model.output_count
    if jacobian.sketch is None:
        return ""
    rows = jacobian.outputs.count(outputs) + jacobian.sketch
    return f"{jacobian.sketch} combinations of all {outputs} outputs; {rows} rows in place of {outputs}"


def _findings_time(found: Forecast) -> str:
    """How long it takes to try what is leaned on; nothing where that is not sought, or not known."""
    from augnet.findings.design import expected_passes

    if not found.sample.forward_seconds:
        return ""
    passes, allowed = expected_passes(found.run), found.run.config.findings.seconds
    seconds = readable_seconds(min(passes * found.sample.forward_seconds, allowed))
    return f"about {seconds} more, for {passes} forward passes, of {readable_seconds(allowed)} allowed"


def engine_rows(choice: Choice, precision: str) -> dict[str, str]:
    """What the engine chose, and the error measured of it."""
    report = choice.report
    parts = ["derivative rules" if choice.program == "rules" else "a tape over the model"]
    if choice.program == "rules":
        if "passes" in report:  # only where programs were timed
            parts.append(f"{report['passes']} backward passes per image")
        parts.append(f"up to {choice.rows_per_pass} rows at a time")
        if "gain" in report:
            parts.append(f"{report['gain']:.3g} times as fast as a tape")
    if choice.xla:
        parts.append("XLA")
    if "rules" in report:
        parts.append(f"the rules {report['rules']}")
    error = f"{report['error']:.1e} from the model in {report['error_against']}" if "error" in report else ""
    return {"engine": "; ".join(parts), "accuracy": "; ".join(filter(None, (precision, error)))}


def readable_seconds(seconds: float) -> str:
    """'3 min 20 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return time.strftime("%-M min %-S s", time.gmtime(seconds))
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
