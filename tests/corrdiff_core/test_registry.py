"""The registry: versions are claimed once, production is one version, and kills and races leave nothing torn.

Processes of these tests import this file, so torch is imported by the tests that need it.
"""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.errors import ArchiveError, CheckpointError
from corrdiff_core.manifest import MANIFEST, read_manifest
from corrdiff_core.registry import Registry, is_reference

DEMO = read_manifest(str(files("corrdiff_core") / "demo"))
WHY = {"crps": {"t2m": 0.39}}


def write(url):
    """A checkpoint folder without weights, whose digest is its own."""
    manifest = replace(DEMO, scores={"written to": url})
    assert open_objects(url).create(MANIFEST, manifest.to_json().encode())
    return manifest


def fill(url, count=3):
    registry = Registry(url)
    for _ in range(count):
        registry.add("taiwan", write)
    return registry


def changes(registry, name="taiwan"):
    return [(change["action"], change["version"], change["previous"]) for change in registry.history(name)]


@pytest.fixture(params=["local", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_url')}/some/models"
    return str(tmp_path / "models") if request.param == "local" else f"memory://{tmp_path.name}/models"


@pytest.fixture
def registry(tmp_path):
    """Three versions of one name, the first in production, in a local folder."""
    return fill(str(tmp_path / "models"))


class TestVersions:
    def test_numbers_count_up_and_the_first_goes_into_production(self, url):
        registry = Registry(url)
        added = [registry.add("taiwan", write) for _ in range(3)]
        assert [version.ref for version in added] == ["taiwan@1", "taiwan@2", "taiwan@3"]
        assert [version.url for version in added] == [f"{registry.url}/taiwan/000{number}" for number in (1, 2, 3)]
        assert registry.versions("taiwan") == added
        assert registry.version("taiwan", 2) == added[1]
        assert registry.production("taiwan") == added[0]
        assert registry.production_number("taiwan") == 1
        assert changes(registry) == [("first", 1, None)]

    def test_references(self, url):
        registry = fill(url)
        registry.promote("taiwan", 2, WHY)
        for ref, number in (("taiwan", 2), ("taiwan@1", 1), ("taiwan@3", 3), ("taiwan@0003", 3)):
            assert registry.resolve(ref) == registry.version("taiwan", number).url
            assert registry.find(ref).number == number

    def test_the_objects_are_as_the_layout_says(self, url):
        registry = fill(url, 1)
        objects = open_objects(url)
        assert objects.names("taiwan") == ["0001", "history", "production.json"]
        assert objects.names("taiwan/0001") == ["claimed.json", "manifest.json"]
        production, entry = (
            json.loads(objects.get(f"taiwan/{name}")) for name in ("production.json", "history/0001.json")
        )
        digest = registry.version("taiwan", 1).manifest.digest
        assert production == {"version": 1, "digest": digest, "since": entry["at"], "history": 1}
        assert entry == {
            "action": "first", "version": 1, "previous": None, "digest": digest, "at": entry["at"], "reason": {},
            "after": None,
        }  # fmt: skip
        assert entry["at"].endswith("Z")

    def test_checkpoints_with_their_weights(self, made, url):
        from corrdiff_core.checkpoint import load_checkpoint, save_checkpoint

        def save(folder):
            return save_checkpoint(folder, made.manifest, made.regression, made.diffusion, made.invariants)

        registry = Registry(url)
        version = registry.add("small", save)
        loaded = load_checkpoint(registry.resolve("small"))
        assert loaded.manifest == version.manifest
        assert all(
            (ours == theirs).all()
            for ours, theirs in zip(made.diffusion.parameters(), loaded.diffusion.parameters(), strict=True)
        )

    def test_a_registry_that_is_not_there_is_empty(self, url):
        assert Registry(url).names() == []

    def test_names_have_a_complete_version(self, registry):
        root = Path(registry.url)
        registry.add("another", write)
        (root / "empty").mkdir()
        (root / "claimed" / "0001").mkdir(parents=True)
        (root / "claimed" / "0001" / "claimed.json").write_text("{}")
        (root / "README.txt").write_text("a file")
        (root / ".hidden").mkdir()
        assert registry.names() == ["another", "taiwan"]

    def test_versions_beyond_four_digits(self, registry):
        write(f"{registry.url}/taiwan/9999")
        assert registry.add("taiwan", write).url.endswith("taiwan/10000")
        assert [version.number for version in registry.versions("taiwan")] == [1, 2, 3, 9999, 10000]
        assert registry.resolve("taiwan@10000").endswith("taiwan/10000")

    def test_when_a_number_was_claimed(self, registry):
        version = registry.version("taiwan", 1)
        claim = Path(version.url, "claimed.json")
        assert registry.claimed(version) == json.loads(claim.read_text())["at"]
        claim.unlink()
        assert registry.claimed(version) is None


class TestWriters:
    def test_one_that_raises_leaves_no_version_and_the_next_goes_on(self, url):
        def fail(folder):
            open_objects(folder).put("regression.safetensors", b"half")
            raise OSError("no space left")

        registry = Registry(url)
        with pytest.raises(OSError, match="no space left"):
            registry.add("taiwan", fail)
        assert registry.names() == []
        assert registry.production_number("taiwan") is None
        assert registry.add("taiwan", write).ref == "taiwan@2", "the number of the first is not used again"
        assert registry.production("taiwan").number == 2
        assert [version.number for version in registry.versions("taiwan")] == [2]

    def test_one_that_writes_nothing_is_refused(self, registry):
        with pytest.raises(CheckpointError, match=r"taiwan/0004: no checkpoint here, manifest.json is missing"):
            registry.add("taiwan", lambda folder: DEMO)
        assert [version.number for version in registry.versions("taiwan")] == [1, 2, 3]

    def test_one_that_says_another_manifest_than_it_wrote_is_refused(self, registry):
        def lie(folder):
            write(folder)
            return DEMO

        with pytest.raises(CheckpointError, match=rf"the manifest there has digest .* written was {DEMO.digest[:12]}"):
            registry.add("taiwan", lie)

    @pytest.mark.parametrize("name", ["", ".", "..", "../taiwan", "taiwan/x", "taiwan@1", ".taiwan", "tai wan"])
    def test_a_name_that_is_none_claims_nothing(self, tmp_path, name):
        with pytest.raises(CheckpointError, match="begin with a letter or digit"):
            Registry(str(tmp_path / "models")).add(name, write)
        assert list(tmp_path.iterdir()) == []

    def test_what_the_storage_refuses_is_named(self, s3_url):
        with pytest.raises(ArchiveError, match=r"-mistyped/models/taiwan: .*NoSuchBucket"):
            Registry(f"{s3_url}-mistyped/models").add("taiwan", write)


class TestProduction:
    def test_promote_rollback_and_promote_again(self, url):
        registry = fill(url)
        assert registry.promote("taiwan", 3, WHY).ref == "taiwan@3"
        assert registry.production("taiwan").number == 3
        assert registry.rollback("taiwan", {"who": "the operator"}).ref == "taiwan@1"
        assert registry.production("taiwan").number == 1
        registry.promote("taiwan", 3, {})
        assert registry.production("taiwan").number == 3
        assert changes(registry) == [("first", 1, None), ("promote", 3, 1), ("rollback", 1, 3), ("promote", 3, 1)]
        assert [change["reason"] for change in registry.history("taiwan")] == [{}, WHY, {"who": "the operator"}, {}]
        for change in registry.history("taiwan"):
            assert change["digest"] == registry.version("taiwan", change["version"]).manifest.digest

    def test_rollbacks_never_return_to_what_was_rolled_back(self, registry):
        registry.promote("taiwan", 2, {})
        registry.promote("taiwan", 3, {})
        assert [registry.rollback("taiwan", {}).number for _ in range(2)] == [2, 1]
        with pytest.raises(
            CheckpointError,
            match=r"nothing was in production before taiwan@1: promote taiwan@1 or taiwan@2 or taiwan@3 instead",
        ):
            registry.rollback("taiwan", {})
        registry.promote("taiwan", 3, {})
        assert registry.rollback("taiwan", {}).number == 1

    def test_what_is_in_production_is_not_promoted_again(self, registry):
        registry.promote("taiwan", 2, {})
        before = changes(registry)
        assert registry.promote("taiwan", 2, {"again": True}).ref == "taiwan@2"
        assert changes(registry) == before

    def test_a_rollback_needs_nothing_of_the_version_that_it_leaves(self, registry):
        registry.promote("taiwan", 2, {})
        Path(registry.version("taiwan", 2).url, MANIFEST).write_text("broken")
        assert registry.rollback("taiwan", {}).number == 1
        assert registry.production("taiwan").number == 1

    def test_a_rollback_to_a_folder_that_was_changed_is_refused(self, registry):
        registry.promote("taiwan", 2, {})
        first = registry.version("taiwan", 1)
        Path(first.url, MANIFEST).write_text(replace(first.manifest, scores={}).to_json())
        with pytest.raises(CheckpointError, match=r"taiwan/0001: the manifest has digest .*history says"):
            registry.rollback("taiwan", {})
        assert registry.production("taiwan").number == 2

    def test_names_are_apart(self, registry):
        registry.add("demo", write)
        registry.promote("taiwan", 2, {})
        assert registry.production("demo").ref == "demo@1"
        assert changes(registry, "demo") == [("first", 1, None)]

    def test_a_reason_that_is_no_json_changes_nothing(self, registry):
        with pytest.raises(ValueError, match="JSON"):
            registry.promote("taiwan", 2, {"crps": float("nan")})
        assert changes(registry) == [("first", 1, None)]
        assert registry.promote("taiwan", 2, {}).number == 2


class TestRefusals:
    def test_an_unknown_name(self, registry):
        registry.add("demo", write)
        for ask in (registry.resolve, registry.production, registry.versions, registry.history):
            with pytest.raises(
                CheckpointError, match=r"no model is called 'mini' in .*: choose demo or taiwan, or write"
            ):
                ask("mini")
        for ask in (registry.promote, lambda name, number, why: registry.version(name, number)):
            with pytest.raises(CheckpointError, match="no model is called 'mini'"):
                ask("mini", 1, {})

    def test_an_empty_registry(self, url):
        with pytest.raises(CheckpointError, match=r"no model is called 'taiwan' in .*: none is there yet, import one"):
            Registry(url).resolve("taiwan")

    def test_an_unknown_version(self, registry):
        for ref in ("taiwan@4", "taiwan@0", "taiwan@0004"):
            with pytest.raises(CheckpointError, match=r"is not in .*: choose taiwan@1 or taiwan@2 or taiwan@3"):
                registry.resolve(ref)
        with pytest.raises(CheckpointError, match="taiwan@9 is not in"):
            registry.promote("taiwan", 9, {})

    @pytest.mark.parametrize("ref", ["taiwan@", "taiwan@newest", "taiwan@-1", "taiwan@1@2", "taiwan@²"])
    def test_a_reference_that_is_none(self, registry, ref):
        with pytest.raises(CheckpointError, match="is no version of a model: write a name, or name@number"):
            registry.resolve(ref)

    def test_nothing_complete(self, registry):
        (Path(registry.url) / "cut" / "0001").mkdir(parents=True)
        for ref in ("cut", "cut@1"):
            with pytest.raises(CheckpointError, match=r"no version of cut in .* is complete: .*import it again"):
                registry.resolve(ref)

    def test_nothing_in_production(self, registry):
        production = Path(registry.url, "taiwan", "production.json")
        production.unlink()
        for ask in (registry.resolve, lambda name: registry.rollback(name, {})):
            with pytest.raises(
                CheckpointError, match=r"no version of taiwan in .* is in production: promote taiwan@1 or"
            ):
                ask("taiwan")
        assert registry.production_number("taiwan") is None
        assert registry.history("taiwan") == []
        registry.promote("taiwan", 2, WHY)
        assert changes(registry) == [("first", 2, None)]

    def test_a_folder_that_is_not_what_was_promoted(self, registry):
        version = registry.version("taiwan", 1)
        Path(version.url, MANIFEST).write_text(replace(version.manifest, scores={}).to_json())
        for ask in (registry.resolve, lambda name: registry.promote(name, 1, {})):
            says = version.manifest.digest[:12]
            with pytest.raises(
                CheckpointError, match=rf"0001: the manifest has digest .*production.json says {says}: restore"
            ):
                ask("taiwan")
        assert registry.resolve("taiwan@1"), "asked for by number it is what it says"

    def test_a_folder_that_is_gone(self, registry):
        Path(registry.version("taiwan", 1).url, MANIFEST).unlink()
        with pytest.raises(
            CheckpointError, match=r"production.json names version 1, whose folder has no manifest.json"
        ):
            registry.resolve("taiwan")

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "1", "{}", '{"version": "1", "digest": "", "since": "", "history": 1}', '{"version": 1}', "\x80"],
    )
    def test_a_broken_production(self, registry, content):
        Path(registry.url, "taiwan", "production.json").write_bytes(content.encode("latin-1"))
        for ask in (registry.resolve, registry.history, registry.production_number):
            with pytest.raises(CheckpointError, match=r"taiwan/production.json is broken \(.*restore it from a copy"):
                ask("taiwan")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (None, "history/0002.json is gone: restore"),
            ({"after": 2}, "history/0002.json says that it came after entry 2: restore"),
            ({"after": "1"}, "history/0002.json is broken"),
            ({"version": 3}, "production.json names version 2, its entry taiwan/history/0002.json version 3: promote"),
        ],
    )
    def test_a_history_that_is_not_whole(self, registry, change, message):
        registry.promote("taiwan", 2, {})
        entry = Path(registry.url, "taiwan", "history", "0002.json")
        if change is None:
            entry.unlink()
        else:
            entry.write_text(json.dumps(json.loads(entry.read_text()) | change))
        for ask in (registry.history, lambda name: registry.rollback(name, {})):
            with pytest.raises(CheckpointError, match=message):
                ask("taiwan")
        assert registry.production("taiwan").number == 2, "what is in use does not hang on it"


