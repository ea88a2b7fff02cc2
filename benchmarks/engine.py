"""The engine against everything a user could pick instead, on the same weights and images, in the same run.

    python -m benchmarks.engine [--models NAME ...] [--rounds 5] [--jax PYTHON] [--quick] [--write]

TensorFlow's ways run interleaved in one process, JAX's (where a Python with jax is given) in a second one
right after. Every way is tried at each of the model's batches, and its best counts. Wall and processor time
are both shown: on a machine that does other things too, the latter is the steadier. Efficiency is (1 +
passes) F / T, with F the faster of the model's own forward pass and the rewritten one, passes the narrower of
outputs and cut, T our time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from augnet.engine import Engine, EngineOptions, inspect_model
from augnet.engine.backends.host import free_bytes
from benchmarks.engine_panel import PANEL, build, noise
from benchmarks.results import write_section

JAX_PYTHON = sys.executable if importlib.util.find_spec("jax") else None
UNROLLED = 32
"""Outputs up to which K gradients are written out one after another."""
XLA_LAYERS = 40
"""Layers up to which a peer is tried under XLA: more take minutes to compile, and it never won there."""
PEER_SECONDS = 120
"""A way that takes longer than this for one batch is not timed further."""
JAX_SECONDS = 45
"""What a way of JAX may take in all, compilation included; above it the table says so."""


@dataclass
class Way:
    """One way to compute the Jacobian of a batch."""

    name: str
    batch: int
    program: Callable
    images: object
    first: float = 0.0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rows: np.ndarray | None = None

    def run(self) -> None:
        start, own = time.perf_counter(), time.process_time()
        made = self.program(self.images)
        made[(0,) * made.shape.rank].numpy()
        self.wall.append((time.perf_counter() - start) / self.batch)
        self.cpu.append((time.process_time() - own) / self.batch)
        if self.rows is None:
            self.rows = made[:1].numpy()


def tapes(model) -> dict[str, Callable]:
    def forward(x):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            outputs = model(x, training=False)
            columns = tf.unstack(outputs, axis=1) if outputs.shape[1] <= UNROLLED else []
        return tape, outputs, columns

    def gradients(x):
        tape, _, columns = forward(x)
        return tf.stack([tape.gradient(column, x) for column in columns], axis=1)

    def looped(x):
        tape, outputs, _ = forward(x)
        count = outputs.shape[1]
        rows = tf.TensorArray(tf.float32, size=count, element_shape=x.shape)
        _, rows = tf.while_loop(
            lambda i, _: i < count,
            lambda i, rows: (
                i + 1,
                rows.write(i, tape.gradient(outputs, x, tf.one_hot([i] * x.shape[0], count))),
            ),
            (tf.constant(0), rows),
            parallel_iterations=1,
        )
        return tf.experimental.numpy.swapaxes(rows.stack(), 0, 1)

    def batch_jacobian(x):
        tape, outputs, _ = forward(x)
        return tape.batch_jacobian(outputs, x)

    return {"K gradients": gradients, "K gradients, looped": looped, "batch_jacobian": batch_jacobian}


def ways_of(model, name: str, shape: tuple[int, ...], quick: bool) -> list[Way]:
    made = []
    count = model.output_shape[-1]
    peers = tapes(model)
    # A graph of very many backward passes takes minutes to build; a loop over few of them is slower.
    del peers["K gradients" if count > UNROLLED else "K gradients, looped"]
    for batch in PANEL[name][1][-1:] if quick else PANEL[name][1]:
        images = tf.constant(noise(model, batch))
        for peer, function in peers.items():
            for xla in (False, True):
                if xla and (quick or peer != "batch_jacobian" or len(model.layers) > XLA_LAYERS):
                    continue
                if peer == "batch_jacobian" and 40 * batch * count * np.prod(shape) * 4 > free_bytes():
                    print(
                        f"  {peer} at batch {batch}: left out, it needs more memory than there is", flush=True
                    )
                    continue
                program = tf.function(function, autograph=False, jit_compile=xla or None)
                made.append(Way(peer + (" under XLA" if xla else ""), batch, program, images))
        forward = tf.function(lambda x: model(x, training=False), autograph=False)
        made.append(Way("model(x)", batch, forward, images))
    return made


def bench(name: str, rounds: int, jax_python: str | None, quick: bool) -> dict:
    model = build(name)
    shape = tuple(model.input_shape[1:])
    print(name, flush=True)
    ways = ways_of(model, name, shape, quick)
    for way in list(ways):
        start = time.perf_counter()
        try:
            way.run()
        except (tf.errors.OpError, ValueError) as error:
            print(f"  {way.name} at batch {way.batch}: fails ({str(error)[:80]!r})", flush=True)
            ways.remove(way)
            continue
        way.first = time.perf_counter() - start
    start = time.perf_counter()
    # Maps of a thousand outputs are kept over blocks, as the planner does.
    map_pool = 16 if model.output_shape[-1] > 100 else 1
    engine = Engine(inspect_model(model), EngineOptions(stored=None, map_pool=map_pool))
    program = engine.jacobian_program()
    plain = noise(model, engine.batch_size)
    images = plain.reshape(-1, *engine.spec.input_shape)
    ours = Way("ours", engine.batch_size, program, tf.constant(images))
    ours.run()
    ours.first = time.perf_counter() - start
    engine.measure(images)
    whole = Way("ours, with all measures", engine.batch_size, lambda x: _measured(engine, images), None)
    rewritten = engine.program.rules
    forward = tf.function(rewritten.graph, autograph=False)
    faster = Way("our forward pass", engine.batch_size, forward, tf.constant(plain))
    ways += [ours, whole, faster]
    for way in ways:
        way.wall.clear()
        way.cpu.clear()
    for _ in range(rounds):
        for way in ways:
            if way.first < PEER_SECONDS or way is ours:
                way.run()
    tried, ways = ways, [way for way in ways if way.wall]
    left_out: list[str] = []
    if jax_python:
        ways += by_jax(jax_python, model, name, left_out)
    truth = next(way.rows for way in tried if way.name.startswith("K gradients"))
    errors = {}
    for way in ways:
        if way.rows is not None and way.rows.size == truth.size:
            errors[way.name] = np.linalg.norm(way.rows.ravel() - truth.ravel()) / np.linalg.norm(truth)
    return {
        "name": name,
        "ways": ways,
        "errors": errors,
        "engine": engine,
        "passes": rewritten.passes,
        "left_out": left_out,
    }


def _measured(engine: Engine, images: np.ndarray) -> tf.Tensor:
    return tf.constant(engine.measure(images).input_dot)


def by_jax(python: str, model, name: str, left_out: list[str]) -> list[Way]:
    made = []
    with tempfile.TemporaryDirectory() as folder:
        path, images_path, out = (
            str(Path(folder) / part) for part in ("model.keras", "images.npy", "out.npz")
        )
        model.save(path)
        for batch in PANEL[name][1][:1]:  # its programs take minutes to compile: one batch
            np.save(images_path, noise(model, batch))
            for method in ("jacrev", "vjp"):
                command = [
                    python,
                    str(Path(__file__).with_name("engine_jax.py")),
                    path,
                    images_path,
                    method,
                    out,
                ]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=JAX_SECONDS)
                except subprocess.TimeoutExpired:
                    left_out.append(f"jax {method} (over {JAX_SECONDS} s for a batch of {batch})")
                    continue
                if done.returncode:
                    print(f"  jax {method} at batch {batch}: fails ({done.stderr[-200:]!r})", flush=True)
                    left_out.append(f"jax {method} (fails)")
                    continue
                with np.load(out) as found:
                    way = Way(f"jax {method}", batch, tf.identity, None, float(found["first"]))
                    way.wall, way.cpu = list(found["times"] / batch), list(found["cpu"] / batch)
                    way.rows = found["rows"][:1]
                made.append(way)
    return made


def table(result: dict) -> tuple[str, str]:
    """A model's own table, and its line in the summary."""
    best: dict[str, Way] = {}
    for way in result["ways"]:
        if way.name not in best or np.median(way.wall) < np.median(best[way.name].wall):
            best[way.name] = way
    ours = best["ours"]
    lines = [
        f"### {result['name']}",
        "",
        "| way | batch | ms per image | processor ms | first call s | error |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, way in sorted(best.items(), key=lambda item: np.median(item[1].wall)):
        error = f"{result['errors'][name]:.0e}" if name in result["errors"] else ""
        lines.append(
            f"| {name} | {way.batch} | {1e3 * np.median(way.wall):.2f} | {1e3 * np.median(way.cpu):.2f} "
            f"| {way.first:.1f} | {error} |"
        )
    own = ("ours", "our forward pass", "ours, with all measures", "model(x)")
    peers = {name: way for name, way in best.items() if name not in own}
    peer = min(peers, key=lambda name: np.median(peers[name].wall))
    peer_cpu = min(np.median(way.cpu) for way in peers.values())
    ratios = " | ".join(
        f"{np.median(peers[peer].wall) / np.median(way.wall):.2f} | {peer_cpu / np.median(way.cpu):.2f}"
        for way in (ours, best["ours, with all measures"])
    )
    forward = min(np.median(best[name].wall) for name in ("model(x)", "our forward pass"))
    passes = result["passes"] or result["engine"].layout.row_count
    plain = np.median(ours.wall) / np.median(best["model(x)"].wall)
    efficiency = (1 + passes) * forward / np.median(ours.wall)
    line = (
        f"| {result['name']} | {peer}, {peers[peer].batch} | {ratios} | {plain:.1f} | {passes} "
        f"| {efficiency:.2f} | {ours.first:.1f} |"
    )
    return "\n".join(lines), line


def _with_measures(line: str) -> float:
    """The ratio of processor time with all measures, of a line of the summary."""
    return float(line.split("|")[6])


def main(arguments: Sequence[str] = ("--write",)) -> None:
    """Every model in a process of its own, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(description="the engine against its peers")
    parser.add_argument("--models", nargs="*", default=list(PANEL), choices=list(PANEL))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jax", default=JAX_PYTHON, help="a Python that has jax and keras")
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/RESULTS.md")
    parser.add_argument(
        "--quick", action="store_true", help="only the peers that win elsewhere, at one batch"
    )
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        result = bench(options.models[0], options.rounds, options.jax, options.quick)
        details, line = table(result)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if result["left_out"]:
            details += f"\n\nLeft out: {', '.join(result['left_out'])}."
        print(f"\n{details}\n\nPeak memory of the process, peers included: {peak:.0f} MiB.\n\n= {line}")
        return
    lines: list[str] = []
    for name in options.models:
        command = [sys.executable, "-m", "benchmarks.engine", "--alone", "--models", name]
        command += ["--rounds", str(options.rounds)] + (["--jax", options.jax] if options.jax else [])
        command += ["--quick"] if options.quick else []
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout if not done.returncode else done.stderr[-2000:], flush=True)
        lines += done.stdout.splitlines()
    made = [
        "The engine (`python -m benchmarks.engine`) against everything a user could pick instead, on the",
        "same weights and images, interleaved in one process (JAX right after, in its own). Ratio: the time",
        "of the fastest peer, at its best batch, over ours, wall and processor time, for rows alone and with",
        "all measures of them; the worst models first. Plain evaluations: our time over that of one",
        "`model(x)`.",
        "",
        "| model | fastest peer, batch | rows, wall | processor | measures, wall | processor "
        "| plain evaluations | passes | efficiency | first result s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *sorted((line[2:] for line in lines if line.startswith("= ")), key=_with_measures),
        "",
        *(line for line in lines if line.startswith(("|", "###", "Left", "Peak")) or not line),
    ]
    if options.write:
        write_section("Engine", made)


if __name__ == "__main__":
    main(sys.argv[1:])
