"""The loss on samples that training does not see, of the averaged weights: the same windows and noise every time."""

from dataclasses import dataclass

import torch

from corrdiff_core.errors import TrainingError
from corrdiff_core.train.batches import Batch, KeyedWindows, loader
from corrdiff_core.train.processes import Processes
from corrdiff_core.train.stages import Objective, Stage


@dataclass
class Validation:
    """`times` times of `windows`, shared by all processes."""

    windows: KeyedWindows
    times: int
    times_per_pass: int
    workers: int
    processes: Processes
    bfloat16: bool

    def __post_init__(self) -> None:
        mine = range(self.processes.rank, self.times, self.processes.world)
        self._batches = loader(self.windows, mine, self.times_per_pass, min(self.workers, 1), self.processes.device)

    def loss(self, average: torch.nn.Module, stage: Stage) -> float:
        """Mean over all windows; TrainingError where it is not finite. `average` is in eval mode and stays so."""
        if average.training:
            raise TrainingError(f"{stage.name}: validation of a network in training mode would use dropout")
        objective, device = Objective(average, stage).eval(), self.processes.device
        total = torch.zeros(2, dtype=torch.float64, device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            for each in self._batches:
                batch = Batch(*each).on(device)
                loss, windows = objective(*stage.terms(batch)), len(batch.truth)
                total += torch.stack([loss * windows, torch.full_like(loss, windows)]).double()
        total = self.processes.total(total)
        mean = float(total[0] / total[1])
        if not torch.isfinite(total).all():
            raise TrainingError(f"{stage.name}: validation loss is {mean}: lower the learning rate")
        return mean
