"""Run as a program: sets the stage for one container, then becomes it, so that no process stays between.

`python -I -S launcher.py <plan fd> <report fd>` reads a plan (one JSON object and a newline) and then waits for `go`.
The end of the pipe instead means that whoever wanted the container is gone: nothing is started. What fails is written
to the report pipe, which closes by itself when the command runs. Imports the standard library alone, because it runs
without site-packages; a JSON library and ctypes are the most of its start-up.

Python 3.11 has neither unshare nor mount: they are libc's here.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 32, 4096, 8192, 16384, 1 << 18
_KEPT = ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC))

_LOAD, _RETURN, _IS, _IS_AT_LEAST = 0x20, 0x06, 0x15, 0x35
"""Instructions of the kernel's filters (linux/bpf_common.h); jumps count the instructions that they skip."""
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By the machine's name: the kernel's number (linux/audit.h), and that of socket(2)."""

_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31})
"""What root keeps in isolation: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
SYS_CHROOT, AUDIT_WRITE, SETFCAP. With others (SYS_ADMIN, SYS_PTRACE) it could walk back into the machine's network."""

MODEL_DIR = "/opt/ml/model"


class Isolation(TypedDict):
    """What isolation hides besides the network. All paths are absolute and free of links."""

    hidden: list[str]
    """Directories that are shown empty, because sockets in them lead out."""
    kept: list[str]
    """Directories that are shown nevertheless where they lie in a hidden one."""


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
    isolation: Isolation | None
    """Have a network namespace of our own, with nothing but a loopback."""


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
        if plan["isolation"]:
            step = "isolate its network"
            isolate(plan["isolation"])
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
    _enter_namespaces(CLONE_NEWNS)
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


def _enter_namespaces(flags: int) -> None:
    """Leave the machine's namespaces; by way of a user namespace where we lack the right. Ids stay what they are."""
    user, group = os.geteuid(), os.getegid()
    if _libc().unshare(flags) != 0:
        _check(_libc().unshare(CLONE_NEWUSER | flags), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)


def isolate(wanted: Isolation) -> None:
    """Leave the machine's network: a loopback of our own is all there is, for this process and its children.

    What leads out without a network is closed too: sockets in the file system (name services, the bus, container
    engines, Clary's own) and what root may do beyond its files. Raises OSError.
    """
    _enter_namespaces(CLONE_NEWNS | CLONE_NEWNET)
    _raise_loopback()
    _hide([Path(path) for path in wanted["hidden"]], [Path(path) for path in wanted["kept"]])
    for capability in range(64):
        if capability not in _CAPABILITIES and _libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # the kernel has no more
            _check(-1, "prctl")
    _refuse_virtual_sockets()


def _refuse_virtual_sockets() -> None:
    """Take AF_VSOCK away: it leads to the hypervisor and is of no network namespace.

    And io_uring, which makes sockets without socket(2), and the calls of other architectures than the kernel's own.
    """
    architecture, socket_call = _ARCHITECTURES[os.uname().machine]
    code = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_IS, 0, 7, architecture),
        (_LOAD, 0, 0, 0),  # the call's number
        (_IS_AT_LEAST, 5, 0, 0x40000000),  # x32
        (_IS, 4, 0, 425),  # io_uring_setup
        (_IS, 0, 2, socket_call),
        (_LOAD, 0, 0, 16),  # its first argument
        (_IS, 2, 0, 40),  # AF_VSOCK
        (_RETURN, 0, 0, 0x7FFF0000),  # allowed
        (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS),
        (_RETURN, 0, 0, 0x00050000 | errno.EAFNOSUPPORT),
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    program = struct.pack("@HP", len(code), ctypes.addressof(filters))
    _check(_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _check(_libc().prctl(PR_SET_SECCOMP, 2, program, 0, 0), "prctl")


def _raise_loopback() -> None:
    import fcntl
    import socket  # here, because every other launch starts faster without them

    request = struct.Struct("16sH14x")
    with socket.socket() as any_socket:
        _, flags = request.unpack(fcntl.ioctl(any_socket, SIOCGIFFLAGS, request.pack(b"lo", 0)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request.pack(b"lo", flags | IFF_UP))


def _hide(hidden: Sequence[Path], kept: Sequence[Path]) -> None:
    """Put empty directories over some, and back into them what is to be kept."""
    held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in kept if path.is_dir()}
    for place in hidden:
        if not place.is_dir():
            continue
        _mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
        for path, descriptor in held.items():
            if path.is_relative_to(place):
                path.mkdir(parents=True, exist_ok=True)
                _mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC)
    for descriptor in held.values():
        os.close(descriptor)


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
