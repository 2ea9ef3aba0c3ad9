"""The ``worker`` command."""

import signal


def main() -> None:
    """Run the command. While it is imported, Ctrl-C ends it at once, without a traceback."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from workers.cli.app import run

    signal.signal(signal.SIGINT, handler)
    run()
