"""Fuzz what reads from strangers, for a bounded time: `make fuzz`, or
`python tests/fuzz/run.py --seconds 600`.

Every target must end with a result or with the error that it documents. A failure is shown as Hypothesis's
smallest example, with the seed that finds it again.
"""

import argparse
import io
import sys
import tempfile
import time

import numpy as np
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from augnet.config import Config, config_json, config_keys, flag_value, load_config
from augnet.errors import ConfigError, ImageError
from augnet.redact import without_secrets
from augnet.sources.decode import FORMATS, decode
from augnet.storage.files import UnitRecord, sealed, unsealed

EXAMPLES = 200

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["all", "top:3", "predicted", "none", "auto", "float16", ".nan", "1e400", "0x_", "2001-99-99"]
    )
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from([*config_keys(), "beam", "beam.runner", "model", "output.x", "statistics"])
bytes_of_yaml = st.binary(max_size=200) | st.text(max_size=200).map(
    lambda text: text.encode("utf-8", "replace")
)


@given(
    st.dictionaries(keys, trees, max_size=6),
    st.dictionaries(st.text(max_size=8), trees, max_size=3),
    st.data(),
)
def config_from_trees(flags, extra, data):
    """Any tree of keys is a config, which survives JSON, or a ConfigError."""
    tree = {"model": {"path": "m.keras"}, "images": {"path": "i"}, "output": "o", **extra}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        try:
            file.write(yaml.safe_dump(data.draw(st.sampled_from([tree, extra])), allow_unicode=True))
        except UnicodeEncodeError:
            return
        file.flush()
        try:
            config = load_config(file.name, flags)
        except ConfigError as error:
            assert str(error)
            return
    plain = config.model_copy(update={"beam": {}})  # Beam's options are passed on as they are
    assert Config.model_validate(config_json(plain)) == plain


@given(bytes_of_yaml)
def config_from_bytes(content):
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(content)
        file.flush()
        try:
            load_config(file.name)
        except ConfigError as error:
            assert str(error)


@given(st.text(max_size=60))
def flags_from_text(text):
    flag_value("jacobian.outputs", text)
    assert without_secrets(without_secrets(text)) == without_secrets(text)


@given(st.sampled_from(FORMATS), st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK"]), st.data())
def images_from_mutations(kind, mode, data):
    """Damaged files of every format give pixels of the mode that was asked for, or an ImageError."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    stream = io.BytesIO()
    try:
        Image.fromarray(pixels).convert(mode).save(stream, kind)
    except (OSError, ValueError):  # the format has no such mode
        return
    content = bytearray(stream.getvalue())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[place] = value
    _decode(
        bytes(content[: data.draw(st.integers(0, len(content)))])
        if data.draw(st.booleans())
        else bytes(content)
    )


@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF....WEBP"]
    ),
    st.binary(),
)
def images_from_bytes(magic, content):
    _decode(magic + content)


def _decode(content):
    for color, channels in (("grey", 1), ("rgb", 3), ("rgba", 4)):
        try:
            pixels = decode(content, color, max_pixels=100_000).pixels
        except ImageError as error:
            assert error.stage == "decode" and str(error)
        else:
            assert pixels.ndim == 3 and pixels.shape[2] == channels and pixels.size <= 400_000
            assert pixels.min() >= 0 and pixels.max() <= 255


@given(
    st.dictionaries(
        st.text(max_size=9).filter(lambda key: key != "sha256"), st.integers() | st.text(max_size=9)
    ),
    st.data(),
)
def records_from_mutations(tree, data):
    """What was sealed comes back; with any byte changed it does not."""
    try:
        content = sealed(tree)
    except UnicodeEncodeError:
        return
    assert unsealed(content) == tree
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    for read in (unsealed, UnitRecord.from_json):
        try:
            read(bytes(changed))
        except ValueError:
            continue
        raise AssertionError("a changed byte was not noticed")


TARGETS = (
    config_from_trees,
    config_from_bytes,
    flags_from_text,
    images_from_mutations,
    images_from_bytes,
    records_from_mutations,
)


def fuzz(seconds, first_seed):
    """Run all targets in turn, with new seeds, until the time is up; how many examples that made."""
    quick = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    targets, rounds, end = [quick(target) for target in TARGETS], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for target in targets:
            if time.monotonic() < end:
                seed(first_seed + rounds)(target)()
        rounds += 1
    return rounds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the first round (default: the time)"
    )
    options = parser.parse_args()
    print(f"fuzzing {len(TARGETS)} targets for {options.seconds:g} s, seed {options.seed}")
    made = fuzz(options.seconds, options.seed)
    print(f"{made} rounds of {EXAMPLES} examples for each target: nothing found")
    sys.exit(0)
