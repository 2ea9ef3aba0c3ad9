"""Lines that change in place, also on a terminal whose width changes."""

import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from producer.terminal.live_lines import rows_of
from tests.support.processes import clean_environment, wait_until

#: Draws lines of the full width but one, at each change of the width. Prints lines of input.
SCRIPT = """
import signal, sys
from rich.text import Text
from producer.terminal.console import console, say
from producer.terminal.live_lines import LiveLines

def draw(width):
    return [Text(f"{name}" * (width - 1)) for name in "ab"]

print(*range(12), sep="\\n")
with LiveLines(draw, console, per_second=0) as live:
    live.refresh()
    signal.signal(signal.SIGWINCH, lambda *_: live.refresh())
    for line in sys.stdin:
        say(line.strip())
"""


@pytest.mark.parametrize(
    ("widths", "width", "rows"),
    [([], 10, 0), ([0, 5], 10, 2), ([9, 10], 10, 2), ([99, 99], 100, 2), ([99, 99], 40, 6)],
)
def test_a_line_that_is_wider_than_the_terminal_takes_more_rows(widths, width, rows):
    assert rows_of(widths, width) == rows


@pytest.fixture
def terminal() -> Iterator[list[str]]:
    """The words of a tmux of our own, whose terminal of 100 x 30 runs the script."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    tmux = ["tmux", "-L", f"test-{uuid.uuid4().hex}", "-f", "/dev/null"]
    run = f"stty -echo; exec {shlex.quote(sys.executable)} -c {shlex.quote(SCRIPT)}"
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "100", "-y", "30", "sh", "-c", run],
        check=True,
        env=clean_environment(TERM="screen-256color", LC_ALL="C.UTF-8"),
    )
    yield tmux
    subprocess.run([*tmux, "kill-server"], check=False)


def content(tmux: list[str]) -> list[str]:
    """Return the lines of the terminal, those scrolled away included."""
    command = [*tmux, "capture-pane", "-p", "-S", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return shown.stdout.rstrip("\n").splitlines()


@pytest.mark.parametrize("width", [40, 140])
def test_nothing_is_left_of_the_lines_when_the_width_changes(terminal, width):
    # Above the lines there is room: a tmux without moves rows to where nothing can erase them.
    messages = [str(number) for number in range(12)]

    def shows(size: int) -> bool:
        return content(terminal) == [*messages, "a" * (size - 1), "b" * (size - 1)]

    wait_until(lambda: shows(100), 60)
    for size in (width, 77, width, 30):
        subprocess.run([*terminal, "resize-window", "-x", str(size)], check=True)
        wait_until(lambda size=size: shows(size), 30)
        messages.append(f"message {size}")
        subprocess.run([*terminal, "send-keys", messages[-1], "Enter"], check=True)
        wait_until(lambda size=size: shows(size), 30)
