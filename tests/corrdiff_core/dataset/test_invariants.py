"""What never changes about a domain: its terrain, standardized."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from corrdiff_core import terrain
from corrdiff_core.dataset import INVARIANTS, domain_invariants, terrain_invariants
from corrdiff_core.errors import DatasetError
from tests.small_domain import SMALL


def test_invariants_are_standardized_terrain():
    invariants = terrain_invariants(SMALL)
    assert invariants.shape == (2, *SMALL.shape)
    assert invariants.dtype == torch.float32
    torch.testing.assert_close(invariants.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(invariants.std((1, 2), correction=0), torch.ones(2))
    elevation = terrain.elevation(SMALL.longitude, SMALL.latitude)
    assert int(invariants[0].argmax()) == int(elevation.argmax())


def relief(domain=SMALL) -> xr.Dataset:
    """On (y, x) of the domain before its crop, as a truth may come."""
    whole = replace(domain, crop=0)
    lines = whole.longitude, whole.latitude
    fields = {"elevation": terrain.elevation(*lines), "land_fraction": terrain.land_fraction(*lines)}
    made = xr.Dataset({name: (("y", "x"), field) for name, field in fields.items()}, {"y": whole.y, "x": whole.x})
    made["elevation"].attrs["units"], made["land_fraction"].attrs["units"] = "m", "1"
    return made


def from_file(fields: xr.Dataset, path, domain=SMALL):
    fields.to_netcdf(path, engine="h5netcdf")
    return domain_invariants(replace(domain, invariants=str(path)))


class TestFile:
    def test_a_file_on_the_domain(self, tmp_path):
        made = from_file(relief(), tmp_path / "relief.nc")
        assert made.names == INVARIANTS
        torch.testing.assert_close(made.fields, terrain_invariants(SMALL))

    def test_one_field_on_latitude_and_longitude(self, tmp_path):
        latitude, longitude = np.arange(26.0, 21.0, -0.02), np.arange(119.0, 123.0, 0.02)
        height = terrain.elevation(*np.meshgrid(longitude, latitude))
        fields = xr.Dataset(
            {"elevation": (("lat", "lon"), height, {"units": "m"})}, {"lat": latitude, "lon": longitude}
        )
        made = from_file(fields, tmp_path / "relief.nc")
        assert made.names == ("elevation",)
        expected = fields["elevation"].interp(
            lat=xr.DataArray(SMALL.latitude, dims=("y", "x")), lon=xr.DataArray(SMALL.longitude, dims=("y", "x"))
        )
        standardized = ((expected - expected.mean()) / expected.std()).values
        np.testing.assert_allclose(made.fields[0], standardized, rtol=0, atol=1e-5)

    def test_none(self):
        names, fields = domain_invariants(replace(SMALL, invariants="none"))
        assert names == ()
        assert fields.shape == (0, 32, 32)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda fields: fields.drop_vars(["elevation", "land_fraction"]), "neither elevation nor land_fraction"),
            (lambda fields: fields.assign(land_fraction=0 * fields["land_fraction"]), "land_fraction is the same"),
            (
                lambda fields: fields.assign(elevation=100 * fields["elevation"].assign_attrs(units="cm")),
                "in 'cm', 'm'",
            ),
            (lambda fields: fields.assign(elevation=fields["elevation"].drop_attrs()), "in '', 'm' is due"),
            (lambda fields: fields.where(fields["x"] > 0).assign_attrs(), r"missing at \d+ points"),
            (lambda fields: fields.assign_coords(x=fields["x"] + 9000), "up to 9000 m from"),
            (lambda fields: fields.isel(x=slice(4)), "points, the domain small has"),
        ],
    )
    def test_what_is_no_terrain_is_refused(self, tmp_path, change, said):
        with xr.set_options(keep_attrs=True):
            fields = change(relief())
        with pytest.raises(DatasetError, match=said):
            from_file(fields, tmp_path / "relief.nc")

    def test_the_relief_ends_somewhere(self):
        japan = replace(SMALL, projection=SMALL.projection.replace("lon_0=120", "lon_0=139"), name="japan")
        with pytest.raises(DatasetError, match=r"domain japan: its terrain is not known.*name a file"):
            domain_invariants(japan)