def at_once(count, work):
    """Run `work(number)` in threads that start together; what they returned or raised, by number."""
    barrier, results = threading.Barrier(count), {}

    def run(number):
        barrier.wait()
        try:
            results[number] = work(number)
        except CheckpointError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


ADDER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.corrdiff_core.test_registry import Registry, write
print("ready", flush=True)
sys.stdin.readline()
print(*(Registry(sys.argv[2]).add("taiwan", write).number for _ in range(3)), flush=True)
"""


@pytest.mark.parametrize("place", ["local", "s3"])
class TestAtOnce:
    @pytest.fixture
    def root(self, place, request, tmp_path):
        return str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")

    def test_threads_that_add_have_a_folder_each_and_one_is_the_first(self, root):
        for turn in range(5):
            registry = Registry(f"{root}/{turn}")
            added = at_once(4, lambda _, registry=registry: registry.add("taiwan", write))
            assert sorted(version.number for version in added.values()) == [1, 2, 3, 4]
            assert sorted(added.values(), key=lambda version: version.number) == registry.versions("taiwan")
            [first] = registry.history("taiwan")
            assert (first["action"], first["version"]) == ("first", registry.production("taiwan").number)

    def test_processes_that_add_have_a_folder_each(self, root):
        command = [sys.executable, "-c", ADDER, str(Path(__file__).parents[2]), f"{root}/models"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        numbers = [int(number) for process in processes for number in process.communicate()[0].split()]
        assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
        registry = Registry(f"{root}/models")
        assert [version.number for version in registry.versions("taiwan")] == sorted(numbers)
        assert len(registry.history("taiwan")) == 1

    def test_of_promoters_one_stays_and_it_was_told_so(self, root):
        for turn in range(5):
            registry = fill(f"{root}/{turn}", 4)
            told = at_once(3, lambda number, registry=registry: registry.promote("taiwan", number + 2, {"by": number}))
            stays = registry.production("taiwan")
            assert stays in told.values()
            assert changes(registry) == [("first", 1, None), ("promote", stays.number, 1)]
            for refused in (result for result in told.values() if isinstance(result, CheckpointError)):
                assert "came into production while taiwan@" in str(refused)
            assert registry.rollback("taiwan", {}).number == 1

    def test_operators_that_roll_back_step_back_once(self, root):
        """Both mean the version that both see."""
        registry = fill(f"{root}/models")
        registry.promote("taiwan", 2, {})
        registry.promote("taiwan", 3, {})
        looked = threading.Barrier(2)

        class Slow(Registry):
            """Waits for the other once it has looked."""

            def _change(self, *arguments):
                looked.wait()
                return super()._change(*arguments)

        told = at_once(2, lambda _: Slow(registry.url).rollback("taiwan", {}))
        assert [version.number for version in told.values()] == [2, 2]
        assert changes(registry)[2:] == [("promote", 3, 2), ("rollback", 2, 3)]
        assert registry.rollback("taiwan", {}).number == 1


# Does something at the given step, of those that change the file system, of the first of two calls.
INTERRUPTED = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from tests.corrdiff_core.test_registry import Registry, write

_, _, url, step, part, call, then = sys.argv
done = False

def interrupt(event, arguments):
    global done
    if event == step and part in str(arguments[1]) and not done:
        done = True
        if then == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        other = threading.Thread(target=lambda: eval(then))
        other.start()
        other.join()

sys.addaudithook(interrupt)
eval(call)
"""
PROMOTE_2, PROMOTE_3, ADD = (
    'Registry(url).promote("taiwan", 2, {})', 'Registry(url).promote("taiwan", 3, {})',
    'Registry(url).add("taiwan", write)',
)  # fmt: skip


