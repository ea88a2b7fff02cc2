"""The configuration of an audit: validated, frozen, and the only definition of its keys.

Every key is one in YAML, a command-line flag (`--section.key=value`) and a line of `augnet audit --help`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from augnet.errors import ConfigError
from augnet.selection import ALL, RowSelection

SCALES = ("auto", "unit", "minus_one_one", "imagenet", "caffe", "none")
APPLICATIONS = "keras.applications."
"""What the name of a module with a preprocess_input begins with."""
Positive = Annotated[int, Field(gt=0)]
Memory = Annotated[ByteSize, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _read_rows(value: Any) -> RowSelection:
    return value if isinstance(value, RowSelection) else RowSelection.parse(value)


def _read_stored_rows(value: Any) -> RowSelection | None:
    if value == "none":
        return None
    try:
        return _read_rows(value)
    except ValueError as error:
        raise ValueError(f"is none, or {error}") from None


def _written_rows(rows: RowSelection | None) -> str | list[int]:
    """As in YAML."""
    if rows is None:
        return "none"
    return list(rows.outputs) if rows.kind == "listed" else str(rows)


Rows = Annotated[RowSelection, PlainValidator(_read_rows), PlainSerializer(_written_rows)]
StoredRows = Annotated[RowSelection | None, PlainValidator(_read_stored_rows), PlainSerializer(_written_rows)]


class ModelConfig(Section):
    path: str = Field(
        description="trained model: .keras, .h5, a SavedModel folder, or weights with model.builder; a path "
        "or an address (gs://, s3://)"
    )
    builder: str | None = Field(
        None,
        description="module:function that builds the model whose weights path holds; its code is run",
    )
    modules: tuple[str, ...] = Field(
        (), description="Python modules that register the model's own classes; importing them runs their code"
    )
    signature: str | None = Field(
        None, description="which signature of a SavedModel to run; default: serving_default"
    )
    output: int | str | None = Field(
        None, description="which output of a model with several, by position or name"
    )
    space: Literal["logits", "model"] = Field(
        "logits",
        description="logits: differentiate before a final softmax or sigmoid; model: outputs as they are",
    )
    constants: dict[str, float | list[Any] | str] = Field(
        default_factory=dict,
        description="values for the inputs that are not the image: {name: number, list or file.npy}",
    )
    safe_mode: bool = Field(
        True, description="refuse models that carry code (Lambda layers); false only for models you trust"
    )
    control: Literal["random-weights"] | None = Field(
        None,
        description="random-weights: audit the same architecture with weights drawn anew, the control that "
        "tells what an audit saw of the trained model",
    )
    control_seed: int = Field(0, ge=0, description="seed of those weights")

    @field_validator("builder")
    @classmethod
    def _is_function_of_module(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("is module:function, such as my_models:build")
        return value

    @field_validator("modules", mode="before")
    @classmethod
    def _are_module_names(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(
            isinstance(name, str) and re.fullmatch(r"[\w.]+", name) for name in value
        ):
            raise ValueError("is a list of modules as they are imported, such as [my_layers, pack.layers]")
        return value

    @field_validator("constants", mode="before")
    @classmethod
    def _one_value_for_each_name(cls, value: Any) -> Any:
        kinds = (int, float, list, str)
        if not isinstance(value, dict) or not all(isinstance(part, kinds) for part in value.values()):
            raise ValueError("is {name: number, list or file.npy}, with a space after each colon")
        return value


class ImagesConfig(Section):
    path: str = Field(
        description="a folder, a glob such as 'data/**/*.png', or one file; a path or an address"
    )
    format: Literal[
        "auto", "folder", "manifest", "webdataset", "zip", "tfrecord", "tfds", "parquet", "hf", "arrays"
    ] = Field("auto", description="dataset format; auto: told by what is there")
    image: str | None = Field(
        None, description="column, feature or array of the images or their paths; default: told by the data"
    )
    labels: str = Field(
        "auto",
        description="auto: the first folder below path, or the column or feature called label or class; "
        "folder: the folder; none: no labels; or the name of a column, feature or array",
    )
    classes: tuple[str, ...] | str | None = Field(
        None,
        description="the label that each model output stands for, in order, or a text file with one on each "
        "line; default: the dataset's own, else see the log",
    )
    limit: Positive | None = Field(None, description="audit a random sample of this many images")
    sample_seed: int = Field(0, description="seed of that sample")
    max_pixels: Positive = Field(
        100_000_000,
        le=178_956_970,  # Pillow's own limit, 2 * PIL.Image.MAX_IMAGE_PIXELS
        description="an image with more pixels than this is a failure, and is not decoded",
    )
    max_bytes: Positive = Field(
        256 * 1024**2, description="an image file larger than this is a failure, and is not read"
    )


class OwnScale(Section):
    """(pixel / 255 - mean) / std, per channel; pixels in [0, 255]."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class PreprocessConfig(Section):
    size: tuple[Positive, Positive] | None = Field(
        None, description="height, width; default: the model's input shape"
    )
    color: Literal["auto", "grey", "rgb", "rgba"] = Field(
        "auto", description="colour mode; auto: from the model's input channels"
    )
    resize: Literal["bilinear", "nearest", "bicubic", "lanczos", "box"] = Field(
        "bilinear", description="Pillow's resampling filter, used when an image has another size"
    )
    crop_to_aspect_ratio: bool = Field(
        False, description="cut what is too wide or too high off before resizing, instead of distorting"
    )
    scale: str | OwnScale = Field(
        "auto",
        description="unit: [0, 1]; minus_one_one: [-1, 1]; imagenet: its mean and std; caffe: BGR without "
        "ImageNet's mean; none: 0..255; keras.applications.NAME: its preprocess_input; {mean: [...], std: "
        "[...]} in [0, 1] units; auto: what the model shows, else unit",
    )

    @field_validator("scale")
    @classmethod
    def _known_scale(cls, value: str | OwnScale) -> str | OwnScale:
        if isinstance(value, str) and value not in SCALES and not value.startswith(APPLICATIONS):
            raise ValueError(
                f"is {', '.join(SCALES)}, {APPLICATIONS}NAME such as {APPLICATIONS}resnet, or {{mean, std}}"
            )
        return value


