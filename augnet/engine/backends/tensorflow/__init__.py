"""TensorFlow, as the engine uses it: the device, the tape, compiled programs, and kernels."""

# ruff: noqa: F401 (what it offers)

from augnet.engine.backends.tensorflow.device import (
    CACHE_BYTES,
    OutOfMemory,
    device_kind,
    free_bytes,
    has_tensor_float_32,
    passes_at_once,
    peak_of,
    tensor_float_32,
    used_bytes,
)
from augnet.engine.backends.tensorflow.kernels import (
    average_pool_gradient,
    bias_add,
    conv2d,
    conv2d_input_gradient,
    depth_to_space,
    depthwise,
    depthwise_input_gradient,
    elements_at,
    max_pool_gradient,
    max_pool_with_argmax,
)
from augnet.engine.backends.tensorflow.program import (
    Program,
    Signature,
    compiled,
    constant,
    fused,
    is_eager,
    mapped,
    numpy_dtype,
    rows_of,
    run,
    seconds,
    summed,
    to_device,
    to_host,
    values_of,
    wait,
)
from augnet.engine.backends.tensorflow.spectrum import power_spectrum
from augnet.engine.backends.tensorflow.tape import (
    Refused,
    Unsupported,
    elementwise_slope,
    linearize,
    passes_gradient,
    transposed,
)
