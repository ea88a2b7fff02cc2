"""Small models: one for each Keras layer that can take an image, and for many of Keras' operations.

Each is a function of an image tensor (batch, 8, 8, 3); what comes out is flattened and goes through a dense
layer of three outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

layers, ops = keras.layers, keras.ops
SIZE = (8, 8, 3)
Make = Callable[[keras.KerasTensor], keras.KerasTensor]


def build(make: Make, dtype: str = "float64") -> keras.Model:
    """The model of images (8, 8, 3) with three outputs and random weights, computing in this dtype."""
    keras.utils.set_random_seed(5)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        image = keras.Input(SIZE, dtype=dtype)
        features = layers.Flatten()(make(image))
        model = keras.Model(image, layers.Dense(3)(features))
    finally:
        keras.config.set_dtype_policy(policy)
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype.startswith("float"):
            positive = "variance" in variable.path or "moving" in variable.path
            values = rng.uniform(0.3, 1.0, variable.shape) if positive else rng.normal(0, 0.5, variable.shape)
            variable.assign(values)
    return model


def images(count: int, dtype: str = "float64") -> np.ndarray:
    """Random images (count, 8, 8, 3), in 0.05 .. 1, so that logarithms and roots are defined."""
    return np.random.default_rng(2).uniform(0.05, 1, (count, *SIZE)).astype(dtype)


def steps(layer: keras.Layer) -> Make:
    """The layer on the image as 16 steps of 12 channels."""
    return lambda x: layer(layers.Reshape((16, 12))(x))


def few_steps(layer: keras.Layer) -> Make:
    """The layer on the image as 4 steps of 48 channels; a tape takes its time for each step."""
    return lambda x: layer(layers.Reshape((4, 48))(x))


def volume(layer: keras.Layer) -> Make:
    """The layer on the image as a volume (4, 4, 4, 3)."""
    return lambda x: layer(layers.Reshape((4, 4, 4, 3))(x))


def bent(x: keras.KerasTensor) -> keras.KerasTensor:
    """Another tensor of the same shape, for operations of two."""
    return layers.Activation("tanh")(2.0 * x - 0.7)


def pair(join: keras.Layer) -> Make:
    """The layer on the image and another tensor."""
    return lambda x: join([x, bent(x)])


def three(join: keras.Layer) -> Make:
    """The layer on the image and two other tensors."""
    return lambda x: join([x, bent(x), layers.Conv2D(3, 1)(x)])


def tokens(x: keras.KerasTensor, width: int = 6) -> keras.KerasTensor:
    """(16, width)."""
    return layers.Dense(width)(layers.Reshape((16, 12))(x))


def attending(attend: Callable[..., keras.KerasTensor]) -> Make:
    """A layer called with a list of queries, values and keys."""
    return lambda x: attend([tokens(x), bent(tokens(x)), tokens(x)])


def smoothed(x: keras.KerasTensor) -> keras.KerasTensor:
    """Between -1 and 1, both signs."""
    return layers.Activation("tanh")(layers.Conv2D(3, 1)(x))


def inference_only(x: keras.KerasTensor) -> keras.KerasTensor:
    """Every layer that leaves images alone when a model is used."""
    shares, values = {"factor": 0.3}, {"factor": 0.3, "value_range": (0, 1)}
    made = [
        *(layers.Dropout(0.5), layers.AlphaDropout(0.5), layers.SpatialDropout2D(0.5)),
        *(layers.GaussianDropout(0.5), layers.GaussianNoise(0.5), layers.CutMix(), layers.MixUp()),
        *(layers.AugMix(value_range=(0, 1)), layers.RandAugment(value_range=(0, 1))),
        *(layers.RandomBrightness(**values), layers.RandomColorDegeneration(**values)),
        *(layers.RandomColorJitter((0, 1), brightness_factor=0.3), layers.RandomContrast(**shares)),
        *(layers.RandomElasticTransform(value_range=(0, 1)), layers.RandomErasing(value_range=(0, 1))),
        *(layers.RandomFlip(), layers.RandomGaussianBlur(value_range=(0, 1)), layers.RandomGrayscale()),
        *(layers.RandomHue(**values), layers.RandomInvert(value_range=(0, 1)), layers.RandomPerspective()),
        *(layers.RandomPosterization(4, value_range=(0, 1)), layers.RandomRotation(0.3)),
        *(layers.RandomSaturation(**values), layers.RandomSharpness(**values), layers.RandomShear(0.3, 0.3)),
        *(layers.RandomTranslation(0.3, 0.3), layers.RandomZoom(0.3)),
    ]
    for layer in made:
        x = layer(x)
    return x


LAYERS: dict[str, Callable[[], Make]] = {
    "Activation": lambda: layers.Activation("gelu"),
    "ActivityRegularization": lambda: layers.ActivityRegularization(),
    "AdaptiveAveragePooling1D": lambda: steps(layers.AdaptiveAveragePooling1D(5)),
    "AdaptiveAveragePooling2D": lambda: layers.AdaptiveAveragePooling2D((3, 2)),
    "AdaptiveAveragePooling3D": lambda: volume(layers.AdaptiveAveragePooling3D(2)),
    "AdaptiveMaxPooling1D": lambda: steps(layers.AdaptiveMaxPooling1D(5)),
    "AdaptiveMaxPooling2D": lambda: layers.AdaptiveMaxPooling2D((3, 2)),
    "Add": lambda: three(layers.Add()),
    "Add of two ranks": lambda: lambda x: layers.Add()([x, layers.GlobalAveragePooling2D()(x)]),
    "AdditiveAttention": lambda: attending(layers.AdditiveAttention()),
    "AdditiveAttention without scale": lambda: attending(layers.AdditiveAttention(use_scale=False)),
    "Attention": lambda: attending(layers.Attention()),
    "Attention with scale": lambda: attending(layers.Attention(use_scale=True)),
    "Attention by concatenation": lambda: attending(layers.Attention(score_mode="concat")),
    "Attention, causal": lambda: attending(lambda x: layers.Attention()(x, use_causal_mask=True)),
    "AutoContrast": lambda: layers.AutoContrast(value_range=(0, 1)),
    "Average": lambda: three(layers.Average()),
    "AveragePooling1D": lambda: steps(layers.AveragePooling1D(3, 2, padding="same")),
    "AveragePooling2D": lambda: layers.AveragePooling2D(3, 2),
    "AveragePooling3D": lambda: volume(layers.AveragePooling3D(2)),
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "BatchNormalization of lines": lambda: layers.BatchNormalization(axis=1),
    "Bidirectional": lambda: few_steps(layers.Bidirectional(layers.GRU(3))),
    "CenterCrop": lambda: layers.CenterCrop(5, 4),
    "CenterCrop of a small image": lambda: layers.CenterCrop(10, 6),
    "Concatenate": lambda: three(layers.Concatenate(axis=1)),
    "Conv1D": lambda: steps(layers.Conv1D(4, 3, strides=2, padding="same", activation="relu")),
    "Conv1D, causal": lambda: steps(layers.Conv1D(4, 3, dilation_rate=2, padding="causal")),
    "Conv1D in groups": lambda: steps(layers.Conv1D(6, 3, groups=3)),
    "Conv1D in single channels": lambda: steps(layers.Conv1D(12, 3, groups=12, strides=2, padding="same")),
    "Conv1DTranspose": lambda: steps(layers.Conv1DTranspose(4, 3, strides=2)),
    "Conv2D": lambda: layers.Conv2D(4, 3, padding="same", activation="silu"),
    "Conv2D in groups": lambda: layers.Conv2D(6, 3, groups=3, strides=2),
    "Conv2D in single channels, oblong strides": lambda: layers.Conv2D(3, 3, groups=3, strides=(2, 1)),
    "Conv2D, softmax": lambda: layers.Conv2D(4, 3, activation="softmax"),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
    "Conv3D": lambda: volume(layers.Conv3D(4, 2, activation="relu")),
    "Conv3DTranspose": lambda: volume(layers.Conv3DTranspose(2, 2)),
    "ConvLSTM2D": lambda: volume(layers.ConvLSTM2D(2, 2)),
    "Cropping1D": lambda: steps(layers.Cropping1D((2, 3))),
    "Cropping2D": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "Cropping3D": lambda: volume(layers.Cropping3D(1)),
    "Dense": lambda: layers.Dense(4, activation="softplus"),
    "DepthwiseConv1D": lambda: steps(layers.DepthwiseConv1D(3, strides=2, depth_multiplier=2)),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6"),
    "Dot": lambda: lambda x: layers.Dot(axes=2)([tokens(x), bent(tokens(x))]),
    "Dot of different axes": lambda: (
        lambda x: layers.Dot(axes=(1, 2))([tokens(x, 4), layers.Permute((2, 1))(tokens(x))])
    ),
    "Dot of vectors": lambda: lambda x: layers.Dot(axes=1)([layers.Flatten()(x), bent(layers.Flatten()(x))]),
    "Dot, normalized": lambda: lambda x: layers.Dot(axes=2, normalize=True)([tokens(x), bent(tokens(x))]),
    "ELU": lambda: lambda x: layers.ELU(0.5)(smoothed(x)),
    "EinsumDense": lambda: layers.EinsumDense("abcd,de->abce", (8, 8, 4), bias_axes="e", activation="tanh"),
    "EinsumDense with dots": lambda: layers.EinsumDense("...c,cd->...d", output_shape=4),
    "Equalization": lambda: layers.Equalization(value_range=(0, 1)),
    "Flatten": lambda: layers.Flatten(),
    "GRU": lambda: few_steps(layers.GRU(3)),
    "GlobalAveragePooling1D": lambda: steps(layers.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "GlobalAveragePooling3D": lambda: volume(layers.GlobalAveragePooling3D()),
    "GlobalMaxPooling1D": lambda: steps(layers.GlobalMaxPooling1D()),
    "GlobalMaxPooling2D": lambda: layers.GlobalMaxPooling2D(),
    "GlobalMaxPooling3D": lambda: volume(layers.GlobalMaxPooling3D(keepdims=True)),
    "GroupNormalization": lambda: lambda x: layers.GroupNormalization(2)(layers.Conv2D(4, 1)(x)),
    "GroupNormalization of each channel": lambda: layers.GroupNormalization(-1),
    "GroupQueryAttention": lambda: lambda x: layers.GroupQueryAttention(3, 4, 2)(tokens(x), bent(tokens(x))),
    "Every layer that does nothing at inference": lambda: inference_only,
    "Identity": lambda: layers.Identity(),
    "LSTM": lambda: few_steps(layers.LSTM(3)),
    "Lambda": lambda: layers.Lambda(lambda x: ops.square(x)),
    "LayerNormalization": lambda: layers.LayerNormalization(),
    "LayerNormalization of images": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
    "LayerNormalization of lines": lambda: layers.LayerNormalization(axis=[1], center=False),
    "LayerNormalization of columns and channels": lambda: layers.LayerNormalization(axis=[1, 3]),
    "LeakyReLU": lambda: lambda x: layers.LeakyReLU()(smoothed(x)),
    "MaxPooling1D": lambda: steps(layers.MaxPooling1D(3, 2, padding="same")),
    "MaxPooling2D": lambda: layers.MaxPooling2D(3, 2),
    "MaxPooling3D": lambda: volume(layers.MaxPooling3D(2)),
    "Maximum": lambda: three(layers.Maximum()),
    "Minimum": lambda: pair(layers.Minimum()),
    "MultiHeadAttention": lambda: lambda x: layers.MultiHeadAttention(2, 4)(tokens(x), bent(tokens(x))),
    "MultiHeadAttention over lines": lambda: (
        lambda x: layers.MultiHeadAttention(2, 2, attention_axes=2)(x, x)
    ),
    "Multiply": lambda: three(layers.Multiply()),
    "Normalization": lambda: layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.2, 0.1, 0.3]),
    "PReLU": lambda: lambda x: layers.PReLU(shared_axes=[1, 2])(smoothed(x)),
    "Permute": lambda: layers.Permute((3, 1, 2)),
    "RMSNormalization": lambda: layers.RMSNormalization(),
    "RNN": lambda: few_steps(layers.RNN(layers.GRUCell(3))),
    "ReLU": lambda: lambda x: layers.ReLU(max_value=0.7, threshold=0.1)(smoothed(x)),
    "ReLU, capped and leaking": lambda: lambda x: layers.ReLU(max_value=0.4, negative_slope=0.2)(smoothed(x)),
    "RepeatVector": lambda: lambda x: layers.RepeatVector(2)(layers.Flatten()(x)),
    "Rescaling": lambda: layers.Rescaling([0.5, 1.0, 2.0], offset=-0.3),
    "Reshape": lambda: layers.Reshape((4, -1)),
    "Resizing": lambda: layers.Resizing(5, 11),
    "Resizing by area, cropped": lambda: layers.Resizing(4, 8, crop_to_aspect_ratio=True),
    "Resizing by nearest": lambda: layers.Resizing(12, 6, interpolation="nearest"),
    "Resizing by bicubic, smoothed": lambda: layers.Resizing(5, 5, interpolation="bicubic", antialias=True),
    "SeparableConv1D": lambda: steps(layers.SeparableConv1D(4, 3, strides=2, depth_multiplier=2)),
    "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3, padding="same", activation="elu"),
    "SimpleRNN": lambda: few_steps(layers.SimpleRNN(3, return_sequences=True)),
    "Softmax": lambda: layers.Softmax(),
    "Softmax over lines": lambda: layers.Softmax(axis=1),
    "Solarization": lambda: layers.Solarization(value_range=(0, 1)),
    "SpatialDropout1D": lambda: steps(layers.SpatialDropout1D(0.5)),
    "SpatialDropout3D": lambda: volume(layers.SpatialDropout3D(0.5)),
    "SpectralNormalization": lambda: layers.SpectralNormalization(layers.Conv2D(4, 3)),
    "Subtract": lambda: pair(layers.Subtract()),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Conv1D(4, 3, padding="same")),
    "UnitNormalization": lambda: layers.UnitNormalization(),
    "UnitNormalization of lines": lambda: layers.UnitNormalization(axis=[1, 2]),
    "UpSampling1D": lambda: steps(layers.UpSampling1D(2)),
    "UpSampling2D": lambda: layers.UpSampling2D((2, 3)),
    "UpSampling2D, bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "UpSampling3D": lambda: volume(layers.UpSampling3D((1, 2, 2))),
    "ZeroPadding1D": lambda: steps(layers.ZeroPadding1D((2, 0))),
    "ZeroPadding2D": lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
    "ZeroPadding3D": lambda: volume(layers.ZeroPadding3D(1)),
}
"""By the layer's name, what may come behind it aside."""

