"""The picture of a slot: what is on it, that it is true to the fields, legible, and written whole."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from itertools import combinations

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from PIL import Image

from corrdiff_core import colors, nature
from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError, CorrdiffError, GridError, QualityError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.quicklook import figure, quicklook
from corrdiff_core.regrid import cover

SMALL = replace(TAIWAN, name="small", x0=20000.0, y0=-100000.0, rows=60, columns=90)
TALL = replace(TAIWAN, name="tall", x0=-60000.0, y0=-200000.0, rows=170, columns=90)
INIT = datetime(2021, 7, 5)
SLOT = Slot.forecast(INIT, timedelta(hours=6))
OUTPUTS = ("mrr", "t2m", "u10m", "v10m")
PARTS = ("input", "mean", "member", "spread")


def case(domain=SMALL, members=4, slot=SLOT):
    """Inputs and an ensemble of perfect downscalings, as `Archive` returns them."""
    times = {"valid_time": np.datetime64(slot.valid_time, "ns")}
    if slot.init_time is not None:
        times["init_time"] = np.datetime64(slot.init_time, "ns")
    weather = nature.weather(1, slot.valid_time, nature.GFS_LATITUDE, nature.GFS_LONGITUDE)
    inputs = cover(weather, domain.input_box).assign_coords(times)
    draws = [nature.truth(inputs, 1, domain, sample).drop_vars("valid_time") for sample in range(members)]
    coordinates = {"member": np.arange(members), "spatial_ref": xr.Variable((), 0, domain.grid_mapping)}
    ensemble = xr.concat(draws, "member").assign_coords(times | coordinates)
    return inputs, ensemble


@pytest.fixture(scope="module")
def fields():
    return case()


@pytest.fixture(scope="module")
def drawn(fields):
    return figure(*fields, "gfs · demo-1a2b3c4d", "synthetic training data: no forecast")


@pytest.fixture(scope="module")
def axes(drawn):
    return {axes.get_label(): axes for axes in drawn.axes}


def panels(axes):
    return {label: axes[label] for label in (f"{name} {part}" for name in OUTPUTS for part in PARTS)}


def field(panel):
    """The image or mesh that a panel shows."""
    meshes = [artist for artist in panel.collections if artist.get_array() is not None]
    (shown,) = [*panel.images, *meshes]
    return shown


def all_words(drawn):
    """Every text that is to be read, on the page and in its axes."""
    texts = [*drawn.texts]
    for axes in drawn.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        titles = [axes.title, axes._left_title, axes._right_title]
        texts += [*axes.texts, *titles, *(tick for tick in ticks if tick.get_visible())]
    return [text for text in texts if text.get_text()]


def opened(url):
    with fsspec.open(url, "rb") as file:
        return Image.open(BytesIO(file.read())).convert("RGB")


class TestWords:
    def test_says_when_from_what_and_of_what_kind(self, drawn):
        header = "\n".join(text.get_text() for text in drawn.texts)
        assert "valid Mon 05 Jul 2021 06:00 UTC  ·  init Mon 05 Jul 00:00 UTC  ·  lead +6 h  ·  4 members" in header
        assert "gfs · demo-1a2b3c4d" in header
        assert "synthetic training data: no forecast" in header
        for words in (
            *("input, 0.25°", "ensemble mean, 2 km", "member 0, 2 km", "ensemble spread (std. dev.)"),
            *(
                "maximum radar\nreflectivity",
                "2 metre\ntemperature",
                "10 metre eastward\nwind",
                "10 metre northward\nwind",
            ),
        ):
            assert words in header

    def test_an_hour_of_a_hindcast_has_no_lead_time(self):
        drawn = figure(*case(members=1, slot=Slot(SLOT.valid_time)), "era5")
        assert drawn.texts[0].get_text() == "valid Mon 05 Jul 2021 06:00 UTC  ·  1 member"

    @pytest.mark.parametrize(("name", "units"), [("mrr", "dBZ"), ("t2m", "°C"), ("u10m", "m s⁻¹"), ("v10m", "m s⁻¹")])
    def test_units_are_on_every_color_bar(self, axes, name, units):
        for part in ("member", "spread"):
            assert axes[f"{name} {part} bar"].get_title(loc="left") == units
        assert axes[f"{name} input bar"].get_title(loc="left") == ("kg m⁻²" if name == "mrr" else units)

    def test_says_what_stands_in_for_the_missing_input(self, axes):
        said = [text.get_text() for text in axes["mrr input"].texts]
        assert "total column water vapour:\nthe input has no reflectivity" in said
        assert not any("the input has no" in text.get_text() for text in axes["t2m input"].texts)

    def test_extremes_are_in_the_corner(self, axes, fields):
        celsius = fields[1]["t2m"][0].values.astype(float) - 273.15
        assert axes["t2m member"].texts[-1].get_text() == f"{celsius.min():.1f} … {celsius.max():.1f}"
        assert axes["v10m member"].texts[-1].get_text().startswith("\N{MINUS SIGN}")

    def test_degrees_are_along_the_outer_edges_only(self, axes):
        for label, panel in panels(axes).items():
            below = [tick.get_text() for tick in panel.get_xticklabels()]
            beside = [tick.get_text() for tick in panel.get_yticklabels()]
            assert below == (["120.5°E", "121°E", "121.5°E"] if label.startswith("v10m") else [""] * 3)
            assert beside == (["23°N", "23.5°N"] if label.endswith("input") else [""] * 2)

    @pytest.mark.parametrize("domain", [SMALL, TALL, TAIWAN], ids=lambda domain: domain.name)
    @pytest.mark.parametrize("note", ["", "trained on nature run: synthetic weather, no forecast; " * 4])
    def test_no_words_overlap_or_leave_the_page(self, domain, note):
        drawn = figure(*case(domain, members=2), "gfs · demo-1a2b3c4d", note)
        renderer = FigureCanvasAgg(drawn).get_renderer()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in all_words(drawn)]
        page = drawn.bbox
        for words, box in boxes:
            assert page.x0 <= box.x0 < box.x1 <= page.x1, words
            assert page.y0 <= box.y0 < box.y1 <= page.y1, words
        for (words, box), (others, other) in combinations(boxes, 2):
            assert not (box.x0 < other.x1 and other.x0 < box.x1 and box.y0 < other.y1 and other.y0 < box.y1), (
                words,
                others,
            )


class TestFields:
    def test_input_mean_and_member_share_one_scale(self, axes):
        for name in OUTPUTS:
            shared = [field(axes[f"{name} {part}"]) for part in PARTS[name == "mrr" : 3]]
            bars = [field(axes[f"{name} {part} bar"]) for part in ("input", "member")[name == "mrr" :]]
            first = shared[0]
            for other in (*shared[1:], *bars):
                np.testing.assert_array_equal(other.norm.boundaries, first.norm.boundaries)
                np.testing.assert_array_equal(other.cmap(np.arange(99)), first.cmap(np.arange(99)))

    def test_every_value_is_inside_its_scale(self, axes):
        for label, panel in panels(axes).items():
            shown = field(panel)
            values, levels = np.asarray(shown.get_array()), shown.norm.boundaries
            assert levels[0] <= values.min(), label
            assert values.max() < levels[-1] or label in ("mrr mean", "mrr member"), label

    def test_shows_mean_first_member_and_sample_spread(self, axes, fields):
        for name in OUTPUTS:
            values = fields[1][name].values.astype(np.float64) - (273.15 if name == "t2m" else 0)
            for part, expected in (
                ("mean", values.mean(0)),
                ("member", values[0]),
                ("spread", values.std(0, ddof=1)),
            ):
                np.testing.assert_allclose(field(axes[f"{name} {part}"]).get_array(), expected, rtol=0, atol=1e-4)

    def test_south_is_at_the_bottom_and_every_cell_is_square(self, axes):
        x, y, half = SMALL.x, SMALL.y, SMALL.step / 2
        for label, panel in panels(axes).items():
            assert panel.get_xlim() == (x[0] - half, x[-1] + half)
            assert panel.get_ylim() == (y[0] - half, y[-1] + half)
            assert panel.get_aspect() == 1.0
            for image in panel.images:
                assert image.origin == "lower", label
                assert tuple(image.get_extent()) == (*panel.get_xlim(), *panel.get_ylim())

    def test_input_cells_lie_around_their_own_coordinates(self, axes, fields):
        mesh = field(axes["t2m input"])
        corners = mesh.get_coordinates()
        centers = (corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]) / 4
        longitude, latitude = SMALL.unproject(centers[..., 0], centers[..., 1])
        lines = {"latitude": latitude[:, 0].round(2), "longitude": longitude[0].round(2)}
        np.testing.assert_allclose(np.diff(lines["latitude"]), 0.25)
        np.testing.assert_allclose(np.diff(lines["longitude"]), 0.25)
        np.testing.assert_allclose(mesh.get_array(), fields[0]["t2m"].sel(lines) - 273.15, atol=1e-4)
        assert corners[0, :, 1].max() < SMALL.y[0]
        assert corners[-1, :, 1].min() > SMALL.y[-1]

    def test_one_member_has_no_spread(self):
        drawn = figure(*case(members=1), "gfs")
        axes = {axes.get_label(): axes for axes in drawn.axes}
        assert not axes["t2m spread"].images
        assert [text.get_text() for text in axes["t2m spread"].texts] == ["one member: no spread"]
        assert "t2m spread bar" not in axes

    def test_members_all_alike_have_a_pale_spread(self, fields):
        inputs, ensemble = fields
        alike = ensemble.isel(member=[0, 0, 0]).assign_coords(member=range(3))
        axes = {axes.get_label(): axes for axes in figure(inputs, alike, "gfs").axes}
        shown = field(axes["mrr spread"])
        assert shown.to_rgba(np.zeros(1))[0] == pytest.approx(np.array(to_rgba("#fdfbf2")), abs=0.1)


class TestMap:
    def test_coastline_is_inside_every_panel_and_where_the_domain_has_it(self, axes):
        cape = SMALL.project(np.float64(121.38), np.float64(23.10))
        for label, panel in panels(axes).items():
            (coast,) = [artist for artist in panel.collections if artist.get_gid() == "coastline"]
            points = np.concatenate(coast.get_segments())
            (west, east), (south, north) = panel.get_xlim(), panel.get_ylim()
            seen = (west < points[:, 0]) & (points[:, 0] < east) & (south < points[:, 1]) & (points[:, 1] < north)
            assert seen.sum() >= 4, label
            assert np.hypot(*(points - cape).T).min() < 1.0, label
            assert coast.get_clip_on()
            assert coast.get_zorder() > field(panel).get_zorder()

    def test_degrees_are_where_the_graticule_meets_the_edge(self, axes):
        panel = axes["v10m input"]
        _, latitude = SMALL.unproject(np.full(2, panel.get_xlim()[0]), np.array(panel.get_yticks()))
        longitude, _ = SMALL.unproject(np.array(panel.get_xticks()), np.full(3, panel.get_ylim()[0]))
        np.testing.assert_allclose(latitude, [23.0, 23.5], atol=1e-5)
        np.testing.assert_allclose(longitude, [120.5, 121.0, 121.5], atol=1e-5)


def test_a_region_with_fewer_variables_has_fewer_rows(fields):
    """No radar in the truth; and an input without the variable that an output could be compared with says so."""
    inputs, ensemble = fields
    drawn = figure(inputs.drop_vars(["u10m", "tcwv"]), ensemble.drop_vars("mrr"), "gfs")
    panels = {axes.get_label(): axes for axes in drawn.axes}
    assert {label.split()[0] for label in panels} == {"t2m", "u10m", "v10m"}
    assert [text.get_text() for text in panels["u10m input"].texts] == ["the input has no wind"]
    assert panels["v10m input"].get_xticklabels()[0].get_text()
    assert not panels["t2m input"].get_xticklabels()[0].get_text()


class TestRefusals:
    @pytest.mark.parametrize("name", OUTPUTS)
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_an_ensemble_that_is_not_finite(self, fields, name, value):
        inputs, ensemble = fields
        broken = ensemble.copy(deep=True)
        broken[name][1, 2, 3] = value
        with pytest.raises(QualityError, match=rf"{name} is not finite at 1 of"):
            figure(inputs, broken, "gfs")

    @pytest.mark.parametrize("name", ["tcwv", "t2m", "u10m"])
    def test_inputs_that_are_not_finite(self, fields, name):
        broken = fields[0].copy(deep=True)
        broken[name][1, 2] = np.nan
        with pytest.raises(QualityError, match=f"{name} is not finite at 1 of"):
            figure(broken, fields[1], "gfs")

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (lambda i, e: (i, e.drop_vars("valid_time")), QualityError, "carries no valid_time"),
            (
                lambda i, e: (i.assign_coords(valid_time=np.datetime64(INIT, "ns")), e),
                QualityError,
                "valid_time of the",
            ),
            (lambda i, e: (i, e.drop_vars(e.data_vars)), QualityError, "variables missing: mrr, t2m, u10m, v10m"),
            (lambda i, e: (i, e.rename(t2m="t")), QualityError, "missing: none; not known: t:"),
            (lambda i, e: (i.rename(tcwv="pwat"), e), QualityError, "missing: none; not known: pwat:"),
            (lambda i, e: (i, e.drop_vars("spatial_ref")), GridError, "not given.*read it from the archive"),
            (lambda i, e: (i, e.drop_vars("x")), GridError, "with y and x"),
            (lambda i, e: (i.isel(latitude=slice(0, 8)), e), GridError, "does not cover"),
        ],
    )
    def test_fields_that_do_not_fit(self, fields, change, error, words):
        with pytest.raises(error, match=words):
            figure(*change(*fields), "gfs")

    @pytest.mark.parametrize("url", ["", "folder/", "memory://a.png", "s3://a.png"])
    def test_a_url_that_names_no_file_in_a_folder(self, fields, url):
        with pytest.raises(ConfigurationError, match="name a file in a folder"):
            quicklook(*fields, url, "gfs")

    def test_writes_nothing_when_it_refuses(self, fields, tmp_path):
        with pytest.raises(CorrdiffError):
            quicklook(fields[0], fields[1].drop_vars("spatial_ref"), f"{tmp_path}/a/b.png", "gfs")
        assert list(tmp_path.iterdir()) == []


class TestFile:
    def test_makes_folders_and_leaves_one_file(self, fields, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for url in (f"{tmp_path}/deep/er/a.png", f"file://{tmp_path}/deep/er/b.png", "c.png"):
            quicklook(*fields, url, "gfs")
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        assert [path.name for path in files] == ["c.png", "a.png", "b.png"]
        assert len({path.read_bytes() for path in files}) == 1
        assert files[0].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert Image.open(files[0]).text["Title"] == "gfs"

    def test_replaces_a_picture_whole(self, fields, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(b"x" * 10_000_000)
        quicklook(*fields, str(path), "gfs")
        assert opened(str(path)).size[0] == 1600

    def test_takes_any_filesystem(self, fields, s3_url):
        for url in ("memory://pictures/new/a.png", f"{s3_url}/quicklook/a.png"):
            quicklook(*fields, url, "gfs")
            assert opened(url).size[0] == 1600

    def test_the_whole_domain_is_a_small_file(self):
        quicklook(*case(TAIWAN), "memory://pictures/taiwan.png", "gfs", "no forecast")
        assert fsspec.filesystem("memory").size("/pictures/taiwan.png") < 700_000
        picture = opened("memory://pictures/taiwan.png")
        assert picture.size == (1600, 1484)
        assert picture.getpixel((3, 3)) == (255, 255, 255)

    def test_every_color_of_every_scale_is_in_the_file(self, drawn, axes, fields):
        quicklook(*fields, "memory://pictures/a.png", "gfs")
        there = np.array([color for _, color in opened("memory://pictures/a.png").getcolors(1 << 24)])
        for label in (f"{name} {part} bar" for name in OUTPUTS for part in ("input", "member", "spread")):
            shown = field(axes[label])
            for color in shown.cmap(np.arange(shown.cmap.N), bytes=True)[:, :3]:
                assert np.abs(there - color).max(axis=1).min() <= 1, label

    def test_threads_draw_the_same_bytes(self, fields):
        urls = [f"memory://pictures/{number}.png" for number in range(3)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda url: quicklook(*fields, url, "gfs"), urls))
        filesystem = fsspec.filesystem("memory")
        assert len({filesystem.cat_file(url) for url in urls}) == 1

    def test_leaves_no_state_in_pyplot(self, fields):
        figure(*fields, "gfs")
        assert pyplot.get_fignums() == []

    @pytest.mark.parametrize("kind", ["forecast", "hindcast"])
    def test_draws_what_the_archive_returns(self, tmp_path, kind):
        series = Series(kind, "gfs", "demo-1a2b3c4d")
        slot = SLOT if kind == "forecast" else Slot(SLOT.valid_time)
        inputs, ensemble = case(members=2, slot=slot)
        archive = Archive(str(tmp_path))
        leads = [slot.lead_time] if kind == "forecast" else []
        archive.create(series, slot, Layout(SMALL, 2, leads, inputs.latitude.values, inputs.longitude.values))
        archive.write_inputs(series, slot, inputs, {})
        archive.write(series, slot, ensemble)
        archive.publish(series, slot, {})
        drawn = figure(archive.read_inputs(series, slot)[0], archive.read(series, slot), "gfs")
        assert "2 members" in drawn.texts[0].get_text()
        assert ("lead +6 h" in drawn.texts[0].get_text()) == (kind == "forecast")


VALUES = st.floats(-120.0, 120.0)


class TestColors:
    def test_reflectivity_has_the_usual_steps(self):
        scale = colors.radar(np.zeros(1))
        assert scale.levels.tolist() == list(range(0, 66, 5))
        norm, cmap = scale.norm, scale.cmap
        shade = lambda dbz: cmap(norm(np.array([dbz])))[0]  # noqa: E731
        assert shade(0.0) == pytest.approx(to_rgba("white"))
        assert shade(4.9) == pytest.approx(to_rgba("white"))
        assert shade(22.0) == pytest.approx(to_rgba("#02fd02"))
        assert shade(64.9) == pytest.approx(to_rgba("#bc0000"))
        assert shade(70.0) == pytest.approx(to_rgba("#f800fd"))

    @given(first=VALUES, second=VALUES)
    def test_wind_is_symmetric_and_blue_below_zero(self, first, second):
        scale = colors.wind(np.array([first, second]))
        np.testing.assert_allclose(scale.levels, -scale.levels[::-1], atol=1e-9)
        assert max(abs(first), abs(second)) < scale.levels[-1]
        assert 0 in scale.ticks
        red, _, blue, _ = np.transpose(scale.colors)
        below = (scale.levels[1:] + scale.levels[:-1]) < 0
        assert (blue[below] > red[below]).all()
        assert (blue[~below] < red[~below]).all()

    @given(low=VALUES, width=st.floats(0.0, 120.0), make=st.sampled_from([colors.temperature, colors.water_vapour]))
    def test_bands_hold_all_values_between_round_levels(self, low, width, make):
        scale = make(np.array([low, low + width]))
        step = scale.levels[1] - scale.levels[0]
        assert scale.levels[0] <= low <= low + width < scale.levels[-1]
        np.testing.assert_allclose(np.diff(scale.levels), step)
        np.testing.assert_allclose(scale.levels / step, np.round(scale.levels / step), atol=1e-6)
        assert len(scale.colors) == len(scale.levels) - 1 <= 42
        assert 1 <= len(scale.ticks) <= 12

    @given(low=st.integers(-10, 30), width=st.integers(1, 9))
    def test_a_temperature_has_one_color_whatever_the_range(self, low, width):
        narrow, wide = colors.temperature(np.array([low, low + width])), colors.temperature(np.array([-11.5, 39.5]))
        at = np.array([low + 0.5])
        assert narrow.cmap(narrow.norm(at)) == pytest.approx(wide.cmap(wide.norm(at)), abs=0.1)

    @given(width=st.floats(1e-3, 1e4), most=st.integers(1, 50))
    def test_nice_steps_are_as_small_as_allowed(self, width, most):
        step = colors.nice_step(width, most)
        assert width / step <= most * (1 + 1e-6)
        assert 2.5 * step * most >= width
        assert f"{step:e}"[:8] in ("1.000000", "2.000000", "5.000000")
        assert width / (step / 2.5) > most * (1 - 1e-6)