class JacobianConfig(Section):
    outputs: Rows = Field(ALL, description="rows: all | predicted | label | top:N | [0, 3, 7]")
    reduce: Annotated[str, Field(pattern=r"^(mean|sum|at:\[\d+, ?\d+\])$")] | None = Field(
        None, description="outputs with height and width as one number per channel: mean | sum | at:[y,x]"
    )
    input_space: Literal["model", "pixel"] = Field(
        "model", description="model: per unit of the model's input; pixel: per 0..255 pixel step"
    )
    precision: Literal["float32", "float64", "bfloat16", "tf32"] = Field(
        "float32",
        description="arithmetic of the Jacobian: float32 | float64 | bfloat16 (2 digits; fast where the "
        "processor has it) | tf32 (float32 with TensorFloat-32 products, on NVIDIA GPUs since Ampere)",
    )
    batch_size: Literal["auto"] | Positive = Field("auto", description="images per device batch, at most")
    memory: Literal["auto"] | Memory = Field(
        "auto", description="what the engine may use, such as 8GiB; auto: half of what is free"
    )


class StoreConfig(Section):
    jacobians: StoredRows = Field(
        ALL, description="rows to keep of those computed: all | none | predicted | label | top:N | [0, 3]"
    )
    format: Literal["parquet", "npz"] = Field("parquet", description="file format of the Jacobian shards")
    dtype: Literal["float32", "float16"] = Field("float32", description="type of the stored values")
    pool: Positive = Field(1, description="store means over blocks of pool x pool pixels")
    channels: Literal["keep", "l2", "sum"] = Field(
        "keep", description="keep the channels, or reduce them to their l2 norm or sum"
    )
    shard_bytes: Positive = Field(256 * 1024**2, description="upper bound of a Jacobian shard")
    max_bytes: Positive = Field(
        100 * 1000**3, description="a run whose Jacobians would pass this size is refused before it starts"
    )


