"""The system calls of an isolated container.

The engines' own profiles differ in what they refuse, and Docker's before 23 let AF_VSOCK through, which is of no
network namespace and leads to the hypervisor. A container has one profile, so this one says all that it may do: what a
server of any language needs, and nothing that the engines refuse to containers without privileges. What a newer kernel
adds is answered as by an older one (ENOSYS), and programs fall back. The file systems, modules, clocks, namespaces,
keys, BPF, NUMA policies and io_uring (which makes sockets without being asked by socket(2)) are not in it.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

_ARCHITECTURES = ("x86_64", "amd64", "aarch64", "arm64")
"""Where the arguments below are in these places; Podman has names of its own. A program of another one cannot run."""

_CALLS = """
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chroot
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
    futex_requeue futex_wait futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64
    getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
    io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr listxattrat llistxattr lremovexattr lseek
    lsetxattr lstat madvise map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom
    recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
    setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat
    utime utimensat utimes vfork wait4 waitid write writev
"""

_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Kinds of sockets that end at the container's own network namespace."""
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Plain Linux, with or without the short address space and the old version's number; and the question what it is."""
_NEW_NAMESPACES = 0x7E02_0000
"""The bits of clone(2) that ask for any namespace but that of times."""
_INT = 0xFFFF_FFFF
"""What the kernel reads of an argument that is an int: the upper half may be anything."""


@cache
def profile() -> str:
    """Give the profile as SecurityOpt takes it."""
    calls = [
        {"names": _CALLS.split(), "action": "SCMP_ACT_ALLOW"},
        *(_allow("socket", _masked(_INT, family)) for family in _FAMILIES),
        *(_allow("personality", {"index": 0, "value": each, "op": "SCMP_CMP_EQ"}) for each in _PERSONALITIES),
        _allow("clone", _masked(_NEW_NAMESPACES, 0)),
        # Its flags lie in memory, where no filter looks: callers go back to clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS, "syscalls": calls})


def obstacle(info: Mapping[str, Any]) -> str | None:
    """Say why this engine's isolated containers are left with its own profile; None: they get ours.

    `info` is what the engine says of itself. A profile that its operator has chosen stays.
    """
    own = (
        "Whether isolated containers (EnableNetworkIsolation) can make sockets of AF_VSOCK, which lead to a "
        "hypervisor, is up to this engine's own seccomp profile"
    )
    if info.get("Architecture") not in _ARCHITECTURES:
        return f"{own}: there is none of Clary's for {info.get('Architecture')}."
    for option in info.get("SecurityOptions") or ():
        names = dict(part.partition("=")[::2] for part in option.split(","))
        if names.get("name") == "seccomp":
            chosen = names.get("profile", "default")
            return None if chosen in ("default", "builtin", "unconfined") else f"{own}: {chosen}."
    return f"{own}: it has none."


def _masked(mask: int, value: int) -> dict[str, Any]:
    return {"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _allow(name: str, condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}
