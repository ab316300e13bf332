"""What a retraining is made of: a frozen span of data, training in a process of its own, scores, a verdict."""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import parse_time, utc_now
from corrdiff_core.errors import ConfigurationError, DatasetError, TrainingError
from corrdiff_core.manifest import read_manifest
from corrdiff_core.registry import Registry, Version
from flows.children import ended_with_this_process

if TYPE_CHECKING:
    from corrdiff_core.dataset import Samples
    from corrdiff_core.evaluate.scores import Scores
    from corrdiff_core.gate import Decision, Rules

POLL_SECONDS = 2.0
CANDIDATE = "candidate.json"

Beat = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A retraining: which data, up to when, into which model. Plain values; passed between tasks.

    Samples with start <= time < validation_start are for training; those up to test_start only tell how it goes; those
    with test_start <= time < end are the test, that nothing of a training sees. `digest` is that of the first,
    `test_digest` of the last.
    """

    name: str
    preset: str
    dataset: str
    models: str
    start: datetime
    validation_start: datetime
    test_start: datetime
    end: datetime
    samples: int
    validation_samples: int
    digest: str
    test_digest: str
    folder: str

    @property
    def registry(self) -> Registry:
        return Registry(self.models)

    def test(self) -> "Samples":
        """The test set; DatasetError where it is no longer what was frozen."""
        from corrdiff_core.dataset import open_samples

        samples = open_samples(self.dataset).select(self.test_start, self.end)
        if samples.digest != self.test_digest:
            raise DatasetError(
                f"{self.dataset}: the samples of {self.test_start}..{self.end} are {samples.digest[:12]}, frozen"
                f" were {self.test_digest[:12]}: truth has come since; run the retraining again"
            )
        return samples

    def scores_key(self, version: Version, members: int, times: int | None) -> str:
        """Of a version's scores on this test set, in the folder."""
        return f"scores-{version.manifest.identity}-{self.test_digest[:8]}-{members}x{times or 'all'}.json"

    def to_dict(self) -> dict[str, Any]:
        return {name: f"{value}" if isinstance(value, datetime) else value for name, value in asdict(self).items()}


def freeze(
    name: str,
    preset: str,
    dataset: str,
    models: str,
    runs: str,
    start: str | None,
    test_start: str | None,
    end: str | None,
    test_days: int,
    validation_days: int,
) -> Plan:
    """The plan of a retraining on what `dataset` holds now; the same data give the same plan, and the same folder.

    The test set is the last `test_days` days unless `test_start` says otherwise, validation the last `validation_days`
    before it (0: none). ConfigurationError where there is nothing to train on, or nothing to test with, or where
    negative days would have the test set trained on.
    """
    if min(test_days, validation_days) < 0:
        raise ConfigurationError(f"{test_days} test days, {validation_days} validation days: neither can be negative")
    from corrdiff_core.dataset import open_samples
    from corrdiff_core.train import read_preset

    samples = open_samples(dataset)
    if not len(samples):
        raise ConfigurationError(f"{dataset} has no samples yet: build or extend it")
    last = parse_time(end) if end else max(samples.times) + timedelta(hours=1)
    split = parse_time(test_start) if test_start else last - timedelta(days=test_days)
    first = parse_time(start) if start else min(samples.times)
    held_out = split - timedelta(days=validation_days)
    training, validation, test = (
        samples.select(*period) for period in ((first, held_out), (held_out, split), (split, last))
    )
    if not len(training) or not len(test):
        raise ConfigurationError(
            f"{dataset}: {len(training)} samples of {first}..{held_out} to train on, {len(validation)} up to {split} "
            f"to validate with and {len(test)} of {split}..{last} to test with: there must be some to train on and some"
            " to test with; choose other periods"
        )
    task = json.dumps([training.digest, validation.digest, read_preset(preset).to_dict()], sort_keys=True, default=str)
    return Plan(
        name=name,
        preset=preset,
        dataset=dataset,
        models=models,
        start=first,
        validation_start=held_out,
        test_start=split,
        end=last,
        samples=len(training),
        validation_samples=len(validation),
        digest=training.digest,
        test_digest=test.digest,
        folder=f"{runs.rstrip('/')}/{name}-{hashlib.sha256(task.encode()).hexdigest()[:8]}",
    )


def last_verdict(plan: Plan) -> dict[str, Any] | None:
    """The newest verdict on a candidate of this name, None where there is none."""
    verdicts = plan.registry.verdicts(plan.name)
    return verdicts[-1] if verdicts else None


def in_cooldown(plan: Plan, hours: float) -> str | None:
    """Why an event need not be followed: a candidate was judged less than `hours` ago."""
    verdict = last_verdict(plan)
    if verdict is None:
        return None
    age = utc_now() - parse_time(verdict["at"].removesuffix("Z"))
    if age >= timedelta(hours=hours):
        return None
    return f"{plan.name}@{verdict['version']} was judged {age / timedelta(hours=1):.1f} h ago, less than {hours:g} h"