FLOAT32 = frozenset(
    [
        *("AdaptiveAveragePooling3D", "AveragePooling3D", "MaxPooling3D"),
        *("Every layer that does nothing at inference", "Resizing by bicubic, smoothed"),
    ]
)
"""Those with a layer that TensorFlow has no float64 kernel for, or that Keras does not make in float64."""

OPERATIONS: dict[str, Make] = {
    "arithmetic of tensors": lambda x: (x + bent(x)) * x - bent(x) / (1.5 + x),
    "arithmetic with constants": lambda x: (2.0 - x) / 3.0 + 1.0 / (x + 1.0) - x * np.ones(3),
    "arithmetic with an image": lambda x: x * np.linspace(0, 1, 192).reshape(SIZE) + np.ones((1, 8, 8, 3)),
    "average pool": lambda x: ops.average_pool(x, 2, 2, padding="same"),
    "clip": lambda x: ops.clip(x, 0.3, 0.7),
    "concatenate and stack": lambda x: ops.stack([ops.concatenate([x, bent(x)], axis=-1)] * 2, axis=1),
    "conv": lambda x: ops.conv(x, np.ones((3, 3, 3, 2)) * 0.1, padding="same"),
    "depthwise conv": lambda x: ops.depthwise_conv(x, np.ones((3, 3, 3, 2)) * 0.1),
    "cumsum and tril": lambda x: ops.tril(ops.moveaxis(ops.cumsum(x, axis=1), 3, 1)),
    "diagonal and diff": lambda x: ops.diff(ops.diagonal(x, axis1=1, axis2=2), axis=1),
    "dot product attention": lambda x: ops.dot_product_attention(*[ops.reshape(x, (-1, 16, 2, 6))] * 3),
    "einsum": lambda x: ops.einsum("bhwc,bhwd->bcd", x, bent(x)),
    "einsum with a constant": lambda x: ops.einsum("bhwc,cd->bhwd", x, np.ones((3, 2))),
    "expand, squeeze, turn and tile": lambda x: ops.tile(
        ops.rot90(ops.squeeze(ops.expand_dims(x, 2), 2), axes=(1, 2)), (1, 2, 1, 1)
    ),
    "exp and log": lambda x: ops.exp(ops.log(x + 1.0)) + ops.log1p(x) - ops.expm1(x) + ops.log10(x),
    "extract patches": lambda x: ops.image.extract_patches(x, (4, 4)),
    "fft2": lambda x: ops.fft2((ops.moveaxis(x, 3, 1), ops.zeros_like(ops.moveaxis(x, 3, 1))))[0],
    "flip, roll and repeat": lambda x: ops.repeat(ops.roll(ops.flip(x, axis=1), 2, axis=2), 2, axis=3),
    "getitem": lambda x: ops.concatenate([x[:, ::2, 1:3], x[:, 4:, :2] * 2.0], axis=2),
    "hard activations": lambda x: ops.hard_sigmoid(smoothed(x) * 4) + ops.hard_silu(smoothed(x)),
    "leaky relu": lambda x: ops.leaky_relu(smoothed(x), 0.1),
    "log softmax": lambda x: ops.log_softmax(x, axis=-1) + ops.softmax(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=(1, 2)),
    "matmul": lambda x: ops.matmul(ops.reshape(x, (-1, 12, 16)), ops.reshape(bent(x), (-1, 16, 12))),
    "matmul with a constant": lambda x: ops.matmul(x, np.ones((3, 4))),
    "max over axes": lambda x: ops.max(x, axis=(1, 2)),
    "max over channels, kept": lambda x: ops.amax(x, axis=-1, keepdims=True) * x,
    "max pool": lambda x: ops.max_pool(x, 2, 2),
    "maximum and minimum": lambda x: (
        ops.maximum(x, bent(x)) + ops.minimum(bent(x), 0.2) * ops.minimum(x, bent(x))
    ),
    "mean and sum": lambda x: ops.mean(x, axis=(1, 3)) + ops.sum(x, axis=(2, 3)),
    "min over axes": lambda x: ops.min(x, axis=[1], keepdims=False),
    "moments": lambda x: ops.add(*ops.moments(x, axes=[1, 2])),
    "norm": lambda x: ops.norm(x, axis=-1),
    "normalize": lambda x: ops.normalize(x, axis=-1),
    "one hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 3) * x,
    "pad and resize": lambda x: ops.image.resize(
        ops.pad(
            ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.0),
            ((0, 0), (1, 2), (0, 1), (0, 0)),
            mode="reflect",
        ),
        (5, 6),
    ),
    "powers and roots": lambda x: x**3 + ops.sqrt(x) + ops.rsqrt(x) + ops.square(x) + ops.power(x, 1.5),
    "power of tensors": lambda x: ops.power(x, 1.0 + bent(x)),
    "prod": lambda x: ops.prod(x, axis=-1),
    "reshape with the batch": lambda x: ops.reshape(
        ops.matmul(ops.reshape(x, (-1, 3)), np.ones((3, 2))), (-1, 8, 8, 2)
    ),
    "rgb to grayscale": ops.image.rgb_to_grayscale,
    "rgb to hsv": ops.image.rgb_to_hsv,
    "sigmoid and kin": lambda x: ops.sigmoid(x) + ops.silu(x) + ops.softplus(x) + ops.tanh(x),
    "sort": lambda x: ops.sort(x, axis=1),
    "space to depth": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 4, 2, 4, 2, 3)), (0, 1, 3, 2, 4, 5)), (-1, 4, 4, 12)
    ),
    "split": lambda x: ops.multiply(*ops.split(x, 2, axis=1)),
    "split at positions": lambda x: ops.concatenate(ops.split(x, [2, 5], axis=2)[::2], axis=2),
    "standard deviation": lambda x: ops.std(x, axis=(1, 2)) + ops.var(x, axis=(1, 2)),
    "steps beside a smooth way": lambda x: (
        ops.round(4.0 * x) * x + ops.cast(x > 0.5, x.dtype) * ops.sign(x) * x
    ),
    "stop gradient": lambda x: ops.stop_gradient(x) * x,
    "swapaxes, moveaxis and transpose": lambda x: ops.transpose(
        ops.moveaxis(ops.swapaxes(x, 1, 3), 1, 2), (0, 2, 1, 3)
    ),
    "take": lambda x: ops.take(x, [2, 0, 2], axis=3) + ops.take(x, 3, axis=2)[:, :, None],
    "take along axis": lambda x: ops.take_along_axis(x, np.zeros((1, 8, 8, 1), "int32"), axis=3),
    "tensordot": lambda x: ops.tensordot(x, np.ones((3, 4)), axes=1),
    "trigonometry": lambda x: (
        ops.sin(x) + ops.cos(x) + ops.tan(x) + ops.arctan(x) + ops.sinh(x) + ops.arcsinh(x)
    ),
    "top k": lambda x: ops.top_k(x, 2)[0],
    "unstack": lambda x: ops.multiply(*ops.unstack(x, axis=3)[:2]),
    "where": lambda x: ops.where(x > 0.5, x * x, bent(x)),
    "where with constants": lambda x: (
        ops.where(bent(x) > 0.2, 0.3, x) + ops.where(np.eye(8)[..., None] > 0, x, 0.0)
    ),
}