class StatisticsConfig(Section):
    border: float = Field(
        0.1, gt=0, lt=0.5, description="width of the outer frame, as a share of the shorter side"
    )
    gallery: int = Field(8, ge=0, le=100, description="images shown at each end of margin and norm")
    map_bytes: Positive = Field(
        64 * 1024**2,
        description="memory for one unit's mean maps; above it they are kept over blocks of pixels",
    )


class FailuresConfig(Section):
    max_fraction: float = Field(
        0.05, ge=0, le=1, description="a run in which a larger share of the images failed ends with status 1"
    )


class Config(Section):
    """A whole audit. `model.path`, `images.path` and `output` are all that has no default."""

    model: ModelConfig
    images: ImagesConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    jacobian: JacobianConfig = JacobianConfig()
    store: StoreConfig = StoreConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    failures: FailuresConfig = FailuresConfig()
    output: str = Field(description="folder that the audit writes")
    beam: dict[str, Any] = Field(
        default_factory=dict, description="Beam pipeline options, such as runner: FlinkRunner"
    )

    @field_validator("preprocess", mode="before")
    @classmethod
    def _preprocess_by_name(cls, value: Any) -> Any:
        return {"scale": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _stored_rows_are_computed(self) -> Config:
        rows, kept = self.jacobian.outputs, self.store.jacobians
        if kept not in (None, ALL) and not rows.contains(kept):  # here "all" means all that are computed
            raise ValueError(
                f"store.jacobians: {kept} keeps rows that jacobian.outputs: {rows} does not compute; "
                "widen jacobian.outputs or narrow store.jacobians"
            )
        return self


def load_config(path: str | None = None, flags: dict[str, Any] | None = None) -> Config:
    """Config from a YAML file, flags, or both; flags win.

    Args:
        path: YAML file, or None.
        flags: dotted key -> value, such as {"jacobian.outputs": "top:5"}. Text values are read as YAML.

    Raises:
        ConfigError: names the key, the value found and the rule.
    """
    tree = _read_yaml(path) if path else {}
    for key, value in (flags or {}).items():
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{parent}: {node!r} is not a section of keys")
        node[leaf] = value
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, tree) for item in error.errors())) from None


def flag_value(text: str) -> Any:
    """The value of a flag: YAML, so that 5, true, [0, 3] and {mean: [0.5], std: [0.2]} mean what they say."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def config_keys() -> dict[str, Any]:
    """Every key as section.key -> its pydantic field, in the order of the help text."""
    keys: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            keys.update({f"{name}.{key}": sub for key, sub in section.model_fields.items()})
        elif name != "beam":
            keys[name] = field
    return keys


def config_json(config: Config) -> dict[str, Any]:
    """The config as plain JSON values, for run.json."""
    return json.loads(config.model_dump_json())


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config: cannot read {path!r} ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: not UTF-8, or a date such as 2001-99-99
        raise ConfigError(f"config: {path!r} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"config: {path!r} is nested too deeply to be a config") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config: {path!r} holds no keys; see configs/quickstart.yaml for an example")
    return tree


def _explain(error: Any, tree: dict[str, Any]) -> str:
    where = [part for part in error["loc"] if isinstance(part, str) and not part.startswith("function-")]
    key = ".".join(where[:2])
    known = [*config_keys(), "beam"]
    match error["type"]:
        case "missing":
            return f"{key}: is required; give it in the config file or as --{key}"
        case "extra_forbidden":
            siblings = [k for k in known if k.split(".")[0] == where[0]] or known
            return f"{key}: no such key; known here: {', '.join(siblings)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {error['input']!r} {message}" if key else message
