"""What changes in the course of a stage, as functions of the samples seen: nothing is carried from step to step."""

import math

from corrdiff_core.train.preset import Preset, StageName

RAMP = 0.05  # of the samples seen: the moving average's half-life at most, so that it forgets the start (EDM)


def learning_rate(preset: Preset, stage: StageName, seen: int) -> float:
    """Of the step after `seen` samples: a linear warm-up, then a half cosine down to `final_rate` of the full rate."""
    total = preset.steps(stage) * preset.batch
    rise = min(1.0, (seen + preset.batch) / max(preset.warm_up, 1))
    fall = preset.final_rate + (1 - preset.final_rate) * (0.5 + 0.5 * math.cos(math.pi * seen / total))
    return preset.learning_rate * rise * fall


def average_weight(preset: Preset, seen: int) -> float:
    """Weight of the new weights in their moving average, at the step with which `seen` samples have been seen."""
    half_life = min(preset.half_life, RAMP * seen)
    return 1 - math.exp2(-preset.batch / half_life)


def due(preset: Preset, every: int, step: int) -> bool:
    """Whether the samples of step `step` (the first is 0) reach another multiple of `every`."""
    seen = step * preset.batch
    return (seen + preset.batch) // every > seen // every
