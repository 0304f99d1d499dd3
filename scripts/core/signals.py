"""Ended from outside: SIGTERM (batch systems, `kill`) and SIGHUP (a closed terminal) end a script as Ctrl-C does.

Their default ends a process on the spot, which would leave the temporary files of what is being written.
"""

import signal
from typing import Any

_ENDING = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Ended(SystemExit):
    """Raised where the program is when a signal ends it; the exit code is 128 and the signal's number."""


def unwind_on_signals() -> None:
    """From now on these signals raise Ended. Signals that are ignored (nohup) or handled already stay so."""
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _unwind)


def _unwind(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the removal of temporary files
    raise Ended(128 + number)
