"""The configuration of an audit: validated, frozen, and the only definition of its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from augnet.redact import has_password
from augnet.selection import ALL, RowSelection


@dataclass(frozen=True)
class Fits:
    """What a key takes, in words that go on after "give"; for types that cannot say it by themselves."""

    words: str


APPLICATIONS = "keras.applications."
"""What the name of a module with a preprocess_input begins with."""

NamedScale = Literal["auto", "unit", "minus_one_one", "imagenet", "caffe", "none"]
Application = Annotated[
    str,
    Field(pattern=r"^keras\.applications\.\w+$"),
    Fits(f"{APPLICATIONS}NAME such as {APPLICATIONS}resnet"),
]
Number = Annotated[float, Field(strict=True)]  # strict: true is no number
Whole = Annotated[int, Field(strict=True)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Memory = Annotated[ByteSize, Field(gt=0), Fits("a size such as 8GiB")]
ModuleName = Annotated[str, Field(pattern=r"^[\w.]+$")]
FunctionName = Annotated[
    str, Field(pattern=r"^[\w.]+:[\w.]+$"), Fits("module:function such as my_models:build")
]


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
        raise ValueError(f"none, or {error}") from None


def _written_rows(rows: RowSelection | None) -> str | list[int]:
    """As in YAML."""
    if rows is None:
        return "none"
    return list(rows.outputs) if rows.kind == "listed" else str(rows)


Rows = Annotated[RowSelection, PlainValidator(_read_rows), PlainSerializer(_written_rows)]
StoredRows = Annotated[RowSelection | None, PlainValidator(_read_stored_rows), PlainSerializer(_written_rows)]


def _without_password(value: str) -> str:
    """It would be written into run.json, which workers read and people share."""
    if has_password(value):
        raise ValueError("an address without a password, which the environment holds (docs/how-to/s3.md)")
    return value


Address = Annotated[str, AfterValidator(_without_password)]


class ModelConfig(Section):
    path: Address = Field(
        description="trained model: .keras, .h5, a SavedModel folder, or weights with model.builder; a path "
        "or an address (gs://, s3://)"
    )
    builder: FunctionName | None = Field(
        None,
        description="module:function that builds the model whose weights path holds; its code is run",
    )
    modules: Annotated[
        tuple[ModuleName, ...],
        Fits("a list of modules as they are imported, such as [my_layers, pack.layers]"),
    ] = Field(
        (), description="Python modules that register the model's own classes; importing them runs their code"
    )
    signature: str | None = Field(
        None, description="which signature of a SavedModel to run; default: serving_default"
    )
    output: Whole | str | None = Field(
        None, description="which output of a model with several, by position or name"
    )
    space: Literal["logits", "model"] = Field(
        "logits",
        description="logits: differentiate before a final softmax or sigmoid; model: outputs as they are",
    )
    constants: Annotated[
        dict[str, Number | list[Any] | str],
        Fits("{name: number, list or file.npy}, with a space after each colon"),
    ] = Field(
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


class ImagesConfig(Section):
    path: Address = Field(
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
    metadata: Annotated[
        Literal["auto", "none"] | tuple[str, ...],
        Fits("auto, none or a list of columns such as [camera, site]"),
    ] = Field(
        "auto",
        description="further columns, features or JSON keys whose values cut the images into slices; auto: "
        "all of a manifest",
    )
    classes: Annotated[
        tuple[str, ...] | str | None,
        Fits("a list of names such as [cat, dog], or a file with one on each line"),
    ] = Field(
        None,
        description="the label that each model output stands for, in order, or a text file with one on each "
        "line; default: the dataset's own, else see the log",
    )
    limit: Positive | None = Field(None, description="audit a random sample of this many images")
    sample_seed: Whole = Field(0, description="seed of that sample")
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

    mean: tuple[Number, ...]
    std: tuple[Annotated[float, Field(gt=0, strict=True)], ...]


class PreprocessConfig(Section):
    size: Annotated[tuple[Positive, Positive] | None, Fits("height and width such as [224, 224]")] = Field(
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
    scale: NamedScale | Application | Annotated[OwnScale, Fits("{mean: [0.5], std: [0.2]}")] = Field(
        "auto",
        description="unit: [0, 1]; minus_one_one: [-1, 1]; imagenet: its mean and std; caffe: BGR without "
        "ImageNet's mean; none: 0..255; keras.applications.NAME: its preprocess_input; {mean: [...], std: "
        "[...]} in [0, 1] units; auto: what the model shows, else unit",
    )


class JacobianConfig(Section):
    outputs: Rows = Field(ALL, description="rows: all | predicted | label | top:N | [0, 3, 7]")
    sketch: Annotated[int, Field(ge=8, strict=True)] | None = Field(
        None,
        description="random combinations of all outputs, such as 32, beside the rows of outputs: top:N; from "
        "them norm, largest singular value and mean magnitude of all rows are estimated",
    )
    reduce: (
        Annotated[
            str,
            Field(pattern=r"^(mean|sum|at:\[\d+, ?\d+\])$"),
            Fits("mean, sum or at:[y,x] such as at:[10,20]"),
        ]
        | None
    ) = Field(
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
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="type of the stored values; bfloat16: float32 rounded to 8 bits of precision, which "
        "Parquet keeps in fewer bytes than float16 and every reader reads",
    )
    pool: Positive = Field(1, description="store means over blocks of pool x pool pixels")
    channels: Literal["keep", "l2", "sum"] = Field(
        "keep", description="keep the channels, or reduce them to their l2 norm or sum"
    )
    shard_bytes: Positive = Field(256 * 1024**2, description="upper bound of a Jacobian shard")
    max_bytes: Positive = Field(
        100 * 1000**3, description="a run whose Jacobians would pass this size is refused before it starts"
    )

    @field_validator("dtype")
    @classmethod
    def _a_type_that_the_format_has(cls, value: str, info: ValidationInfo) -> str:
        if value == "bfloat16" and info.data.get("format") == "npz":
            raise ValueError("float32 or float16, or store.format: parquet; NPZ has no such type")
        return value


class StatisticsConfig(Section):
    border: float = Field(
        0.1, gt=0, lt=0.5, strict=True, description="width of the outer frame, as a share of the shorter side"
    )
    noise: Annotated[
        tuple[Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)], ...],
        Fits("a list of numbers above 0 such as [0.01, 0.05], each once"),
    ] = Field(
        (),
        description="standard deviations of noise on the input, in its units, under which it is foretold "
        "whether a prediction survives",
    )
    noise_copies: Annotated[
        int, Field(ge=0, multiple_of=2, strict=True), Fits("0 or an even whole number above it")
    ] = Field(
        64,
        description="noisy copies of each image, under each noise, whose outputs correct what the Jacobian "
        "says; 0: none, which costs nothing and serves where noise is small",
    )
    map_bytes: Positive = Field(
        64 * 1024**2,
        description="memory for one unit's mean maps; above it they are kept over blocks of pixels",
    )

    @field_validator("noise")
    @classmethod
    def _each_noise_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{sigma:g}" for sigma in value}) < len(value):
            raise ValueError("each number once, by its first six digits")
        return value


class ReportConfig(Section):
    images: Whole = Field(
        2000,
        ge=0,
        le=10_000,
        description="images whose pictures and rows the report shows: those at an end of any statistic, the "
        "flagged ones, and a random sample of each label",
    )


class FindingsConfig(Section):
    enabled: bool = Field(True, description="whether what the model leans on is sought, by changing images")
    images: Whole = Field(
        128, ge=20, le=10_000, description="images of each output that are changed, and that are drawn from"
    )
    seconds: Number = Field(
        600, gt=0, description="time for that in one process; where it is short, fewer images are changed"
    )
    min_effect: Number = Field(
        0.25,
        ge=0.01,
        le=1,
        description="smallest effect that is a finding: a part of the way to a prediction, or deviations",
    )


class FailuresConfig(Section):
    max_fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        strict=True,
        description="a run in which a larger share of the images failed ends with status 1",
    )


class Config(Section):
    """A whole audit. `model.path`, `images.path` and `output` are all that has no default."""

    model: ModelConfig
    images: ImagesConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    jacobian: JacobianConfig = JacobianConfig()
    store: StoreConfig = StoreConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    findings: FindingsConfig = FindingsConfig()
    report: ReportConfig = ReportConfig()
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
    def _sketch_says_more_than_rows(self) -> Config:
        if self.jacobian.sketch is not None and self.jacobian.outputs == ALL:
            raise ValueError(
                "jacobian.sketch: estimates what jacobian.outputs: all computes; leave it out, or narrow "
                "jacobian.outputs, such as to top:5"
            )
        return self

    @model_validator(mode="after")
    def _stored_rows_are_computed(self) -> Config:
        rows, kept = self.jacobian.outputs, self.store.jacobians
        if kept not in (None, ALL) and not rows.contains(kept):  # here "all" means all that are computed
            raise ValueError(
                f"store.jacobians: {kept} keeps rows that jacobian.outputs: {rows} does not compute; "
                "widen jacobian.outputs or narrow store.jacobians"
            )
        return self


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
