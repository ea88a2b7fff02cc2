# Images for Beam workers: Python, the libraries and augnet. Built where there is a Docker engine:
#   docker build --target cpu --tag augnet-worker .
#   docker build --target gpu --tag augnet-worker-gpu .
# The code of the checkout that submits a job is installed over the image's; it need not be built anew for it.

ARG BEAM=2.77.0
FROM apache/beam_python3.11_sdk:${BEAM} AS cpu
COPY constraints.txt setup.py pyproject.toml README.md MANIFEST.in /src/
COPY augnet /src/augnet
COPY transforms /src/transforms
COPY pipeline /src/pipeline
COPY configs /src/configs
# The extra `gcp` reads and writes gs:// addresses.
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[gcp]"
ENV TF_CPP_MIN_LOG_LEVEL=3

FROM cpu AS gpu
# CUDA's libraries come with TensorFlow's extra; the driver comes from the machine (install-nvidia-driver).
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[gcp,gpu]"
ENV TF_FORCE_GPU_ALLOW_GROWTH=true
