"""Turns itself into a server of ours: the last steps between a fork and the server's program. Run as a script, with
nothing but the standard library, by server_process.py:

    launch.py <parent's pid> <signal> <uid or -> <gid or -> <folder> <program> <argument>...

It sees to it that the server gets <signal> when the parent dies, however that happens (Linux), and that a server which
refuses to run as root runs as somebody else. That somebody may be barred from a folder further up (/root, a folder of
mktemp): then the one capability is handed on that lets a process pass through folders it cannot read.
"""

import ctypes
import os
import sys

_SET_PARENT_DEATH_SIGNAL = 1
_SET_KEEP_CAPABILITIES = 8
_SET_SECURE_BITS, _NO_SETUID_FIXUP = 28, 1 << 2
_AMBIENT, _AMBIENT_RAISE = 47, 2
_DAC_OVERRIDE, _DAC_READ_SEARCH, _SETPCAP = 1, 2, 8
_CAPABILITY_VERSION = 0x20080522

_ON_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def main(arguments: list[str]) -> None:
    """Does not return. Exits with 1 when the parent has died meanwhile."""
    parent, death_signal, uid, gid, folder, *command = arguments
    if uid != "-":
        _become(int(uid), int(gid))
        if not (os.access(folder, os.X_OK) and os.access(command[0], os.X_OK)):
            _pass_through_folders()
    if _ON_LINUX:
        # After the change of user, which clears it.
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    os.umask(0o077)
    os.execv(command[0], command)  # noqa: S606  # no shell, and the program is ours to choose


def _become(uid: int, gid: int) -> None:
    if _ON_LINUX:
        _libc.prctl(_SET_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _pass_through_folders() -> None:
    """Keeps CAP_DAC_READ_SEARCH over the exec, or CAP_DAC_OVERRIDE where a container has only that. Where it has
    neither, the server itself says what it cannot reach."""
    if not _ON_LINUX:
        return
    header, sets = _Header(_CAPABILITY_VERSION, 0), (_Sets * 2)()
    _libc.capget(ctypes.byref(header), ctypes.byref(sets))
    for capability in (_DAC_READ_SEARCH, _DAC_OVERRIDE):
        if sets[0].permitted & 1 << capability:
            # access(2), by which initdb looks for its programs, counts capabilities only where this bit is set.
            sets[0].effective |= sets[0].permitted & 1 << _SETPCAP
            _libc.capset(ctypes.byref(header), ctypes.byref(sets))
            _libc.prctl(_SET_SECURE_BITS, _NO_SETUID_FIXUP, 0, 0, 0)
            sets[0].effective = sets[0].permitted = sets[0].inheritable = 1 << capability
            sets[1].effective = sets[1].permitted = sets[1].inheritable = 0
            _libc.capset(ctypes.byref(header), ctypes.byref(sets))
            _libc.prctl(_AMBIENT, _AMBIENT_RAISE, capability, 0, 0)
            return


if __name__ == "__main__":
    main(sys.argv[1:])
