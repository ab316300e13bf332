"""Shared parts of the core's tests: one thread for what must agree to the bit, a small checkpoint."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch in one thread, whatever the environment says."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made():
    """Untrained networks on the small domain."""
    from tests.small_domain import checkpoint

    return checkpoint()
