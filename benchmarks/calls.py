"""What a person waits for who types `AugNet.from_model(model).jacobian(x)`, against both compiled tapes.

    python -m benchmarks.calls [--models NAME ...] [--seconds 60] [--write]

First and second calls are taken in processes of their own, so that none profits from another's work; they
hold building the program and compiling it, not building the model. Later calls take turns in one process:
AugNet as it has become after so many seconds of calls, `batch_jacobian` and K gradients, each in a
tf.function, and the engine's bare rows. Ratios: the better tape's time over AugNet's, and over the engine's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from augnet import AugNet
from augnet.engine import Engine, inspect_model
from benchmarks.engine import tapes
from benchmarks.engine_panel import PANEL, build, noise
from benchmarks.results import write_section

MODELS = {
    "tutorial256": 4,
    "small CNN 64x64": 32,
    "MobileNetV2": 8,
    "ResNet50": 2,
    "DenseNet121": 2,
    "Xception": 2,
    "MobileNetV3Small": 8,
    "ConvNeXtTiny": 1,
    "ViT 96x96": 8,
}
"""Name -> images of a call."""
WAYS = ("AugNet", "batch_jacobian", "K gradients")
ROUNDS = 7


def way(name: str, model, x: np.ndarray):
    """A function without arguments that computes the Jacobian; what it needs is made at its first call."""
    if name == "AugNet":
        augnet = AugNet.from_model(model)
        return lambda: augnet.return_jacobian(x)
    program = tf.function(tapes(model)[name], autograph=False)
    return lambda: program(tf.constant(x))


def seconds(call) -> float:
    start = time.perf_counter()
    found = call()
    found[(0,) * found.shape.rank].numpy()
    return time.perf_counter() - start


def first_calls(name: str, batch: int, kind: str) -> list[float]:
    """Seconds of the first and the second call, in a new process; NaN where it fails.

    Without oneDNN, TensorFlow does not vectorize grouped convolutions, and `batch_jacobian` raises.
    """
    child = [
        sys.executable,
        "-m",
        "benchmarks.calls",
        "--child",
        kind,
        "--models",
        name,
        "--batch",
        str(batch),
    ]
    done = subprocess.run(child, capture_output=True, text=True)
    return [math.nan] * 2 if done.returncode else json.loads(done.stdout.splitlines()[-1])


def later_calls(name: str, batch: int, warm_seconds: float, ways: Iterable[str]) -> dict[str, float]:
    """Median seconds of a call by way, after AugNet has been called for so long; all ways in turns."""
    model = build(name)
    x = noise(model, batch)
    calls = {kind: way(kind, model, x) for kind in ways}
    began = time.monotonic()
    while time.monotonic() - began < warm_seconds:
        seconds(calls["AugNet"])
    engine = Engine(inspect_model(model))
    engine.batch_size = batch
    program = engine.jacobian_program()
    inputs = tf.constant(x.reshape(batch, *engine.spec.input_shape))
    calls["engine rows"] = lambda: program(inputs)
    times: dict[str, list[float]] = {kind: [] for kind in calls}
    for turn in range(ROUNDS + 1):
        for kind, call in calls.items():
            taken = seconds(call)
            times[kind] += [taken] if turn else []
    return {kind: statistics.median(taken) for kind, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(PANEL))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--child", choices=WAYS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args([] if sys.argv[0].endswith("benchmarks/__main__.py") else None)
    if given.child:
        model = build(given.models[0])
        call = way(given.child, model, noise(model, given.batch))
        print(json.dumps([seconds(call), seconds(call)]))
        return
    lines = [
        "What a call of `AugNet` takes (`python -m benchmarks.calls`), against both compiled tapes: seconds;",
        "the first and second calls in processes of their own, the later ones in turns.",
        "",
        "| model, images | first: AugNet | batch_jacobian | K gradients | second: AugNet | better tape | "
        "later: AugNet | better tape | ratio | engine's ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in given.models:
        batch = given.batch or MODELS.get(name, 4)
        early = {kind: first_calls(name, batch, kind) for kind in WAYS}
        late = later_calls(
            name, batch, given.seconds, [kind for kind in WAYS if not math.isnan(early[kind][0])]
        )
        tape = min(late[kind] for kind in WAYS[1:] if kind in late)
        second = np.nanmin([early[kind][1] for kind in WAYS[1:]])
        lines.append(
            f"| {name}, {batch} | {early['AugNet'][0]:.1f} | {early['batch_jacobian'][0]:.1f} | "
            f"{early['K gradients'][0]:.1f} | {early['AugNet'][1]:.3f} | {second:.3f} | "
            f"{late['AugNet']:.3f} | {tape:.3f} | {tape / late['AugNet']:.2f} | "
            f"{tape / late['engine rows']:.2f} |"
        )
        print(lines[-1], flush=True)
    if given.write:
        write_section("Calls of AugNet", lines)


if __name__ == "__main__":
    main()
