"""`infra/stack`: start, stop, status, run, backup, restore."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from infra.bare_metal.parts import Part, Stack
from infra.bare_metal.places import Places, StackError, python, say
from infra.bare_metal.processes import Process, launch, marked

USAGE = """\
usage: infra/stack start | stop | status | run COMMAND [ARGUMENT...] | backup FILE | restore FILE

start     what does not run: PostgreSQL, S3 (STACK_S3=ceph), the Prefect server, two workers
stop      all of it, in the reverse order
status    what runs, where and since when; exit code 1 where something does not
run       a command in the stack's environment, which `. STACK_HOME/environment` gives a shell
backup    the Prefect server's database into FILE, while it runs
restore   FILE into a fresh stack, before its server was started

STACK_HOME is its folder (~/.local/share/corrdiff-stack; root's is /var/lib/corrdiff-stack). More is in
infra/README.md.
"""
START_SECONDS = 180.0  # for each part; a fresh database takes the server 30 s on two busy cores


def main(arguments: Sequence[str]) -> int:
    # What is ignored here would be ignored by all parts, and Prefect's worker ends by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _run(arguments)
    except StackError as error:
        say(str(error))
        return 1


def _run(arguments: Sequence[str]) -> int:
    match arguments:
        case ["start"]:
            return _with_stack(start)
        case ["stop"]:
            return _with_stack(stop)
        case ["status"]:
            return status(_open())
        case ["run", _, *_]:
            return run(_open(), arguments[1:])
        case ["backup", file]:
            return backup(_open(), Path(file).absolute())
        case ["restore", file]:
            return _with_stack(lambda stack: restore(stack, Path(file).absolute()))
        case _:
            say(USAGE)
            return 2


def _open() -> Stack:
    return Stack(Places.of(os.environ), os.environ)


def _with_stack(act: Callable[[Stack], int]) -> int:
    places = Places.of(os.environ)
    with places.alone():
        return act(Stack(places, os.environ))


def start(stack: Stack) -> int:
    for name in [part.name for part in stack.parts]:
        start_part(stack, name)
    stack.places.write_environment(stack.reach)
    say(f"the stack runs; `. {stack.places.environment}` reaches it")
    return 0


def start_part(stack: Stack, name: str) -> None:
    """The part runs and is well; what a dead one left is ended first. StackError where it does not get well."""
    part = next(part for part in stack.parts if part.name == name)
    process = found(stack.places, part)
    if process is None:
        if name in ("postgres", "s3", "server"):  # a worker's flow runs go on without it
            end_marked(stack.places, part)
        if part.healthy():
            raise StackError(
                f"{name} does not run, but something answers at {part.where}: stop that, or change its port"
            )
        part.prepare()
        process = launch_part(stack.places, part)
    attempts = part.attempts
    while not becomes_well(stack.places, part, process):
        attempts -= 1
        if attempts == 0:
            log = stack.places.logs / f"{name}.log"
            raise StackError(f"{name} ended ({last_line(log)}): see {log}")
        time.sleep(1)
        process = launch_part(stack.places, part)
    part.finish()
    say(f"{name}: {part.where}")


def launch_part(places: Places, part: Part) -> Process:
    log, mark = places.logs / f"{part.name}.log", places.mark(part.name)
    process = launch(part.command(), part.environment(), log, mark, part.user)
    process.write(places.run / f"{part.name}.json")
    return process


def becomes_well(places: Places, part: Part, process: Process) -> bool:
    """True once the part is well, False where it ended; StackError where it does neither, or is not who answers."""
    log, deadline = places.logs / f"{part.name}.log", time.monotonic() + START_SECONDS
    while not (well := part.healthy()) and process.running:
        if time.monotonic() > deadline:
            raise StackError(f"{part.name} runs, but is not well after {START_SECONDS:.0f} s: see {log}")
        time.sleep(0.25)
    if well and not process.running:
        raise StackError(f"{part.name} ended ({last_line(log)}) and something else answers at {part.where}: see {log}")
    return well


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def stop(stack: Stack) -> int:
    for part in reversed(stack.parts):
        stop_part(stack.places, part)
    return 0


def stop_part(places: Places, part: Part) -> None:
    process = found(places, part)
    if process is not None and not process.end(part.end, part.patience):
        say(f"{part.name} did not end in {part.patience:.0f} s and was killed")
    end_marked(places, part)
    (places.run / f"{part.name}.json").unlink(missing_ok=True)


def end_marked(places: Places, part: Part) -> None:
    """What a part that has ended left running: asked once, then killed."""
    for process in list(marked(places.mark(part.name))):
        say(f"{part.name} left process {process.pid} behind, which ends now")
        process.end(signal.SIGTERM, 10)


def found(places: Places, part: Part) -> Process | None:
    process = Process.read(places.run / f"{part.name}.json")
    return process if process is not None and process.running else None


def status(stack: Stack) -> int:
    well = True
    for part in stack.parts:
        process = found(stack.places, part)
        healthy = process is not None and part.healthy()
        well = well and healthy
        if process is None:
            say(f"{part.name:10} does not run")
            continue
        since = datetime.fromtimestamp(process.since).astimezone().isoformat(timespec="seconds")
        how = "well" if healthy else "does not answer"
        say(f"{part.name:10} {how}, process {process.pid} since {since}, {part.where}")
    return 0 if well else 1


def run(stack: Stack, command: Sequence[str]) -> int:
    """The command takes the place of this process."""
    path = f"{Path(python()).parent}:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, **stack.reach, "PATH": path}
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606 (the user's own command)
    except OSError as error:
        raise StackError(f"{command[0]}: {error.strerror}") from None


def backup(stack: Stack, file: Path) -> int:
    if not stack.postgres.ready():
        raise StackError("PostgreSQL does not run: infra/stack start")
    stack.postgres.backup(file)
    say(f"{file}: {file.stat().st_size} bytes; keep it as you would a password")
    return 0


def restore(stack: Stack, file: Path) -> int:
    if not file.is_file():
        raise StackError(f"{file} is not there: name what `infra/stack backup` wrote")
    for part in stack.parts:
        if part.name != "postgres" and found(stack.places, part) is not None:
            raise StackError(f"{part.name} runs: infra/stack stop, then restore")
    start_part(stack, "postgres")
    stack.postgres.restore(file)
    say(f"restored from {file}; infra/stack start goes on from there")
    return 0
