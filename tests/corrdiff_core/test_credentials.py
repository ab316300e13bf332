"""What URLs carry of credentials is refused, and told in no message."""

import base64
import http.server
import pickle
import threading
from urllib.parse import parse_qsl, quote, urlsplit

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.credentials import refuse_credentials
from corrdiff_core.errors import ConfigurationError, CorrdiffError, SourceError, without_credentials
from corrdiff_core.manifest import read_manifest
from corrdiff_core.sources.places import filesystem_of
from corrdiff_core.sources.ranges import Root

SECRET = "Pl4nted%2Fsecret"  # noqa: S105
CARRYING = [
    f"https://me:{SECRET}@host/gfs",
    f"https://{SECRET}@host/gfs",
    f"s3://key:{SECRET}@bucket/archive",
    f"https://host/a.nc?X-Amz-Signature={SECRET}",
    f"https://host/a.nc?v=1&x-amz-security-token={SECRET}&x=2",
    f"https://account.blob.core.windows.net/c/a.nc?sv=2022&sig={SECRET}",
    f"https://host/a.nc?AWSAccessKeyId=AK&Signature={SECRET}",
    f"https://host/a.nc?access_token={SECRET}",
    f"https://host/a.nc?api_key={SECRET}",
]
PLAIN = [
    "s3://noaa-gfs-bdp-pds",
    "abfs://container@account.dfs.core.windows.net/path",
    "https://storage.googleapis.com/gcp-public-data-arco-era5/ar/full.zarr-v3",
    "https://here/mine.nc?version=2",
    "./archive",
    "/data/mine_?.nc",
    "taiwan@3",
    "2026-01-01T00@2026-11-25T12x60",
    "memory://a/b",
]


@pytest.mark.parametrize("url", CARRYING)
def test_every_door_refuses_it_and_tells_nothing(url):
    for door in (refuse_credentials, filesystem_of, open_objects, read_manifest, lambda one: Root(one).find("x")):
        with pytest.raises(ConfigurationError, match=r"\*\*\*.* has a credential in it.* leave it out") as refused:
            door(url)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("url", PLAIN)
def test_what_carries_none_is_left_alone(url):
    refuse_credentials(url)
    assert without_credentials(url) == url


@pytest.mark.parametrize("url", CARRYING)
def test_no_failure_of_ours_tells_it_wherever_it_stands(url):
    error = SourceError(f"{url}/x could not be read ('{url}'): HTTP 403; see {url}, or (url={url})")
    assert SECRET not in str(error)
    assert "could not be read" in str(error)
    assert str(error).count("***") == 4 * without_credentials(url).count("***")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
    assert CorrdiffError(3).args == (3,)


@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_a_quoted_password_never_survives(user, password, path):
    """As the standard library takes URLs apart."""
    url = (
        f"https://{quote(user, safe='')}:{quote(password, safe='')}@host/{quote(path)}?token={quote(password, safe='')}"
    )
    told = urlsplit(without_credentials(url))
    assert told.password is None
    assert told.username == "***"
    assert (told.hostname, told.path) == ("host", f"/{quote(path)}")
    assert dict(parse_qsl(told.query)) == {"token": "***"}
    assert without_credentials(told.geturl()) == told.geturl()


class _Guarded(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'me:secret').decode()}"
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"bytes" if right else b"no no")

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *arguments):
        pass


def test_a_header_is_where_a_password_belongs(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}/gfs"
        with pytest.raises(SourceError, match="HTTP 401"):
            Root(root).find("x")
        header = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}
        monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"headers": header}})
        found = Root(root).find("x")
        assert found.size == 5
        assert Root(root).read(found, [found.whole]) == [b"bytes"]
        server.shutdown()
