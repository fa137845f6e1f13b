"""Signals for processes that tests start."""

import signal


def listen_to_control_c() -> None:
    """In the new process: a job that a shell put into the background would hand down that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
