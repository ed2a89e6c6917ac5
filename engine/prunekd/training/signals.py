"""What a scheduler's signals ask of a run."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Requests:
    """SIGTERM asks for a checkpoint and an end, SIGUSR1 for a checkpoint alone; noted between steps."""

    def __init__(self) -> None:
        self.stop = False
        self.save = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note both signals inside the block; in a thread other than the program's main one, none can be noted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _frame: FrameType | None) -> None:
            self.save = True
            self.stop = self.stop or number == signal.SIGTERM

        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
