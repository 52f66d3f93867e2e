"""Run as a program: sets the stage for one container, then becomes it, so that no process stays between.

`python -I -S launcher.py <plan fd> <report fd>` reads a plan (one JSON object and a newline) and then waits for `go`.
The end of the pipe instead means that whoever wanted the container is gone: nothing is started. What fails is written
to the report pipe, which closes by itself when the command runs. Imports the standard library alone, because it runs
without site-packages; a JSON library and ctypes are the most of its start-up.

Python 3.11 has neither unshare nor mount: they are libc's here.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 32, 4096, 8192, 16384, 1 << 18
_KEPT = ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC))

MODEL_DIR = "/opt/ml/model"


class Plan(TypedDict):
    """What to run. All paths are absolute."""

    command: list[str]
    environment: Mapping[str, str]
    directory: str
    """The working directory."""
    trees: Mapping[str, str]
    """What to show below /opt/ml, read-only, by place (`model`); empty: do not mount anything."""
    stage: str
    """An empty directory to build the new /opt on."""
    groups: list[str]
    """`cgroup.procs` or `tasks` files to write our pid to."""


def main() -> None:
    """Read the plan, wait for the word, set up, and become the command."""
    plan_pipe, report_pipe = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report_pipe, False)
    with os.fdopen(plan_pipe) as pipe:
        text, word = pipe.readline(), pipe.readline()
    if word != "go\n":
        sys.exit(1)
    plan: Plan = json.loads(text)
    step = "join its control group"
    try:
        for file in plan["groups"]:
            Path(file).write_text(str(os.getpid()))
        if plan["trees"]:
            step = f"mount the model at {MODEL_DIR}"
            show({place: Path(tree) for place, tree in plan["trees"].items()}, Path(plan["stage"]))
        step = f"run {plan['command'][0]}"
        os.chdir(plan["directory"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.execvpe(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606 - no shell is wanted
    except (OSError, ValueError) as error:
        os.write(report_pipe, f"cannot {step}: {_explain(error)}".encode(errors="backslashreplace"))
        sys.exit(127)


def _explain(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return f"{error} in its command or environment"  # a NUL, or no UTF-8: execve never got to see it


def show(trees: Mapping[str, Path], stage: Path) -> None:
    """Make directories visible below /opt/ml, read-only, for this process and its children alone.

    The host's /opt is not touched: a new one is built on a tmpfs, with all that the old one has bound into it, and
    put over it in a mount namespace of our own. Its ml/ can be written to, as in a container. Raises OSError.
    """
    _enter_namespace()
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for entry in os.scandir("/opt"):
        if entry.name != "ml":
            _rebuild(entry, stage / entry.name)
    for place, tree in trees.items():
        _bind(tree, stage / "ml" / place)
    _mount(stage, "/opt", None, MS_MOVE)


def _bind(tree: Path, place: Path) -> None:
    place.mkdir(parents=True)
    _mount(tree, place, None, MS_BIND | MS_REC)
    # A user namespace may not drop these flags of the mount that it comes from, so they are said again.
    flags = os.statvfs(place).f_flag
    kept = sum(ours for theirs, ours in _KEPT if flags & theirs)
    _mount(None, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def _enter_namespace() -> None:
    if os.geteuid() == 0:
        _check(_libc().unshare(CLONE_NEWNS), "unshare")
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc().unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _rebuild(entry: os.DirEntry[str], place: Path) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        place.symlink_to(Path(entry.path).readlink())
        return
    if stat.S_ISDIR(mode):
        place.mkdir()
    else:
        place.touch()
    _mount(entry.path, place, None, MS_BIND | MS_REC)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(
    source: Path | str | None, target: Path | str, kind: str | None, flags: int, options: str | None = None
) -> None:
    def encoded(value: Path | str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    result = _libc().mount(encoded(source), os.fsencode(target), encoded(kind), ctypes.c_ulong(flags), encoded(options))
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
