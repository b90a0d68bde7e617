"""Ctrl-C and SIGTERM as exceptions that no import drops.

Python runs a handler wherever the main thread is, and what it raises while a module is imported may end in a callback
or in an extension module that drops it or turns it into an ImportError: the command would go on, or call a library
broken. Commands import for a second, so this does happen. Here a signal that finds an import on the stack is looked at
again a little later.
"""

import _thread
import signal
import sys
import time
from types import CodeType, FrameType

AGAIN = 0.02  # seconds until a signal is looked at again
PATIENCE = 10.0  # seconds until an import that hangs is interrupted all the same


def raise_signals(outermost: CodeType) -> None:
    """From now on SIGTERM raises SystemExit(143), and SIGINT KeyboardInterrupt where Python's own handler would.

    Both wait for imports that began inside the function whose code is `outermost`; one further out, such as that of
    the script itself, does not delay them. Raises ValueError outside the main thread.
    """
    main_thread = _thread.get_ident()
    waiting: dict[int, float] = {}  # since when

    def handle(number: int, frame: FrameType | None) -> None:
        new = number not in waiting
        since = waiting.setdefault(number, time.monotonic())
        if _is_importing(frame, outermost) and time.monotonic() - since < PATIENCE:
            if new:
                _thread.start_new_thread(send_again, (number,))  # threading has locks: see _order
            return
        del waiting[number]
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def send_again(number: int) -> None:
        time.sleep(AGAIN)
        while number in waiting:
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main_thread, number)  # also ends what the main thread waits for
            else:  # Windows
                _thread.interrupt_main(signal.Signals(number))
            time.sleep(AGAIN)

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
