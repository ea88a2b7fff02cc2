"""The command: makes the cases of these seeds, audits them, and prints or writes the tables."""

from __future__ import annotations

import argparse
import gc
import json
import logging
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from benchmarks.findings.audit import audit, baseline_findings, read_findings
from benchmarks.findings.cases import make_case
from benchmarks.findings.scoring import grade, is_control, is_used, score
from benchmarks.findings.spec import CONTROLS, KINDS, Spec
from benchmarks.findings.table import AUDIT, Result, tables
from benchmarks.results import write_section

ABOUT = (
    "small models trained on data drawn in code, with and without a planted shortcut; in none, a fifth or"
    " two fifths of the images with it nothing else tells the class. It is used when adding it to images,"
    " or taking it away, changes at least 30 % of the predictions, of at least 20. Models that guess are "
    "left out. It is named when a confirmed finding has the right class and the right kind, and touches "
    "the place where there is one (stripes in the background are a pattern too); other findings are "
    "false, unless they are true of the same pixels (a fixed patch works anywhere). Thresholds were "
    "chosen on seeds below 3353."
)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.findings", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="folder that keeps models, data and audits")
    parser.add_argument(
        "--seeds", type=_seeds, required=True, help="START:END[:STEP]; rules were chosen on those below 3353"
    )
    parser.add_argument("--kinds", nargs="+", choices=[*CONTROLS, *KINDS], default=[*CONTROLS, *KINDS])
    parser.add_argument("--make-only", action="store_true", help="make the cases, audit none")
    parser.add_argument("--again", action="store_true", help="audit anew what was audited before")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/RESULTS.md")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # such small models gain nothing from more
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Nor from optimised graphs: to optimise them takes longer than it saves.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    logging.disable(logging.WARNING)
    results = []
    for seed in options.seeds:
        if Spec.draw(seed).kind in options.kinds:
            folder = options.cases / str(seed)
            case = make_case(seed, folder)
            print(f"{seed}: {_in_words(case)}", flush=True)
            if not options.make_only and (is_used(case) or is_control(case)):
                results.append(_judge(folder, case, options.again))
            keras.utils.clear_session()
            gc.collect()  # graphs hold themselves
    if results:
        seeds = options.seeds
        command = f"python -m benchmarks.findings --seeds {seeds.start}:{seeds.stop}:{seeds.step}"
        lines = [f"`{command}`: {ABOUT}", "", *tables(results)]
        write_section("Findings", lines) if options.write else print("\n".join(lines))


def _seeds(text: str) -> range:
    return range(*(int(part) for part in text.split(":")))


def _in_words(case: dict[str, Any]) -> str:
    planted = f"{case['kind']} ({case['planted']})" if case["kind"] == "all_classes" else case["kind"]
    return (
        f"{planted}, {case['network']}, {case['data']}, {case['size']} pixels, {case['strength']:.0%}: "
        f"effect {case['effect']:.0%}{', used' if case['used'] else ''}"
    )


def _judge(folder: Path, case: dict[str, Any], again: bool) -> Result:
    done = (folder / "audit" / "findings.json").exists() and not again
    found = read_findings(folder / "audit") if done else audit(folder)
    for finding in found:
        print(f"    {grade(case, finding)}: {json.dumps(finding, default=vars)}", flush=True)
    if case["used"] and not score(case, found).named:
        print("    missed", flush=True)
    findings = {AUDIT: found, **baseline_findings(folder, case)}
    return Result(case, {method: score(case, named) for method, named in findings.items()})


if __name__ == "__main__":
    main()
