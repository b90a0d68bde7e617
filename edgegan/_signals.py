"""Ctrl-C and SIGTERM as exceptions that are not lost.

Python runs a handler wherever the main thread is, and what it raises while a module is imported may end in a callback
or in an extension module that drops it or turns it into an ImportError: the command would go on, or call a library
broken. Commands import for a second, so this does happen. Here a handler that finds an import on the stack is asked
again a little later.
"""

import _thread
import signal
import sys
import time
from types import CodeType, FrameType

AGAIN = 0.02  # seconds until a signal is looked at again


def raise_signals(outermost: CodeType) -> None:
    """From now on SIGTERM raises SystemExit(143), and SIGINT KeyboardInterrupt where Python's own handler would.

    Both wait for the end of imports that run inside the function of code `outermost`; that it may itself be called
    by one does not matter. Raises ValueError outside the main thread.
    """
    main_thread = _thread.get_ident()

    def handle(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame, outermost):
            _thread.start_new_thread(_send_later, (main_thread, number))  # threading has locks: see _order
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup and `&` ignore it
        signal.signal(signal.SIGINT, handle)


def _is_importing(frame: FrameType | None, outermost: CodeType) -> bool:
    """Is an import on the stack from `frame` up to `outermost`?"""
    while frame is not None and frame.f_code is not outermost:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send_later(thread: int, number: int) -> None:
    """In a thread of its own: the signal once more."""
    time.sleep(AGAIN)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, number)  # also ends what the main thread waits for
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))
