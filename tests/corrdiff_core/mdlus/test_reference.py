"""Networks, sampler and package against the outputs of NVIDIA's own on the same weights (../shared/reference)."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.generate import generate
from corrdiff_core.mdlus import import_package, load_network
from corrdiff_core.model.sampler import sample
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.corrdiff_core.mdlus.mdlus_cases import golden as golden_of
from tests.corrdiff_core.mdlus.mdlus_cases import reference

SIGMAS = (0.002, 0.5, 5.0, 80.0)
FORMATS = [torch.contiguous_format, torch.channels_last]


def golden(package):
    return golden_of(reference(package, "golden.npz"))


def assert_equal_to(expected, result, tolerance):
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) < tolerance


@pytest.mark.parametrize("memory_format", FORMATS)
def test_modulus_0_5(memory_format):
    expected = golden("modulus-0.5.0")
    generator = torch.Generator().manual_seed(21)
    x, latents = (torch.randn(1, channels, 448, 448, generator=generator) for channels in (16, 4))
    x = functional.avg_pool2d(x, 9, 1, 4) * 9
    regression, denoiser = (
        load_network(reference("modulus-0.5.0", f"{name}.mdlus")).to(memory_format=memory_format)
        for name in ("regression", "diffusion")
    )
    assert_equal_to(expected["regression_mean"], regression(x)[..., ::7, ::7], 3e-5)
    assert denoiser.scale_conditioning
    for sigma in SIGMAS:
        denoised = denoiser(latents * sigma, sigma, x)[..., ::7, ::7]
        assert_equal_to(expected[f"denoised_sigma_{sigma}"], denoised, 3e-5)


@pytest.fixture(scope="module")
def physicsnemo():
    """Golden values, the denoiser, and its conditioning [regression mean, input]: the grid is the network's own."""
    expected = golden("physicsnemo-2.2.2")
    denoiser = load_network(reference("physicsnemo-2.2.2", "diffusion.mdlus"))
    return expected, denoiser, torch.cat([expected["regression_mean"], expected["y"]], dim=1)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_physicsnemo_2_2_networks(physicsnemo, memory_format):
    expected, denoiser, conditioning = physicsnemo
    regression = load_network(reference("physicsnemo-2.2.2", "regression.mdlus")).to(memory_format=memory_format)
    denoiser = denoiser.to(memory_format=memory_format)
    assert_equal_to(expected["regression_mean"], regression(conditioning[:, 4:]), 3e-5)
    for sigma in SIGMAS:
        denoised = denoiser(expected["latents"] * sigma, sigma, conditioning)
        assert_equal_to(expected[f"denoised_sigma_{sigma}"], denoised, 3e-5)


@pytest.mark.parametrize(
    ("name", "num_steps", "solver", "sigma_max"),
    [("heun18", 18, "heun", 80.0), ("euler8", 8, "euler", 80.0), ("stochastic18", 18, "heun", 800.0)],
)
def test_physicsnemo_2_2_samplers(physicsnemo, name, num_steps, solver, sigma_max):
    expected, denoiser, conditioning = physicsnemo
    residual = sample(denoiser, expected["latents"], conditioning, num_steps, solver, sigma_max=sigma_max)
    assert_equal_to(expected[f"residual_{name}"], residual, 1e-3)


@pytest.mark.service
def test_earth2studio(tmp_path):
    """The whole package: from weather in physical units to the ensemble that `CorrDiffTaiwan` makes of it."""
    expected = golden_of(reference("earth2studio-0.19.0", "golden_e2s.npz"))
    import_package(reference("earth2studio-0.19.0", "corrdiff_inference_package.zip"), tmp_path / "model")
    inputs = xr.Dataset(
        {name: (("latitude", "longitude"), expected["x"][index].numpy()) for index, name in enumerate(INPUT_NAMES)},
        coords={"latitude": expected["lat"].numpy(), "longitude": expected["lon"].numpy()},
    )
    seeds = (2765994203, 481769637)
    latents = [torch.randn(4, 448, 448, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ensemble = generate(
        load_checkpoint(tmp_path / "model"), inputs, latents=torch.stack(latents), num_steps=8, solver="euler"
    )
    theirs = expected["output_every7"].numpy()
    for index, name in enumerate(OUTPUT_NAMES):
        of_name = theirs[:, index].clip(min=0) if name == "mrr" else theirs[:, index]
        assert np.abs(ensemble[name].values[:, ::7, ::7] - of_name).max() < 5e-3
