"""Public buckets of weather: read anonymously and where they lie, whatever the user's own object storage is."""

from corrdiff_core.sources.ranges import Root

_REGIONS = {
    "s3://noaa-gfs-bdp-pds": "us-east-1",
    "s3://noaa-gefs-pds": "us-east-1",
    "s3://noaa-oar-mlwp-data": "us-east-1",
    "s3://ecmwf-forecasts": "eu-central-1",
}


def root_of(url: str) -> Root:
    """The Root at `url`. Settings of the user's own storage (endpoint, credentials) do not reach a public bucket."""
    region = _REGIONS.get(url.rstrip("/"))
    if region is None:
        return Root(url)
    endpoint = ("endpoint_url", f"https://s3.{region}.amazonaws.com")
    return Root(url, (("anon", True), endpoint, ("client_kwargs", {"region_name": region})))