def too_little_new(plan: Plan, least: int) -> str | None:
    """Why it is too early: fewer than `least` training samples since the last candidate's."""
    verdict = last_verdict(plan)
    if verdict is None:
        return None
    from corrdiff_core.dataset import open_samples

    known = verdict["plan"]
    until = parse_time(known.get("validation_start", known["test_start"]))  # older ones had no validation
    new = len(open_samples(plan.dataset).select(max(until, plan.start), plan.validation_start))
    return f"{new} new samples since {until}, {least} are asked" if new < least else None


def train_apart(plan: Plan, processes: int, device: str | None, tell: Callable[[Beat], None]) -> str:
    """Train in a process of its own, or by torchrun in `processes`; the checkpoint's folder.

    Goes on where an earlier process stopped. `tell` is told of each new line of progress. TrainingError with the
    process's last words where it fails; it is stopped where this function is, or the process that runs it.
    """
    from corrdiff_core.train.curves import HEARTBEAT

    command = [
        "train", "--dataset", plan.dataset, "--preset", plan.preset, "--out", plan.folder,
        "--start", f"{plan.start:%Y-%m-%dT%H:%M}", "--end", f"{plan.validation_start:%Y-%m-%dT%H:%M}",
        "--validation-end", f"{plan.test_start:%Y-%m-%dT%H:%M}",
        *(["--device", device] if device else []),
    ]  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    heart, heard = open_objects(plan.folder), None
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen([sys.executable, *launcher, "-m", "flows.cli", *command], stdout=words, stderr=words)
        with ended_with_this_process(process.pid):
            try:
                while process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    beat = heart.get(HEARTBEAT)
                    if beat is not None and beat != heard:
                        heard = beat
                        tell(json.loads(beat))
            finally:
                process.terminate()
                process.wait()
        if process.returncode:
            words.seek(0)
            last = words.read().decode(errors="replace").strip().splitlines()[-1:]
            raise TrainingError(f"training of {plan.name} ended with exit code {process.returncode}: {' '.join(last)}")
    return f"{plan.folder}/checkpoint"


def enter(plan: Plan, checkpoint: str) -> Version:
    """The checkpoint as the next version of its name; the same version however often it is asked.

    DatasetError where it was trained on other samples than were frozen.
    """
    from corrdiff_core.checkpoint import copy_checkpoint

    trained_on = read_manifest(checkpoint).training["data_digest"]
    if trained_on != plan.digest:
        raise DatasetError(
            f"{checkpoint}: trained on samples {trained_on[:12]}, frozen were {plan.digest[:12]}: truth has come since;"
            " run the retraining again"
        )
    folder = open_objects(plan.folder)
    known = folder.get(CANDIDATE)
    if known is not None:
        return plan.registry.version(plan.name, json.loads(known)["version"])
    version = plan.registry.add(plan.name, lambda place: copy_checkpoint(checkpoint, place, plan.name), candidate=True)
    folder.put(CANDIDATE, json.dumps({"version": version.number}).encode())
    return version


def score(plan: Plan, version: Version, members: int, times: int | None, device: str | None) -> "Scores":
    """Scores of a version on at most `times` of the plan's test set, kept beside the training; made once."""
    from corrdiff_core.checkpoint import load_checkpoint
    from corrdiff_core.evaluate.evaluate import evaluate
    from corrdiff_core.evaluate.scores import Scores
    from corrdiff_core.generate import best_device

    folder, key = open_objects(plan.folder), plan.scores_key(version, members, times)
    stored = folder.get(key)
    if stored is not None:
        return Scores.from_json(stored)
    checkpoint = load_checkpoint(version.url, device or best_device())
    test = plan.test()
    scores = evaluate(checkpoint, test, members, times=min(times or len(test), len(test)))
    folder.put(key, scores.to_json().encode())
    return scores


def judge(
    plan: Plan, candidate: Version, rules: "Rules", members: int, times: int | None, device: str | None
) -> "Decision":
    """The gate's decision on the candidate against the version in production, on the same test set."""
    from corrdiff_core.gate import decide

    number = plan.registry.production_number(plan.name)
    ours = score(plan, candidate, members, times, device)
    if number is None or number == candidate.number:
        return decide(ours, None, rules)
    return decide(ours, score(plan, plan.registry.production(plan.name), members, times, device), rules)


def in_words(plan: Plan, candidate: Version, decision: "Decision", members: int, times: int | None) -> str:
    """Markdown: the decision, and the scores of both."""
    from corrdiff_core.evaluate.report import markdown
    from corrdiff_core.evaluate.scores import Scores

    folder = open_objects(plan.folder)
    stored = folder.get(plan.scores_key(candidate, members, times))
    table = "" if stored is None else markdown(Scores.from_json(stored))
    return f"**{candidate.ref}: {decision}**\n\n{table}"


def conclude(plan: Plan, candidate: Version, decision: "Decision", reason: Any) -> None:
    """Keep the verdict with its numbers, and promote the candidate where it says so."""
    verdict = {"reason": reason, "plan": plan.to_dict(), "decision": decision.to_dict()}
    plan.registry.record(candidate, verdict)
    if decision.promote:
        plan.registry.promote(plan.name, candidate.number, {"why": "; ".join(decision.reasons), **verdict})
