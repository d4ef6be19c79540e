"""Namespaces of Linux in which a test has file systems and addresses of its own; those of the machine stay as they are.

A test's function runs in a forked process. There it is root, as far as its own namespaces go.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import multiprocessing
import os
import socket
import struct
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

_FORK: Final = multiprocessing.get_context("fork")
_SERVER: Final = multiprocessing.get_context("forkserver")
_SECONDS: Final = 120
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
# linux/sched.h, linux/mount.h, linux/sockios.h, linux/if.h
_NEW_USER, _NEW_MOUNTS, _NEW_NETWORK = 0x10000000, 0x00020000, 0x40000000
_READ_ONLY, _REMOUNT, _BIND = 1, 32, 4096
_SET_FLAGS, _SET_ADDRESS, _UP = 0x8914, 0x8916, 1


def run_apart(story: Callable[[], object], *, has_threads: bool = False) -> None:
    """Run a function in namespaces of its own for users, mounts and the network, in which nothing is reachable.

    Args:
        story: The function.
        has_threads: True if it uses a library whose threads this process may have already, and a fork would lack. It
            is pickled then.

    Raises:
        AssertionError: It has raised an exception, or has not ended.
    """
    context = _SERVER if has_threads else _FORK
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(story, theirs), daemon=True)
    process.start()
    theirs.close()
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the story has not ended in {_SECONDS} s")
    problem = ours.recv() if ours.poll() else f"the process ended with {process.exitcode}"
    assert not problem, problem


def _run(story: Callable[[], object], pipe: Connection) -> None:
    try:
        _enter()
        story()
    except BaseException:  # noqa: BLE001  the parent raises it
        pipe.send(traceback.format_exc())
    else:
        pipe.send("")


def _enter() -> None:
    uid, gid = os.getuid(), os.getgid()
    _check(_LIBC.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_NETWORK), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def mount_disk(folder: Path, size: int) -> None:
    """Mount a file system of a size in bytes at a folder.

    Args:
        folder: The folder.
        size: The size.
    """
    _check(_LIBC.mount(b"disk", bytes(folder), b"tmpfs", 0, f"size={size}".encode()), f"mount {folder}")


def make_read_only(folder: Path) -> None:
    """Make a file system of `mount_disk` read-only.

    Args:
        folder: The folder at which it is mounted.
    """
    _check(_LIBC.mount(b"disk", bytes(folder), b"tmpfs", _REMOUNT | _READ_ONLY, None), f"remount {folder}")


def fill_disk(filler: Path, free: int) -> None:
    """Fill a file system of `mount_disk` with a file, until so many bytes are free.

    Args:
        filler: The file, which is replaced.
        free: The bytes.
    """
    with filler.open("wb") as file:
        while True:  # another process may write meanwhile
            status = os.statvfs(filler.parent)
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - free))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return


def add_address(address: str) -> None:
    """Give the process an address that is not a loopback address, at which only its own servers are.

    Args:
        address: An IPv4 address.
    """
    family = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_ADDRESS, struct.pack("16s16s", f"lo:{address[-1]}".encode(), family))


def name_hosts(file: Path, hosts: dict[str, str]) -> None:
    """Have host names resolve to addresses, as from /etc/hosts. Later calls change them.

    Args:
        file: The file that is in place of /etc/hosts.
        hosts: Addresses by name.
    """
    text = "".join(f"{address} {name}\n" for name, address in hosts.items())
    if not file.exists():
        file.write_text(text)
        _check(_LIBC.mount(bytes(file), b"/etc/hosts", None, _BIND, None), "mount /etc/hosts")
    file.write_text(text)


def _check(status: int, what: str) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
