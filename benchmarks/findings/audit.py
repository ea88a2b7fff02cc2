"""A case through a real audit, in this process, and through the baselines."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from augnet.audits.finalize import fold
from augnet.audits.plan import plan
from augnet.audits.records import WorkUnit
from augnet.audits.unit import Auditor
from augnet.audits.worker import handing_on
from augnet.config import load_config
from augnet.findings.decide import decide
from augnet.findings.unit import Investigator, design_interventions
from benchmarks.findings.baselines import BASELINES, Audited
from benchmarks.findings.cases import read_images
from benchmarks.findings.scoring import Finding


def audit(folder: Path) -> list[Finding]:
    """The confirmed findings of an audit of the case in `folder`, which keeps it."""
    output = folder / "audit"
    shutil.rmtree(output, ignore_errors=True)
    flags = {
        "model.path": str(folder / "model.keras"),
        "images.path": str(folder / "images"),
        "output": str(output),
        "store.jacobians": "none",
        "preprocess.scale": "unit",
    }
    planned = plan(load_config(flags=flags))
    with handing_on(planned.run, planned.model):
        auditor = Auditor.open(str(output))
    for unit in range(planned.run.units):
        auditor.audit(WorkUnit(unit, planned.run.units))
    trials = list(design_interventions(fold(str(output)), auditor))
    investigator = Investigator(auditor)
    for unit in trials:
        investigator.investigate(unit)
    decide(str(output))
    return read_findings(output)


def read_findings(output: Path) -> list[Finding]:
    """The confirmed findings of a finished audit."""
    confirmed = json.loads((output / "findings.json").read_text())["confirmed"]
    return [Finding.from_json(entry) for entry in confirmed]


def baseline_findings(folder: Path, case: dict[str, Any]) -> dict[str, list[Finding]]:
    """What each baseline names in the case in `folder`; it keeps that."""
    kept = folder / "baselines.json"
    if not kept.exists():
        images = read_images(folder) / np.float32(255)
        model = keras.models.load_model(folder / "model.keras")
        audited = Audited(model, images, np.asarray(model(images)).argmax(axis=1), case["seed"])
        named = {name: [asdict(finding) for finding in rule(audited)] for name, rule in BASELINES.items()}
        kept.write_text(json.dumps(named) + "\n")
    named = json.loads(kept.read_text())
    return {name: [Finding.from_json(entry) for entry in found] for name, found in named.items()}
