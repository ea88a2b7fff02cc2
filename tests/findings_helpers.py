"""Models of closed form that lean on one thing, and their trials in a plain loop."""

from __future__ import annotations

import numpy as np

from augnet.findings.candidates import candidates_of
from augnet.findings.decision import Tried, confirmed, effects
from augnet.findings.interventions import Range
from augnet.findings.trials import Groups, Target, Trial
from augnet.statistics.sample import rank_of

SIZE, CLASSES, CHANNELS = 16, 5, 3
MIN_EFFECT = 0.25


class Model:
    """Logits of a faint pattern of each class, spread over the image, and of what is added to them.

    Args:
        lean: images (n, height, width, channel) -> (n,), what is added to the logit of class 0.
        kernel: (height, width, channel), the gradient of `lean`; zero where it is not one of pixels.
    """

    def __init__(self, lean=lambda images: 0.0, kernel=0.0, seed=0):
        rng = np.random.default_rng(seed)
        self.patterns = rng.choice([-1.0, 1.0], (CLASSES, SIZE, SIZE, CHANNELS))
        self.patterns -= self.patterns.mean(axis=(1, 2), keepdims=True)  # no class has a colour of its own
        self.lean, self.kernel = lean, kernel

    def __call__(self, images):
        logits = np.einsum("nyxc,kyxc->nk", images - 0.5, self.patterns) / 10
        logits[:, 0] += self.lean(images)
        return logits

    def shares(self, images):
        """Where the lead of the predicted class over its rival lies: |row x contrast|."""
        order = np.argsort(-self(images), axis=1)
        rows = np.array(self.patterns / 10)
        rows[0] += self.kernel
        lead = rows[order[:, 0]] - rows[order[:, 1]]
        contrast = images - images.mean(axis=(1, 2), keepdims=True)
        maps = np.sqrt(((lead * contrast) ** 2).sum(axis=-1))
        return maps / maps.mean(axis=(1, 2), keepdims=True)


def make_images(model, plant=None, count=400, share=0.8, only=0, seed=1):
    """Faint patterns in noise; `plant` changes most of those of class `only`, or of all (None)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = 0.5 + 0.012 * model.patterns[labels] + rng.normal(0, 0.08, (count, SIZE, SIZE, CHANNELS))
    for k in range(count):
        if plant and (only is None or labels[k] == only) and rng.random() < share:
            images[k] = plant(images[k], rng)
    return images.clip(0, 1).astype(np.float32)


def tried(model, images, most=200):
    """The evidence on every target."""
    outputs = model(images)
    predicted = outputs.argmax(axis=1)
    order = sorted(range(len(images)), key=lambda k: rank_of(str(k)))
    donors = {
        target: np.array([k for k in order if predicted[k] == target][:most]) for target in range(CLASSES)
    }
    donors = {target: members for target, members in donors.items() if len(members) >= 20}
    shares = {target: model.shares(images[members]) for target, members in donors.items()}
    others = {target: np.array([k for k in order if predicted[k] != target][:most]) for target in donors}
    grey = images.mean(axis=-1)
    greys = {target: (grey[members], grey[others[target]]) for target, members in donors.items()}
    candidates = candidates_of(shares, greys, images.shape[1:3], images.shape[3])
    found = []
    for target, members in donors.items():
        receivers = others[target]
        foreign = [
            next((j for j in np.roll(receivers, -n - 1) if predicted[j] != predicted[k]), k)
            for n, k in enumerate(receivers)
        ]
        trial = Trial(
            Target(target, True, "multiclass"),
            Groups(members, receivers, np.array(foreign), len(donors) > 2),
            outputs,
            lambda numbers: images[numbers],
            model,
            Range.of(images),
            images.shape[1:3],
            MIN_EFFECT,
        )
        arms = trial.run(candidates[target])
        for number, candidate in enumerate(candidates[target]):
            evidence = {arm.name: arm.changed for arm in arms if arm.candidate == number}
            found.append(Tried(target, target, number, candidate, evidence))
    return found


def findings(model, images):
    """(target, kind) of what is confirmed, strongest first, and the effects themselves."""
    found = confirmed(effects(tried(model, images)), MIN_EFFECT, images.shape[1:3])
    return [(entry.tried.target, entry.tried.candidate.change.kind) for entry in found], found
