"""Ensembles: keyed members, batches, memory, units, and what is refused before a network runs."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import torch
import xarray as xr

from corrdiff_core import nature
from corrdiff_core.checkpoint import build_denoiser
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset import box_lines
from corrdiff_core.errors import ConfigurationError, GridError, QualityError
from corrdiff_core.generate import (
    batch_size,
    generate,
    generate_prepared,
    member_bytes,
    prepared_inputs,
    regression_mean,
    regression_mean_prepared,
)
from corrdiff_core.grid import TAIWAN
from corrdiff_core.model.edm import Denoiser
from corrdiff_core.model.noise import latents
from corrdiff_core.prepare import prepare
from corrdiff_core.quality import check_ensemble
from corrdiff_core.variables import OUTPUT, OUTPUT_NAMES, STANDARD_GRAVITY
from tests.small_domain import SMALL

TIME = datetime(2020, 7, 1, 6)
LATENT_SHAPE = (4, *SMALL.shape)
# Float32 in another summation order, through two denoiser calls, in physical units.
ROUNDING = {"rtol": 1e-4, "atol": 2e-3}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def inputs():
    return nature.weather(1, TIME, *box_lines(SMALL.input_box))


@pytest.fixture(scope="module")
def ensemble(made, inputs):
    return generate(made, inputs, members=8)


def assert_close(first, second):
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(first[name].values, second[name].values, **ROUNDING)


class TestEnsemble:
    def test_it_is_labeled(self, made, inputs, ensemble):
        assert tuple(ensemble.data_vars) == OUTPUT_NAMES
        assert dict(ensemble.sizes) == {"member": 8, "y": 32, "x": 32}
        for name in OUTPUT_NAMES:
            assert ensemble[name].dims == ("member", "y", "x")
            assert ensemble[name].dtype == np.float32
            assert ensemble[name].attrs == OUTPUT[name].attrs
        np.testing.assert_array_equal(ensemble.member, np.arange(8))
        np.testing.assert_array_equal(ensemble.latitude, SMALL.latitude)
        np.testing.assert_array_equal(ensemble.x, SMALL.x)
        assert ensemble.valid_time.values == inputs.valid_time.values
        assert ensemble.attrs == {"model": made.manifest.identity, "seed": 0, "num_steps": 2, "solver": "euler"}

    def test_reflectivity_is_never_negative(self, made, inputs, ensemble):
        """Where the networks say less than 0 dBZ, it is 0; the rest stays."""
        statistics = made.manifest.output_statistics
        lower = float(ensemble.mrr.median())
        center = (statistics.center[0] - lower, *statistics.center[1:])
        manifest = replace(made.manifest, output_statistics=replace(statistics, center=center))
        found = generate(replace(made, manifest=manifest), inputs, members=8)
        assert 0.3 < float((found.mrr == 0).mean()) < 0.7
        np.testing.assert_allclose(found.mrr, np.maximum(ensemble.mrr - lower, 0), **ROUNDING)
        assert found.t2m.equals(ensemble.t2m)

    def test_it_passes_the_checks_of_an_ensemble(self, ensemble):
        check_ensemble(ensemble, Slot(TIME))

    def test_members_are_mean_plus_residual_in_physical_units(self, made, inputs):
        """The way of the data, step by step."""
        found = generate(made, inputs, members=2, num_steps=3, solver="heun", seed=5)
        normalized = torch.from_numpy(prepare(inputs, SMALL, made.manifest.input_statistics).values)
        start = latents(5, TIME, range(2), LATENT_SHAPE)
        expected = made.model.members(normalized, start, 3, "heun", batch=1).numpy()
        statistics = made.manifest.output_statistics
        for index, name in enumerate(OUTPUT_NAMES):
            physical = expected[:, index] * statistics.scale[index] + statistics.center[index]
            if name == "mrr":
                physical = np.maximum(physical, 0)
            np.testing.assert_allclose(found[name].values, physical, **ROUNDING)

    def test_what_is_not_said_is_the_manifest_s(self, made, inputs):
        plain = generate(made, inputs)
        assert plain.sizes["member"] == made.manifest.defaults.members
        assert plain.equals(generate(made, inputs, members=3, num_steps=2, solver="euler"))
        assert not plain.equals(generate(made, inputs, num_steps=3))
        assert not plain.equals(generate(made, inputs, solver="heun"))

    def test_the_schedule_is_the_manifest_s(self, made, inputs):
        defaults = replace(made.manifest.defaults, sigma_max=800.0)
        other = replace(made, manifest=replace(made.manifest, defaults=defaults))
        assert not generate(made, inputs).t2m.equals(generate(other, inputs).t2m)

    def test_the_regression_mean_is_the_mean_stage(self, made, inputs):
        mean = regression_mean(made, inputs)
        assert mean.t2m.dims == ("y", "x")
        normalized = torch.from_numpy(prepare(inputs, SMALL, made.manifest.input_statistics).values)
        expected = made.model.mean(normalized).numpy()
        statistics = made.manifest.output_statistics
        np.testing.assert_allclose(mean.t2m, expected[1] * statistics.scale[1] + statistics.center[1], **ROUNDING)

    def test_a_dask_input_gives_the_same(self, made, inputs):
        assert generate(made, inputs.chunk(), members=1).equals(generate(made, inputs, members=1))

    def test_a_larger_source_gives_the_same(self, made, inputs):
        wide = nature.weather(1, TIME, nature.GFS_LATITUDE, nature.GFS_LONGITUDE)
        assert_close(generate(made, wide, members=1), generate(made, inputs, members=1))

    def test_a_global_source_is_judged_by_the_box_alone(self, made, inputs):
        """Far from Taiwan it may be as cold and low as no weather over Taiwan is."""
        statistics = made.manifest.input_statistics
        far = dict(zip(statistics.names, np.subtract(statistics.center, 12 * np.array(statistics.scale)), strict=True))
        lines = {"latitude": np.arange(0, 60.1, 0.25), "longitude": np.arange(60, 180.1, 0.25)}
        wide = inputs.reindex(lines, fill_value=far)
        assert statistics.z_score("z500", float(wide.z500.mean())) < -8
        assert_close(generate(made, wide, members=1), generate(made, inputs, members=1))


class TestPrepared:
    """Inputs that are on the domain already, as samples of a dataset are."""

    @pytest.fixture
    def prepared(self, made, inputs):
        return prepared_inputs(made, inputs)

    def test_it_is_the_second_half_of_generate(self, made, inputs, prepared):
        asked = {"members": 3, "num_steps": 3, "solver": "heun", "seed": 7, "batch": 2}
        assert generate_prepared(made, prepared, **asked).identical(generate(made, inputs, **asked))
        assert regression_mean_prepared(made, prepared).identical(regression_mean(made, inputs))

    def test_another_order_of_channels_is_refused(self, made, prepared):
        """The shapes agree, the meaning does not."""
        for call in (generate_prepared, regression_mean_prepared):
            with pytest.raises(GridError, match=r"prepared inputs v10m, u10m.*needs tcwv, z500"):
                call(made, prepared.isel(channel=slice(None, None, -1)))

    def test_nameless_channels_are_refused(self, made, prepared):
        with pytest.raises(GridError, match="prepared inputs without names"):
            generate_prepared(made, prepared.drop_vars("channel"))

    def test_another_domain_is_refused(self, made, prepared):
        with pytest.raises(GridError, match=r"of shape \(12, 31, 32\).*\(32, 32\) points of small"):
            generate_prepared(made, prepared.isel(y=slice(31)))

    def test_holes_are_refused(self, made, prepared):
        prepared[3, 4, 5] = np.nan
        with pytest.raises(QualityError, match="u500: not finite"):
            generate_prepared(made, prepared)

    def test_no_time_that_keys_the_noise(self, made, prepared):
        with pytest.raises(ConfigurationError, match="assign the one time that keys the noise"):
            generate_prepared(made, prepared.drop_vars("valid_time"))


class TestKeys:
    @pytest.mark.parametrize("batch", [1, 3, 5, 8, 100])
    def test_batches_differ_by_rounding_only(self, made, inputs, ensemble, batch):
        assert_close(generate(made, inputs, members=8, batch=batch), ensemble)

    @pytest.mark.parametrize("batch", [1, 3, 8])
    def test_a_run_repeats_itself_bit_for_bit(self, made, inputs, batch):
        first = generate(made, inputs, members=8, batch=batch)
        assert first.equals(generate(made, inputs, members=8, batch=batch))

    def test_a_member_does_not_depend_on_how_many_there_are(self, made, inputs, ensemble):
        assert generate(made, inputs, members=3).equals(ensemble.isel(member=slice(3)))

    def test_members_differ(self, ensemble):
        assert float(ensemble.t2m.std("member").min()) > 0

    def test_seeds_differ(self, made, inputs):
        first, other = (generate(made, inputs, members=1, seed=seed) for seed in (0, 1))
        assert not np.allclose(first.t2m, other.t2m, **ROUNDING)
        assert other.attrs["seed"] == 1

    def test_the_valid_time_keys_the_noise(self, made, inputs):
        later = inputs.assign_coords(valid_time=np.datetime64(TIME + HOUR, "ns"))
        first, other = (generate(made, given, members=1) for given in (inputs, later))
        assert not np.allclose(first.t2m, other.t2m, **ROUNDING)

    def test_the_init_time_does_not(self, made, inputs):
        forecast = inputs.assign_coords(init_time=np.datetime64(TIME - 6 * HOUR, "ns"))
        found = generate(made, forecast, members=1)
        assert found.drop_vars("init_time").equals(generate(made, inputs, members=1))
        assert found.init_time.values == forecast.init_time.values


class TestLatents:
    def test_given_latents_replace_the_keyed_ones(self, made, inputs, ensemble):
        start = latents(0, TIME, range(8), LATENT_SHAPE)
        for given in (start, start.numpy(), start.double()):
            assert generate(made, inputs, latents=given).equals(ensemble)

    def test_they_need_no_time_and_leave_no_seed(self, made, inputs):
        found = generate(made, inputs.drop_vars("valid_time"), latents=torch.zeros(2, *LATENT_SHAPE))
        assert found.sizes["member"] == 2
        assert "seed" not in found.attrs

    @pytest.mark.parametrize("shape", [(2, 4, 32, 31), (4, 32, 32), (0, 4, 32, 32), (2, 3, 32, 32), ()])
    def test_another_shape_is_refused(self, made, inputs, shape):
        with pytest.raises(ConfigurationError, match="latents of shape"):
            generate(made, inputs, latents=np.zeros(shape))

    def test_another_number_of_members_is_refused(self, made, inputs):
        with pytest.raises(ConfigurationError, match=r"needs \(3, 4, 32, 32\)"):
            generate(made, inputs, members=3, latents=torch.zeros(2, *LATENT_SHAPE))


class Hungry(Denoiser):
    """A denoiser for which more than `room` members do not fit."""

    room = 100

    def forward(self, x, sigma, conditioning):
        self.tried.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x, sigma, conditioning)


def hungry(made, room):
    network = Hungry(build_denoiser(made.manifest).model, scale_conditioning=False)
    network.load_state_dict(made.diffusion.state_dict())
    network.eval().requires_grad_(False)
    network.room, network.tried = room, []
    return replace(made, diffusion=network)


class TestMemory:
    @pytest.mark.parametrize(
        ("room", "batch", "tried"),
        [
            (8, 8, [8, 8]),  # each batch that fits is denoised twice
            (3, 8, [8, 4, *[2] * 8]),
            (1, 8, [8, 4, 2, *[1] * 16]),
            (4, 100, [8, 4, 4, 4, 4]),
            (2, 3, [3, *[1] * 16]),
        ],
    )
    def test_out_of_memory_halves_the_batch_and_goes_on(self, made, inputs, ensemble, room, batch, tried):
        greedy = hungry(made, room)
        told = []
        found = generate(
            greedy, inputs, members=8, num_steps=2, batch=batch, on_member=lambda done, of: told.append((done, of))
        )
        assert_close(found, ensemble)
        assert greedy.diffusion.tried == tried
        assert told[-1] == (8, 8)
        assert [done for done, _ in told] == sorted({done for done, _ in told})

    def test_when_not_one_member_fits_it_says_so(self, made, inputs):
        with pytest.raises(torch.OutOfMemoryError):
            generate(hungry(made, 0), inputs, members=4, batch=4)

    def test_progress_counts_members(self, made, inputs):
        told = []
        generate(made, inputs, members=5, batch=2, on_member=lambda done, of: told.append((done, of)))
        assert told == [(2, 5), (4, 5), (5, 5)]

    def test_a_cpu_takes_members_one_by_one(self, made):
        assert batch_size(made) == 1

    def test_a_member_of_the_taiwan_networks_is_planned_with_gigabytes(self, made):
        unet = made.manifest.diffusion.unet | {"model_channels": 128, "channel_mult": [1, 2, 2, 2, 2], "num_blocks": 4}
        large = replace(made.manifest, domain=TAIWAN, diffusion=replace(made.manifest.diffusion, unet=unet))
        assert 1e9 < member_bytes(replace(made, manifest=large)) < 6e9


class TestRefusals:
    def test_a_missing_variable(self, made, inputs):
        with pytest.raises(QualityError, match="tcwv"):
            generate(made, inputs.drop_vars("tcwv"))

    def test_nan(self, made, inputs):
        broken = inputs.copy(deep=True)
        broken["u850"][7, 7] = np.nan
        for call in (generate, regression_mean):
            with pytest.raises(QualityError, match="u850: not finite"):
                call(made, broken)

    @pytest.mark.parametrize("name", ["z500", "z850"])
    def test_geopotential_height(self, made, inputs, name):
        height = inputs.assign({name: inputs[name] / STANDARD_GRAVITY})
        for call in (generate, regression_mean):
            with pytest.raises(
                QualityError, match=rf"{name} has a mean of .*: it looks like gpm; multiply it by 9\.80665"
            ):
                call(made, height)

    def test_a_source_that_does_not_cover_the_domain(self, made, inputs):
        with pytest.raises(GridError, match="does not cover"):
            generate(made, inputs.isel(latitude=slice(3, None)))

    @pytest.mark.parametrize(
        "valid_time", [None, np.datetime64("NaT", "ns"), np.array(["2020-07-01"], "datetime64[ns]")]
    )
    def test_no_time_that_keys_the_noise(self, made, inputs, valid_time):
        timeless = inputs.drop_vars("valid_time")
        if valid_time is not None:
            coordinate = ("time", valid_time) if valid_time.ndim else valid_time
            timeless = timeless.assign_coords(valid_time=coordinate)
        with pytest.raises(ConfigurationError, match="assign the one time that keys the noise"):
            generate(made, timeless)

    @pytest.mark.parametrize(
        "numbers",
        [
            {"members": 0},
            {"members": -1},
            {"num_steps": 0},
            {"num_steps": 1},
            {"batch": 0},
            {"batch": -2},
            {"solver": "dpm"},
        ],
    )
    def test_numbers_that_make_no_sense(self, made, inputs, numbers):
        with pytest.raises(ConfigurationError):
            generate(made, inputs, **numbers)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_agrees_with_the_cpu(made, inputs, ensemble):
    found = generate(made.to("cuda"), inputs, members=8)
    assert isinstance(found, xr.Dataset)
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(found[name].values, ensemble[name].values, rtol=1e-3, atol=2e-2)
