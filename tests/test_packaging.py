"""What is installed: one package, with the configs, benchmarks and page templates inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files of a wheel that is built without network and outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    steps = ["egg_info", "--egg-base", folder, "build", "--build-base", folder / "build"]
    steps += ["bdist_wheel", "--bdist-dir", folder / "bdist", "--dist-dir", folder / "dist"]
    command = [sys.executable, "setup.py", "--quiet", *map(str, steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").iterdir()
    return zipfile.ZipFile(built).namelist()


def test_no_top_level_package_but_ours(wheel):
    top = {name.partition("/")[0] for name in wheel}
    assert {"forget_jax"} == {name for name in top if not name.endswith(".dist-info")}
    assert len(top) == 2


def test_all_modules_and_templates_are_inside(wheel):
    def of(folder: str, pattern: str) -> set[str]:
        return {str(f.relative_to(ROOT)) for f in (ROOT / folder).rglob(pattern)}

    wanted = of("forget_jax", "*.py")
    for ending in ("html", "css", "js"):
        wanted |= of("forget_jax/report", f"*.{ending}")
    for folder in ("configs", "benchmarks", "launch"):
        wanted |= {f"forget_jax/{name}" for name in of(folder, "*.py") | of(folder, "*.sh")}
    wanted.add("forget_jax/launch/Dockerfile")
    wanted |= {"forget_jax/py.typed", "forget_jax/commands/golden.json"}
    assert wanted == {name for name in wheel if name.startswith("forget_jax/")}


def test_from_any_folder(tmp_path):
    """The command, a named config, and the modules that live elsewhere in the checkout."""
    code = "import forget_jax.configs.score, forget_jax.benchmarks.table; import sys; "
    code += "assert not {'configs', 'benchmarks'} & set(sys.modules)"
    path = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for name in ("configs", "benchmarks"):  # the folder's own, which are nobody's business here
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(3)")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=path, check=True)
    command = [sys.executable, "-m", "forget_jax", "bench", "--config=bench:score", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.returncode == 0 and "[score]" in done.stdout
