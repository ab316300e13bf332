"""Statistics and grid of a package: found by name, checked by size, and nothing filled in."""

import numpy as np
import pytest
import zarr

from corrdiff_core.mdlus import read_package
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from tests.corrdiff_core.mdlus.package_cases import GROUP, USED, package_arrays, write_package


@pytest.fixture
def read(tmp_path):
    """Arrays to the package that was read from them."""
    return lambda arrays: read_package(write_package(tmp_path / "package", arrays))


@pytest.fixture
def refused(not_imported, tmp_path):
    """Checks that a package of these arrays is refused in words that match."""
    return lambda arrays, message: not_imported(write_package(tmp_path / "package", arrays), message)


def without(*names):
    return {name: values for name, values in package_arrays().items() if name not in names}


def changed(name, index, value):
    values = package_arrays()[name].copy()
    if values.dtype.kind == "U":
        values = values.astype("<U40")
    values[index] = value
    return package_arrays() | {name: values}


def assert_cwa(statistics, expected):
    assert statistics.names == expected.names
    np.testing.assert_array_equal(np.float32(statistics.center), np.float32(expected.center))
    np.testing.assert_array_equal(np.float32(statistics.scale), np.float32(expected.scale))


class TestChannels:
    def test_they_are_the_documented_ones(self, read):
        found = read(package_arrays())
        assert_cwa(found.manifest.input_statistics, CWA_INPUT_STATISTICS)
        assert_cwa(found.manifest.output_statistics, CWA_OUTPUT_STATISTICS)
        assert not any("indices" in line for line in found.assumptions)

    def test_they_are_found_by_name_in_any_order(self, read):
        order = np.random.default_rng(3).permutation(20)
        arrays = {name: values if values.ndim == 2 else values[order] for name, values in package_arrays().items()}
        found = read(arrays)
        assert_cwa(found.manifest.input_statistics, CWA_INPUT_STATISTICS)
        assert_cwa(found.manifest.output_statistics, CWA_OUTPUT_STATISTICS)

    @pytest.mark.parametrize("what", ["era5", "cwb"])
    def test_without_names_they_are_taken_by_index_and_it_says_so(self, read, what):
        found = read(without(f"{what}_variable", f"{what}_pressure"))
        assert_cwa(found.manifest.input_statistics, CWA_INPUT_STATISTICS)
        assert_cwa(found.manifest.output_statistics, CWA_OUTPUT_STATISTICS)
        (line,) = [line for line in found.assumptions if "indices" in line]
        assert line == f"no {what}_variable in the package: channels are those documented, indices {list(USED[what])}"

    @pytest.mark.parametrize("named", [True, False])
    def test_four_output_channels(self, read, named):
        parts = ("center", "scale", "variable", "pressure") if named else ("center", "scale")
        arrays = without("cwb_variable", "cwb_pressure") | {
            f"cwb_{part}": package_arrays()[f"cwb_{part}"][list(USED["cwb"])] for part in parts
        }
        found = read(arrays)
        assert_cwa(found.manifest.output_statistics, CWA_OUTPUT_STATISTICS)
        assert any("indices [0, 1, 2, 3]" in line for line in found.assumptions) is not named

    def test_surface_pressures_that_no_chunk_was_written_for(self, tmp_path):
        """As xarray writes an array that is all NaN."""
        package = write_package(tmp_path / "package", without("cwb_pressure"))
        group = zarr.open_group(package / GROUP, mode="a", zarr_format=2, use_consolidated=False)
        group.create_array("cwb_pressure", data=np.full(20, np.nan), fill_value=np.nan)
        zarr.consolidate_metadata(package / GROUP, zarr_format=2)
        assert not (package / GROUP / "cwb_pressure/0").exists()
        found = read_package(package)
        assert_cwa(found.manifest.output_statistics, CWA_OUTPUT_STATISTICS)

    @pytest.mark.parametrize(
        ("name", "index", "value", "message"),
        [
            ("era5_variable", 0, "pwat", "era5 channels: tcwv is tcwv, which stands 0 times among the channels pwat,"),
            ("cwb_variable", 18, "temperature_2m", "cwb channels: t2m is temperature_2m, which stands 2 times"),
            ("era5_pressure", 9, 800.0, "z850 is geopotential_height at 850 hPa, which stands 0 times .* 800,"),
            ("era5_pressure", 5, 500.0, "z500 is geopotential_height at 500 hPa, which stands 2 times"),
            ("era5_pressure", 17, 1000.0, "t2m is temperature_2m, which stands 0 times .*temperature_2m 1000"),
        ],
    )
    def test_a_name_or_pressure_that_is_not_there_once(self, refused, name, index, value, message):
        refused(changed(name, index, value), message)

    def test_names_without_pressures(self, refused):
        refused(without("era5_pressure"), "z500 is geopotential_height at 500 hPa, which stands 0 times")

    @pytest.mark.parametrize("count", [19, 21])
    def test_more_or_fewer_pressures_than_names(self, refused, count):
        pressures = np.resize(package_arrays()["era5_pressure"], count)
        refused(package_arrays() | {"era5_pressure": pressures}, f"20 names and {count} pressures: each channel")

    def test_more_names_than_statistics(self, refused):
        arrays = package_arrays()
        refused(arrays | {"era5_center": arrays["era5_center"][:19]}, "19 era5 centers and 20 scales do not cover")

    def test_a_number_of_channels_that_nobody_documents(self, refused):
        arrays = without("cwb_variable", "cwb_pressure")
        for part in ("center", "scale"):
            arrays[f"cwb_{part}"] = arrays[f"cwb_{part}"][:5]
        refused(arrays, r"5 cwb channels without names; documented are \[4, 20\]: add cwb_variable")


