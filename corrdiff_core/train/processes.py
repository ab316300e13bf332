"""The processes that train together: one, or as many as torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from corrdiff_core.errors import TrainingError

PATIENCE = timedelta(hours=2)  # statistics and the first save are made by one process while the others wait


@dataclass(frozen=True)
class Processes:
    """This process among `world`, and the device that it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes of a tensor on this device."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader does what is inside before the others do."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def shared(self, module: nn.Module) -> nn.Module:
        """`module` with gradients that are the mean over all processes."""
        return DistributedDataParallel(module) if self.world > 1 else module

    def agree(self, what: str, value: int) -> None:
        """TrainingError unless `value` is the same in all processes."""
        if self.world > 1:
            values = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
            dist.all_gather(values, torch.tensor([value], device=self.device))
            found = [int(each) for each in values]
            if len(set(found)) > 1:
                raise TrainingError(
                    f"{what} is {found} in the {self.world} processes: give all of them the same folder, "
                    "on storage that they share"
                )


def leads() -> bool:
    """Whether this process writes and reports, of those that torchrun started; true without torchrun."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


@contextmanager
def training_processes(device: str | None = None) -> Iterator[Processes]:
    """The processes of a torchrun, or this one alone, on `device`: CUDA where there is one, one GPU to a process."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not dist.is_torchelastic_launched():
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()
