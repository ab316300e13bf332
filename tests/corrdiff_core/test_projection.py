"""The projection against PROJ, which runs in a process of its own (its library and ecCodes' do not share one)."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import ConfigurationError, GridError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.projection import LambertConformal, LongLat, Mercator, parse_projection, projection_of

PROJ = """
import json, sys
import numpy as np
from pyproj import CRS, Transformer
text, wkt, mapping, x, y = json.load(sys.stdin)
crs = CRS.from_proj4(text)
there = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
longitude, latitude = there.transform(x, y)
described = {name: Transformer.from_crs(other, crs.geodetic_crs, always_xy=True).transform(x, y)
             for name, other in (("wkt", CRS.from_wkt(wkt)), ("cf", CRS.from_cf(mapping)))}
json.dump({"longitude": longitude, "latitude": latitude, "there": described, "wkt": CRS.from_wkt(wkt) == crs,
           "cf": CRS.from_cf(mapping) == crs}, sys.stdout)
"""


def ask_proj(text: str, x: np.ndarray, y: np.ndarray) -> dict:
    ours = parse_projection(text)
    question = json.dumps([text, ours.wkt, ours.grid_mapping, x.tolist(), y.tolist()])
    answer = subprocess.run([sys.executable, "-c", PROJ], input=question, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


@pytest.mark.parametrize(
    "text",
    [
        TAIWAN.projection,
        "+proj=lcc +lat_1=38.5 +lat_2=38.5 +lat_0=38.5 +lon_0=-97.5 +R=6371229",
        "+proj=lcc +lat_1=-25 +lat_2=-40 +lat_0=-30 +lon_0=25 +R=6371000 +units=m",
    ],
)
def test_inverse_wkt_and_cf_agree_with_proj(text):
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-9e5, 9e5, 7), np.linspace(-8e5, 8e5, 5)))
    proj = ask_proj(text, x, y)
    longitude, latitude = parse_projection(text).inverse(x, y)
    np.testing.assert_allclose(longitude, proj["longitude"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(latitude, proj["latitude"], rtol=0, atol=1e-10)
    assert proj["wkt"]
    assert proj["cf"]


@pytest.mark.parametrize(
    "text",
    [
        "+proj=merc +lat_ts=15 +lon_0=121 +R=6371229",
        "+proj=merc +lat_ts=0 +lon_0=-170 +R=6370000 +units=m +no_defs",
        "+proj=merc +lat_ts=-41 +lon_0=175 +R=6371000",
    ],
)
def test_mercator_agrees_with_proj(text):
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-2e6, 2e6, 7), np.linspace(-5e6, 5e6, 5)))
    proj = ask_proj(text, x, y)
    ours = parse_projection(text)
    longitude, latitude = ours.inverse(x, y)
    for theirs in ((proj["longitude"], proj["latitude"]), proj["there"]["wkt"], proj["there"]["cf"]):
        np.testing.assert_allclose((longitude - theirs[0] + 180) % 360, 180, rtol=0, atol=1e-10)
        np.testing.assert_allclose(latitude, theirs[1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.forward(longitude, latitude), (x, y), rtol=0, atol=1e-6)


def test_degrees_are_degrees_to_proj_too():
    text = "+proj=longlat +R=6371229 +no_defs"
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(110, 130, 7), np.linspace(-30, 30, 5)))
    proj = ask_proj(text, x, y)
    for theirs in ((proj["longitude"], proj["latitude"]), proj["there"]["wkt"], proj["there"]["cf"]):
        np.testing.assert_allclose(parse_projection(text).inverse(x, y), theirs, rtol=0, atol=1e-10)


@given(
    st.floats(5, 60), st.floats(5, 60), st.floats(-180, 180), st.floats(-40, 40), st.floats(2, 70),
    st.sampled_from([1, -1]),
)  # fmt: skip
def test_inverse_undoes_forward(first, second, center, away, latitude, side):
    projection = LambertConformal(side * first, side * second, side * 30.0, center, 6.371e6)
    x, y = projection.forward(np.array(center + away), np.array(side * latitude))
    longitude, back = projection.inverse(x, y)
    np.testing.assert_allclose(longitude, center + away, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back, side * latitude, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("+proj=stere +lat_0=90 +R=6371000", "known are +proj=lcc with lat_1, lat_2, lat_0, lon_0, R; +proj=merc with"),
        ("+proj=merc +R=6371000", "missing ['lat_ts', 'lon_0']"),
        ("+proj=merc +lat_ts=90 +lon_0=0 +R=6371000", "between the poles"),
        ("+proj=longlat +R=6371000 +ellps=WGS84", "ellps"),
        ("+proj=longlat +R=0", "positive"),
        ("+proj=lcc +lat_1=10 +lat_2=40 +lat_0=23.5 +R=6370000", "lon_0"),
        ("+proj=lcc +lat_1=10 +lat_2=40 +lat_0=23.5 +lon_0=120 +R=6370000 +ellps=WGS84", "ellps"),
        ("+proj=lcc +lat_1=ten +lat_2=40 +lat_0=23.5 +lon_0=120 +R=6370000", "ten"),
        ("+proj=lcc +lat_1=10 +lat_2=-10 +lat_0=0 +lon_0=120 +R=6370000", "cancel"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(text, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        parse_projection(text)


@pytest.mark.parametrize(
    "text", [TAIWAN.projection, "+proj=merc +lat_ts=15 +lon_0=121 +R=6371229", "+proj=longlat +R=1"]
)
def test_a_grid_mapping_restores_the_projection(text):
    projection = parse_projection(text)
    assert projection_of(projection.grid_mapping) == projection


def test_the_three_are_told_apart():
    kinds = (LambertConformal, Mercator, LongLat)
    texts = (TAIWAN.projection, "+proj=merc +lat_ts=15 +lon_0=121 +R=6371229", "+proj=longlat +R=1")
    assert [type(parse_projection(text)) for text in texts] == list(kinds)


def test_another_grid_mapping_is_refused():
    with pytest.raises(
        GridError, match="is stereographic, one of lambert_conformal_conic, mercator, latitude_longitude"
    ):
        projection_of({"grid_mapping_name": "stereographic"})