class TestStatistics:
    @pytest.mark.parametrize(("index", "variable", "height"), [(1, "z500", 5851.5), (9, "z850", 1512.8)])
    def test_geopotential_height(self, refused, index, variable, height):
        message = (
            rf"the center of {variable} is {height}, beyond the possible .* m2 s-2: it looks like gpm; multiply it by"
        )
        refused(changed("era5_center", index, height), message)

    @pytest.mark.parametrize("key", ["era5_center", "cwb_center"])
    def test_degrees_celsius(self, refused, key):
        refused(changed(key, 17, 23.5), "the center of t2m is 23.5, beyond the possible .* K: it looks like degrees")

    @pytest.mark.parametrize(
        ("name", "value"), [("cwb_scale", 0), ("cwb_scale", -1), ("era5_scale", np.nan), ("era5_center", np.inf)]
    )
    def test_no_statistics(self, refused, name, value):
        refused(changed(name, 18, value), r"statistics of u10m: center \S+ and scale \S+ must be finite and the scale")

    @pytest.mark.parametrize("values", [np.ones((20, 1), np.float32), np.array(["1"] * 20), np.ones(20, bool)])
    def test_no_column_of_numbers(self, refused, values):
        refused(package_arrays() | {"era5_scale": values}, "era5_scale is .* of shape .*, a number a channel is due")


class TestGrid:
    def test_it_is_the_package_s_to_a_meter(self, read):
        (line,) = [line for line in read(package_arrays()).assumptions if "Lambert" in line]
        assert float(line.partition("up to ")[2].partition(" m ")[0]) < 1

    @pytest.mark.parametrize("name", ["XLAT", "XLONG"])
    def test_another_place(self, refused, name):
        refused(
            package_arrays() | {name: package_arrays()[name] + np.float32(0.1)},
            r"XLAT, XLONG lie up to 1\d\.\d km from the Taiwan grid; only packages on it can be imported",
        )

    @pytest.mark.parametrize("turned", [np.flipud, np.transpose])
    def test_turned_upside_down_or_transposed(self, refused, turned):
        arrays = package_arrays()
        refused(
            arrays | {name: turned(arrays[name]) for name in ("XLAT", "XLONG")}, r"lie up to \S+ km from the Taiwan"
        )

    def test_a_point_that_is_not_finite(self, refused):
        refused(changed("XLAT", (7, 7), np.nan), "lie up to nan km from the Taiwan grid")

    @pytest.mark.parametrize("part", [np.s_[1:, 1:], np.s_[0]])
    def test_another_shape(self, refused, part):
        arrays = package_arrays()
        shape = arrays["XLAT"][part].shape
        message = rf"XLAT, XLONG have \({', '.join(map(str, shape))},?\) points, Taiwan's grid has \(450, 450\)"
        refused(arrays | {name: arrays[name][part] for name in ("XLAT", "XLONG")}, message)


class TestHoles:
    @pytest.mark.parametrize("name", ["XLAT", "XLONG", "era5_center", "era5_scale", "cwb_center", "cwb_scale"])
    def test_a_missing_array(self, refused, name):
        refused(without(name), f"its dataset lacks {name}; download the package anew")

    def test_the_fields_are_not_looked_at(self, tmp_path):
        """Nor are the other arrays of the dataset that the package is cut from."""
        others = {
            "cwb": np.ones((2, 20, 9, 9), np.float32),
            "cwb_valid": np.ones(2, np.int8),
            "era5_valid": np.ones((2, 20), bool),
            "XTIME": np.array(["2021-01-01T00", "2021-01-01T01"], "datetime64[ns]"),
        }
        package = write_package(tmp_path / "package", package_arrays() | others)
        (package / GROUP / "cwb/0.0.0.0").unlink()
        assert_cwa(read_package(package).manifest.input_statistics, CWA_INPUT_STATISTICS)

    @pytest.mark.parametrize(
        ("chunk", "message"),
        [
            ("XLAT/1.0", "XLAT has 3 of 4 chunks; download the package anew"),
            ("cwb_scale/0", "cwb_scale has 0 of 1 chunks"),
            ("era5_variable/0", "era5_variable has 0 of 1 chunks"),
            ("era5_pressure/0", "tcwv is tcwv, which stands 0 times among the channels tcwv 0, geopotential_height 0"),
        ],
    )
    def test_a_missing_chunk(self, not_imported, tmp_path, chunk, message):
        package = write_package(tmp_path / "package")
        (package / GROUP / chunk).unlink()
        not_imported(package, message)

    def test_a_group_in_place_of_an_array(self, not_imported, tmp_path):
        package = write_package(tmp_path / "package", without("XLAT"))
        zarr.open_group(package / GROUP, mode="a", zarr_format=2).create_group("XLAT")
        (package / GROUP / ".zmetadata").unlink()
        not_imported(package, "XLAT of its dataset is a group, an array is due")

    @pytest.mark.parametrize(
        ("file", "content"),
        [("XLAT/0.0", b"no chunk"), ("era5_center/0", b""), ("XLAT/.zarray", b"{"), ("era5_variable/.zarray", b"{")],
    )
    def test_a_damaged_array(self, not_imported, tmp_path, file, content):
        package = write_package(tmp_path / "package")
        (package / GROUP / file).write_bytes(content)
        (package / GROUP / ".zmetadata").unlink()
        not_imported(package, f"{file.partition('/')[0]} of its dataset is damaged")

    def test_damaged_metadata(self, not_imported, tmp_path):
        package = write_package(tmp_path / "package")
        (package / GROUP / ".zmetadata").write_bytes(b"{")
        not_imported(package, r"its dataset is no Zarr v2 group \(")
