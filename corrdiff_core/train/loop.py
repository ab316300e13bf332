"""The training loop, which both stages share."""

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.errors import TrainingError
from corrdiff_core.train.batches import Batch, KeyedWindows, key, loader, share_of
from corrdiff_core.train.curves import Curves, Report
from corrdiff_core.train.preset import Preset, StageName
from corrdiff_core.train.processes import Processes
from corrdiff_core.train.schedule import average_weight, due, learning_rate
from corrdiff_core.train.stages import Objective, Stage
from corrdiff_core.train.state import Progress, Trained, load_state, save_state
from corrdiff_core.train.validation import Validation

Net = TypeVar("Net", bound=nn.Module)
SMOOTHING = 0.98  # weight of the past in the loss that is reported


@dataclass(frozen=True)
class Run:
    """Everything that both stages share. `task` says in JSON values what is trained: a state of another is refused."""

    preset: Preset
    task: dict[str, Any]
    folder: Path
    processes: Processes
    workers: int
    report: Report

    @property
    def bfloat16(self) -> bool:
        """Whether passes are autocast on this device. A CPU that emulates bfloat16 is eight times slower with it."""
        where = self.preset.bfloat16
        if self.processes.device.type == "cuda":
            return where != "never"
        return where == "native" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def state_name(stage: StageName) -> str:
    return f"{stage}.state"


def train_stage(
    run: Run, stage: Stage, network: Net, windows: KeyedWindows, held_out: KeyedWindows | None
) -> tuple[Net, Progress]:
    """Train `network` to the end of `stage`, from where an earlier run stopped.

    Returns its averaged weights, in eval mode and free of gradients, and what happened. Raises TrainingError where
    more steps were skipped than the preset allows, and for a state that cannot be trusted.
    """
    preset, processes = run.preset, run.processes
    network.to(device=processes.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=preset.learning_rate, fused=processes.device.type == "cuda" or None
    )
    training = StageTraining(run, stage, network, average, optimizer)
    training.resume()
    processes.agree(f"step of {state_name(stage.name)}", training.progress.step)
    if training.progress.step < preset.steps(stage.name):
        training.run_to_end(windows, held_out)
    return average, training.progress


class StageTraining(Generic[Net]):
    """One stage under way: its weights, their average, its optimizer and its progress, which always fit together."""

    def __init__(self, run: Run, stage: Stage, network: Net, average: Net, optimizer: torch.optim.Optimizer) -> None:
        self.run, self.stage, self.preset, self.processes = run, stage, run.preset, run.processes
        self.trained = Trained(network, average, optimizer)
        self.objective = self.processes.shared(Objective(network, stage))
        self.progress = Progress()
        self._objects = open_objects(str(run.folder))

    def resume(self) -> None:
        found = load_state(self._objects, state_name(self.stage.name), self.run.task, self.trained)
        self.progress = found or self.progress

    def run_to_end(self, windows: KeyedWindows, held_out: KeyedWindows | None) -> None:
        preset, batch, total = self.preset, self.preset.batch, self.preset.steps(self.stage.name)
        validation = None if held_out is None else self._validation(held_out)
        with self._curves(self.progress.step * batch, total * batch) as curves:
            for step, passes in self._steps(windows, self.progress.step, total):
                self._step(step, passes, curves)
                last = step + 1 == total
                if validation is not None and (last or due(preset, preset.validate_every, step)):
                    self._validate(validation, curves)
                if last or due(preset, preset.save_every, step):
                    self._save(curves)

    def _curves(self, first: int, total: int) -> "Curves | nullcontext[None]":
        if not self.processes.leads:
            return nullcontext()
        return Curves(self.run.folder, self.stage.name, first, total, self.run.report)

    def _validation(self, held_out: KeyedWindows) -> Validation:
        preset = self.preset
        times = preset.validation_times
        return Validation(held_out, times, preset.times_per_pass, self.run.workers, self.processes, self.run.bfloat16)

    def _steps(self, windows: KeyedWindows, first: int, last: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        """The passes of steps first..last-1 that are this process's, on its device."""
        share, device = share_of(self.preset, self.processes), self.processes.device
        positions = share.positions(first, last)
        passes = iter(loader(windows, positions, share.times_per_pass, self.run.workers, device))
        for step in range(first, last):
            yield step, (Batch(*each).on(device) for each in islice(passes, share.passes))

    def _step(self, step: int, passes: Iterator[Batch], curves: Curves | None) -> None:
        """One step of the optimizer, skipped where loss or gradient is not finite."""
        preset, optimizer = self.preset, self.trained.optimizer
        rate = learning_rate(preset, self.stage.name, step * preset.batch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(step, passes)
        norm = float(nn.utils.clip_grad_norm_(self.trained.parameters, preset.gradient_clip))
        self.progress.step, seen = step + 1, (step + 1) * preset.batch
        if math.isfinite(loss) and math.isfinite(norm):
            optimizer.step()
            self._update_average(seen)
            past = loss if self.progress.loss is None else self.progress.loss
            self.progress.loss = SMOOTHING * past + (1 - SMOOTHING) * loss
        else:
            self._skip(step, loss, norm, curves)
        if curves is not None:
            smoothed = loss if self.progress.loss is None else self.progress.loss
            curves.step(seen, loss, smoothed, learning_rate=rate, gradient_norm=norm)

    def _gradients(self, step: int, passes: Iterator[Batch]) -> float:
        """Add up the gradients of the mean loss over the step's windows in all processes; returns that loss."""
        share, device = share_of(self.preset, self.processes), self.processes.device
        total = torch.zeros((), device=device)
        for number, batch in enumerate(passes):
            torch.manual_seed(key(self.preset.seed, self.stage.name, "dropout", step, self.processes.rank, number))
            with self._exchanged(last=number + 1 == share.passes):
                with torch.autocast(device.type, torch.bfloat16, enabled=self.run.bfloat16):
                    loss: Tensor = self.objective(*self.stage.terms(batch)) / share.passes
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(self.processes.total(total)) / self.processes.world

    def _exchanged(self, last: bool) -> AbstractContextManager[None]:
        """Within it gradients stay in this process, unless this is the last pass of a step."""
        if isinstance(self.objective, DistributedDataParallel) and not last:
            silence: AbstractContextManager[None] = self.objective.no_sync()
            return silence
        return nullcontext()

    def _update_average(self, seen: int) -> None:
        """Exponential moving average of the weights (EDM's 5% ramp-up at the start)."""
        weight = average_weight(self.preset, seen)
        with torch.no_grad():
            averages, values = self.trained.average.parameters(), self.trained.network.parameters()
            torch._foreach_lerp_(list(averages), list(values), weight)

    def _skip(self, step: int, loss: float, norm: float, curves: Curves | None) -> None:
        self.progress.skipped += 1
        skipped, limit = self.progress.skipped, self.preset.skip_limit
        if curves is not None:
            curves.skipped(self.progress.step * self.preset.batch, norm, skipped, limit)
        if skipped > limit:
            raise TrainingError(
                f"{self.stage.name} step {step}: loss {loss}, gradient {norm}; {skipped} steps were skipped, the "
                f"preset allows {limit}: lower the learning rate"
            )

    def _validate(self, validation: Validation, curves: Curves | None) -> None:
        seen = self.progress.step * self.preset.batch
        loss = validation.loss(self.trained.average, self.stage)
        self.progress.validation.append((seen, loss))
        if curves is not None:
            curves.validated(seen, loss)

    def _save(self, curves: Curves | None) -> None:
        if curves is not None:
            curves.flush()
            save_state(self._objects, state_name(self.stage.name), self.run.task, self.progress, self.trained)
