"""The state of a stage as one file: weights, their average, optimizer and counters of one step, under one digest."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corrdiff_core.archive.objects import Objects
from corrdiff_core.errors import TrainingError

MAGIC = b"corrdiff training state 1 "  # then the SHA-256 of all that follows it, a line feed, and a safetensors file
_DIGEST = 64
_HEADER = len(MAGIC) + _DIGEST + 1


@dataclass
class Progress:
    """How far a stage is. `loss` is smoothed; `validation` holds [samples seen, loss]."""

    step: int = 0
    skipped: int = 0
    loss: float | None = None
    validation: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """All tensors that a stage changes."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """By name; the optimizer's under the position of their parameter."""
        for part, module in (("network", self.network), ("average", self.average)):
            for name, value in module.state_dict().items():
                yield f"{part}.{name}", value
        for position, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                yield f"optimizer.{position}.{name}", value


def save_state(folder: Objects, name: str, task: dict[str, Any], progress: Progress, trained: Trained) -> None:
    """Write or replace the state `name`; a reader, and a run that is killed here, has the old one or the new one."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.tensors()}
    told = {"task": json.dumps(task, sort_keys=True), "progress": json.dumps(asdict(progress))}
    content = safetensors.torch.save(tensors, told)
    folder.put(name, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def load_state(folder: Objects, name: str, task: dict[str, Any], trained: Trained) -> Progress | None:
    """Restore the state `name` into `trained` and say how far it is; None where there is none.

    Raises TrainingError for a state that is damaged, of another task, or does not fit the networks: nothing of it is
    used then.
    """
    content = folder.get(name)
    if content is None:
        return None
    path = f"{folder.url}/{name}"
    told, tensors = _read(content, path)
    _refuse_other_task(json.loads(told["task"]), task, path)
    progress = json.loads(told["progress"])
    found = Progress(**progress | {"validation": [(seen, loss) for seen, loss in progress["validation"]]})
    _refuse_misfit(path, tensors, trained, stepped=found.step > found.skipped)
    _restore(tensors, trained)
    return found


def _read(content: bytes, path: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    header, payload = content[:_HEADER], content[_HEADER:]
    if not (header.startswith(MAGIC) and header.endswith(b"\n")):
        raise TrainingError(f"{path}: no training state of this package: remove it to train the stage anew")
    said, found = header[len(MAGIC) : -1].decode("ascii", "replace"), hashlib.sha256(payload).hexdigest()
    if said != found:
        raise TrainingError(
            f"{path}: damaged training state (SHA-256 {found[:12]}, it says {said[:12]}): restore it, or remove it to "
            "train the stage anew"
        )
    try:
        length = int.from_bytes(payload[:8], "little")
        told: dict[str, str] = json.loads(payload[8 : 8 + length])["__metadata__"]
        return told, safetensors.torch.load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise TrainingError(f"{path}: no training state ({error}): remove it to train the stage anew") from error


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, each with both sides."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} is {there} there and {here} here"


def _refuse_other_task(there: dict[str, Any], here: dict[str, Any], path: str) -> None:
    found = list(differences(there, here))
    if found:
        raise TrainingError(f"{path}: training state of another task: {'; '.join(found)}: train into another folder")


def _refuse_misfit(path: str, tensors: dict[str, Tensor], trained: Trained, *, stepped: bool) -> None:
    expected = {name: tuple(value.shape) for name, value in trained.tensors() if not name.startswith("optimizer.")}
    if stepped:
        for position, parameter in enumerate(trained.parameters):
            shape = tuple(parameter.shape)
            moments: dict[str, tuple[int, ...]] = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
            expected |= {f"optimizer.{position}.{name}": size for name, size in moments.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise TrainingError(
            f"{path}: {len(wrong)} tensors do not fit the networks, first {wrong[0]}: {found.get(wrong[0])} there and "
            f"{expected.get(wrong[0])} here: train into another folder"
        )


def _restore(tensors: dict[str, Tensor], trained: Trained) -> None:
    for part, module in (("network", trained.network), ("average", trained.average)):
        module.load_state_dict({name: tensors[f"{part}.{name}"] for name in module.state_dict()})
    optimizer = trained.optimizer.state_dict()
    optimizer["state"] = {
        position: {
            "step": tensors[f"optimizer.{position}.step"],
            "exp_avg": _like(parameter, tensors[f"optimizer.{position}.exp_avg"]),
            "exp_avg_sq": _like(parameter, tensors[f"optimizer.{position}.exp_avg_sq"]),
        }
        for position, parameter in enumerate(trained.parameters)
        if f"optimizer.{position}.step" in tensors
    }
    trained.optimizer.load_state_dict(optimizer)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the memory format of `parameter`, as the optimizer made it: other strides, other rounding."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
