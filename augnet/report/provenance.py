"""How an audit was made, and how to make it again."""

from __future__ import annotations

import json
import shlex
from typing import Any

from augnet.audits.identity import NOT_IDENTITY
from augnet.config import Config
from augnet.redact import without_secrets
from augnet.storage import names
from augnet.storage.reader import Audit


def command(audit: Audit) -> str:
    """The command that makes the same audit: `augnet audit` with a flag for all that is no default.

    Of a model or images that were handed over as objects, the call.
    """
    chosen = dict(_chosen(_deciding(audit)))
    if any(chosen[f"{part}.path"].endswith(names.IN_MEMORY) for part in ("model", "images")):
        return _call(chosen)
    flags = [f"--{key}={shlex.quote(_text(value))}" for key, value in chosen.items()]
    return " \\\n  ".join(["augnet audit", *flags, "--output=AUDIT"])


def _call(chosen: dict[str, Any]) -> str:
    """The call of `augnet.audit` with every key that is no default."""
    lines = []
    for part in ("model", "images"):
        path = chosen.pop(f"{part}.path")
        lines.append(f"{part},  # {path}" if path.endswith(names.IN_MEMORY) else f"{path!r},")
    keys = [f"**{chosen!r},"] if chosen else []
    return "\n    ".join(["augnet.audit(", *lines, "'AUDIT',", *keys]) + "\n)"


def details(audit: Audit) -> list[tuple[str, str]]:
    """What was decided on the way, by name."""
    run = audit.run
    config, model, preprocess = run["config"], run["model"], run["preprocess"]
    count, stored = model["output_count"], _text(config["store"]["jacobians"])
    height, width, channels = model["input_shape"]
    logits = model["space"] == "logits"
    space = f"before the final {model['activation']}" if logits else "as the model gives them"
    units = "0..255 pixel step" if config["jacobian"]["input_space"] == "pixel" else "model input"
    scale = preprocess["scale"]
    return [
        (
            "Jacobian of",
            f"{count} output{'s' * (count > 1)}, {space}; rows: {_text(config['jacobian']['outputs'])}",
        ),
        ("with respect to", f"{height} x {width} x {channels} inputs, per unit of {units}"),
        ("scale", f"{scale if isinstance(scale, str) else json.dumps(scale)}. {preprocess['reason']}"),
        ("labels", run["label_rule"]),
        ("stored", "no rows" if stored == "none" else f"{stored} rows, {config['store']['format']}"),
        ("fingerprint", run["fingerprint"]),
    ]


def settings(audit: Audit) -> list[tuple[str, str]]:
    """Every key of the config that has a say in the result, as it was resolved."""
    return [(key, without_secrets(_text(value))) for key, value in _flat(_deciding(audit))]


def _deciding(audit: Audit) -> dict[str, Any]:
    """The config without what decides nothing, such as the output folder: the page would depend on it."""
    return {key: part for key, part in audit.run["config"].items() if key not in NOT_IDENTITY}


def _flat(config: dict[str, Any]) -> list[tuple[str, Any]]:
    keys: list[tuple[str, Any]] = []
    for name, section in config.items():
        parts = section.items() if isinstance(section, dict) else ()
        keys += [(f"{name}.{key}", value) for key, value in parts] or [(name, section)]
    return keys


def _chosen(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """The keys whose value is not the default, secrets taken out."""
    needed = {"model": {"path": ""}, "images": {"path": ""}, "output": ""}
    defaults = dict(_flat(json.loads(Config.model_validate(needed).model_dump_json())))
    chosen = [(key, value) for key, value in _flat(config) if defaults.get(key, value) != value]
    return [(key, without_secrets(value) if isinstance(value, str) else value) for key, value in chosen]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
