"""What a scheduler's signals, and Ctrl-C, ask of a run."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# torchrun passes on a Ctrl-C that its processes have had from the terminal: so many seconds count as one
_ONE_PRESS = 5.0


class Interrupted(KeyboardInterrupt):
    """The first Ctrl-C: the run has written a checkpoint, and the message says how to go on."""


class Requests:
    """SIGTERM, SIGHUP and a first Ctrl-C ask for a checkpoint and an end, SIGUSR1 for a checkpoint alone.

    They are noted between steps. A second Ctrl-C raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.stop = False
        self.save = False
        self._pressed: float | None = None  # when Ctrl-C was first pressed

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals inside the block; in a thread other than the program's main one, none can be noted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self._pressed is not None:
                if "TORCHELASTIC_RUN_ID" not in os.environ or time.monotonic() - self._pressed > _ONE_PRESS:
                    signal.default_int_handler(number, frame)
                return
            if number == signal.SIGINT:
                self._pressed = time.monotonic()
            self.save = True
            self.stop = self.stop or number != signal.SIGUSR1

        noted = [signal.SIGTERM, signal.SIGUSR1]
        # a job in the background ignores Ctrl-C, one under nohup the end of its terminal
        noted += [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, note) for number in noted}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stopped(self, how_to_go_on: str) -> BaseException:
        """What to raise once the checkpoints are written: RuntimeError, or Interrupted after a Ctrl-C."""
        if self._pressed is not None:
            return Interrupted(f"stopped by Ctrl-C{how_to_go_on}")
        return RuntimeError(f"stopped by a signal{how_to_go_on}")
