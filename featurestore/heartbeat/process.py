"""Which process this is, told so that no other one can be taken for it; and the end of one that surely is the one meant.

A process id alone is given to others again, after a restart of the machine to anyone. With the boot, the namespace of process
ids and the moment of its start it is one process for good. Where the system tells none of these (other than Linux), a process
is never ended from outside.
"""

import os
import select
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

END_SECONDS = 5.0
"""How long the end of a killed process is waited for; one that hangs in the kernel ends when that lets it go."""

STOPPED = ("T", "t")

Ending = Literal["killed", "gone", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot of one machine.

    Args:
        host: The machine's name, for people.
        machine: Its boot and its namespace of process ids; empty where the system tells neither.
        pid: Process id.
        started: Clock ticks from the boot to its start.
    """

    host: str
    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> "Process":
        """The calling process."""
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or 0)

    def is_stopped(self) -> bool:
        """Whether this process is one of this machine, still the same, and stopped by a signal: surely at no work."""
        if not self.machine or self.machine != _machine() or _started(self.pid) != self.started:
            return False
        return (_status(self.pid) or [""])[0] in STOPPED

    def kill(self) -> Ending:
        """End this process if it is one of this machine and still the same.

        Returns:
            'killed'; 'gone' if it had ended before; 'elsewhere' if it is not this machine's, or cannot be ended from here: it is
            not this user's, or the system refuses what it takes (a container's rules, no more file handles).
        """
        if not self.machine or self.machine != _machine():
            return "elsewhere"
        try:
            return self._kill()
        except ProcessLookupError:
            return "gone"
        except OSError:
            return "elsewhere"

    def _kill(self) -> Ending:
        """A handle stays with its process: whoever has the id is compared, and no other one is hit afterwards."""
        handle = os.pidfd_open(self.pid)
        try:
            return self._kill_by(handle)
        finally:
            os.close(handle)

    def _kill_by(self, handle: int) -> Ending:
        if _started(self.pid) != self.started or _has_ended(handle, 0.0):
            return "gone"
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        _has_ended(handle, END_SECONDS)
        return "killed"


def _has_ended(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Clock ticks from the boot to a process's start; None if there is none."""
    told = _status(pid)
    return None if told is None else int(told[19])


def _status(pid: int) -> list[str] | None:
    """What the system tells of a process, from its state on; the name in front may hold anything."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return told.rpartition(")")[2].split()