def interrupted(url, step, part, call, then):
    command = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parents[2]), url, step, part, call, then]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# Forks, so that the many kills import once.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.corrdiff_core.test_registry import Registry, write

STEPS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove")

def work(url, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in STEPS and url in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    registry = Registry(url)
    registry.add("taiwan", write)
    registry.add("taiwan", write)
    registry.promote("taiwan", 2, {})
    registry.rollback("taiwan", {})
    return count

for line in sys.stdin:
    url, last = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(work(url, int(last))).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), os.read(reading, 20).decode() or 0, flush=True)
    os.close(reading)
"""


@pytest.fixture(scope="module")
def killer():
    """Exit code and number of steps of that work under a URL, killed at a step, 0 for not at all."""
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[2])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def work(url, last=0):
        process.stdin.write(f"{url} {last}\n")
        process.stdin.flush()
        code, steps = process.stdout.readline().split()
        return int(code), int(steps)

    yield work
    process.communicate()


class TestInterrupted:
    def test_a_kill_between_history_and_production_changes_nothing(self, registry):
        assert interrupted(registry.url, "os.rename", "production.json", PROMOTE_2, "kill").returncode == -9
        entry = Path(registry.url, "taiwan", "history", "0002.json")
        assert json.loads(entry.read_text())["version"] == 2, "the entry is there"
        assert registry.production("taiwan").number == 1
        assert changes(registry) == [("first", 1, None)]
        with pytest.raises(CheckpointError, match="nothing was in production before taiwan@1"):
            registry.rollback("taiwan", {})
        registry.promote("taiwan", 3, {})
        assert changes(registry) == [("first", 1, None), ("promote", 3, 1)]
        assert json.loads(Path(registry.url, "taiwan", "production.json").read_text())["history"] == 3
        assert registry.rollback("taiwan", {}).number == 1

    def test_another_s_promotion_before_the_replacement_is_seen(self, registry):
        done = interrupted(registry.url, "os.link", "history", PROMOTE_2, PROMOTE_3)
        assert "taiwan@3 came into production while taiwan@2 was about to: decide anew" in done.stderr
        assert registry.production("taiwan").number == 3
        assert changes(registry) == [("first", 1, None), ("promote", 3, 1)]

    def test_another_s_promotion_within_the_replacement_is_lost_and_all_agrees(self, registry):
        done = interrupted(registry.url, "os.rename", "production.json", PROMOTE_2, PROMOTE_3)
        assert (done.returncode, done.stderr) == (0, "")
        assert registry.production("taiwan").number == 2
        assert changes(registry) == [("first", 1, None), ("promote", 2, 1)]
        assert registry.rollback("taiwan", {}).number == 1

    @pytest.mark.parametrize("part", ["history", "production.json"])
    def test_of_two_firsts_the_later_stays_out(self, tmp_path, part):
        done = interrupted(str(tmp_path), "os.link", part, ADD, ADD)
        assert (done.returncode, done.stderr) == (0, "")
        registry = Registry(str(tmp_path))
        assert [version.number for version in registry.versions("taiwan")] == [1, 2]
        assert registry.production("taiwan").number == 2, "it was there first"
        assert changes(registry) == [("first", 2, None)]

    def test_a_kill_at_any_step_leaves_a_registry_that_goes_on(self, killer, tmp_path):
        undisturbed = [("first", 1, None), ("promote", 2, 1), ("rollback", 1, 2)]
        code, steps = killer(tmp_path / "whole")
        assert (code, changes(Registry(str(tmp_path / "whole")))) == (0, undisturbed)
        seen = set()
        for step in range(1, steps + 1):
            code, _ = killer(tmp_path / str(step), step)
            assert code == -9
            registry = Registry(str(tmp_path / str(step)))
            happened = changes(registry) if registry.names() else []
            assert happened == undisturbed[: len(happened)]
            before = registry.production_number("taiwan")
            assert before == (happened[-1][1] if happened else None)
            if before is not None:
                assert registry.production("taiwan").number == before
            seen.add((len(happened), tuple(registry.names() and [v.number for v in registry.versions("taiwan")])))
            version = registry.add("taiwan", write)
            registry.promote("taiwan", version.number, {})
            assert registry.production("taiwan") == version
            if before is not None:
                assert registry.rollback("taiwan", {}).number == before
        assert seen == {(0, ()), (0, (1,)), (1, (1,)), (1, (1, 2)), (2, (1, 2)), (3, (1, 2))}


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("taiwan", True), ("taiwan@2", True), ("taiwan.v2", True), ("./taiwan", False), ("../taiwan", False),
        (".", False), ("models/taiwan", False), ("/models/taiwan", False), ("s3://bucket/taiwan", False),
        ("./taiwan@2", False), ("memory://taiwan", False),
    ],
)  # fmt: skip
def test_what_is_a_reference(ref, expected):
    assert is_reference(ref) is expected
