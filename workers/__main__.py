"""The ``worker`` command, and ``python -m workers``."""

import signal


def main() -> None:
    """Run the command. While it is imported, Ctrl-C ends it at once, without a traceback."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from workers.cli import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
