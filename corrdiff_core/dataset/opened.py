"""The samples that a URL names, whatever their kind."""

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import parse_time
from corrdiff_core.dataset.cwa import CwaDataset
from corrdiff_core.dataset.cwa_store import is_cwa
from corrdiff_core.dataset.layout import ABOUT
from corrdiff_core.dataset.nature_run import NatureRun
from corrdiff_core.dataset.samples import Samples
from corrdiff_core.dataset.store import StoredSamples
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN, Domain

NATURE = "nature:"


def open_samples(url: str, domain: Domain = TAIWAN) -> Samples:
    """The samples at `url`: `nature:SEED:START:END:COUNT`, a dataset in our layout, or the CWA dataset.

    `domain` is that of a nature run and of the CWA dataset; ours says its own. Raises DatasetError for anything else.
    """
    if url.startswith(NATURE):
        return _nature_run(url, domain)
    if open_objects(url).exists(ABOUT):
        return StoredSamples.open(url)
    if is_cwa(url):
        return CwaDataset.open(url, domain)
    raise DatasetError(
        f"{url} is no samples: name a folder with {ABOUT} (corrdiff dataset build), the CWA dataset (a consolidated "
        f"Zarr v2 with cwb and era5), or {NATURE}SEED:START:END:COUNT"
    )


def _nature_run(url: str, domain: Domain) -> NatureRun:
    """Times may hold colons, so the period is what is between the seed and the count, cut where both halves parse."""
    seed, _, rest = url.removeprefix(NATURE).partition(":")
    period, _, count = rest.rpartition(":")
    parts = period.split(":")
    halves = [(":".join(parts[:cut]), ":".join(parts[cut:])) for cut in range(1, len(parts))]
    for start, end in halves:
        try:
            return NatureRun(domain, int(seed), parse_time(start), parse_time(end), int(count))
        except ValueError:
            continue
    raise DatasetError(
        f"{url!r} is no nature run: write {NATURE}SEED:START:END:COUNT, as {NATURE}1:20210101T00:20220101T00:24"
    )
