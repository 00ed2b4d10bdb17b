"""One run cut into parts, or over processes and devices, makes the matrix of one process."""

import numpy as np
import pytest
import xarray as xr


def matrix(work):
    found = xr.open_zarr(work / "forgetting.zarr", consolidated=False).load()
    return found.sortby("task")


def test_parts_of_a_sweep_make_one_matrix(
    associate_arguments, finished, figures, run_cli, tmp_path
):
    """Two parts, the later one first; then a start without a part, which only puts together."""
    work = tmp_path / "run"
    for part in ("1/2", "0/2"):
        status, _, err = run_cli(*associate_arguments, f"--config.part={part}", f"--workdir={work}")
        assert status == 0 and "without --config.part makes the matrix" in err, err
        assert not (work / "summary.json").exists()
    adapters = {f: f.stat().st_mtime_ns for f in work.rglob("adapter_model.safetensors")}
    assert len(adapters) == 4
    status, _, err = run_cli(*associate_arguments, f"--workdir={work}")
    assert status == 0, err
    assert {f: f.stat().st_mtime_ns for f in adapters} == adapters
    whole = finished(associate_arguments)
    assert figures(work) == figures(whole)
    xr.testing.assert_identical(matrix(work), matrix(whole))


@pytest.mark.parametrize("part", ["2/2", "x", "1"])
def test_a_part_there_is_not(associate_arguments, run_cli, tmp_path, part):
    status, _, err = run_cli(*associate_arguments, f"--config.part={part}", f"--workdir={tmp_path}")
    assert status == 2 and "it must be I/N with I from 0 to N-1" in err


@pytest.mark.slow
def test_two_processes_of_two_devices_make_the_same_matrix(
    associate_arguments, finished, on_two_processes, tmp_path
):
    # At the rate of other tests a residual stream passes close to zero, which magnifies rounding.
    associate_arguments = [*associate_arguments, "--config.train.lr=0.01"]
    whole = matrix(finished(associate_arguments))
    work = tmp_path / "run"
    mesh = ["--config.mesh.task=2", "--config.mesh.fsdp=2"]
    on_two_processes([*associate_arguments, *mesh, f"--workdir={work}"])
    found = matrix(work)
    assert (found.task.values == whole.task.values).all()
    z, wanted = found.forgetting.values, whole.forgetting.values
    assert np.abs(wanted).max() > 0.05
    np.testing.assert_allclose(z, wanted, rtol=0, atol=1e-5)
