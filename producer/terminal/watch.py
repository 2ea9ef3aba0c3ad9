"""The progress display: a bar on a terminal or in a notebook, a line every 30 seconds elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from rich.console import Console
from rich.text import Text

from common.ledger.events import Event
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.observation import Observation
from producer.terminal.console import console as stderr
from producer.terminal.console import say
from producer.terminal.job_view import (
    ASCII,
    SPINS,
    Glyphs,
    JobView,
    lines_of,
    text_of,
)
from producer.terminal.live_lines import LiveLines

#: Seconds for which a job must not go on before the reason is said.
PATIENCE_SECONDS = 60.0

#: Seconds between two lines, where there is no bar.
LINE_SECONDS = 30.0


@contextmanager
def display(
    job: str, console: Console = stderr, *, patience: float = PATIENCE_SECONDS
) -> Iterator[Callable[[Observation], None]]:
    """Yield a function that shows each look at a job: as a bar, or as lines in a pipe.

    Args:
        patience: seconds after which it says why the job does not go on, once for each reason.
    """
    explain = explanation(job, patience)
    with progress_display(job, console) as show_progress:

        def show(seen: Observation) -> None:
            show_progress(seen)
            explain(diagnose(seen))

        yield show


def explanation(job: str, patience: float) -> Callable[[str], None]:
    """Return a function that prints a reason that it is given for a while, once."""
    current, since, told = "", 0.0, set()

    def explain(reason: str) -> None:
        nonlocal current, since
        if reason != current:
            current, since = reason, time.monotonic()
        if reason and reason not in told and time.monotonic() - since >= patience:
            told.add(reason)
            say(f"{job} waits: {reason}")

    return explain


@contextmanager
def progress_display(job: str, console: Console) -> Iterator[Callable[[Observation], None]]:
    """Yield a function that shows each look at a job: as a bar, or as lines in a pipe."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield cell() if console.is_jupyter else lines(console, job)
        return
    view = JobView()
    glyphs = ASCII if console.options.ascii_only else Glyphs()

    def draw(width: int) -> list[Text]:
        return lines_of(view, width, time.time(), glyphs)

    with LiveLines(draw, console, per_second=SPINS):
        yield view.update


def say_event(event: Event) -> None:
    """Print that a batch was lost and requeued."""
    worker = "" if event.worker is None else f" ({event.worker})"
    say(f"Batch {event.batch} of {event.job}, {event.rung}: {event.detail}{worker}.")


def cell() -> Callable[[Observation], None]:
    """Return a function that shows the latest observation in a notebook's cell."""
    from IPython import display as ipython  # Rich's own bar would need ipywidgets there

    handle = ipython.display({"text/plain": ""}, raw=True, display_id=True)
    view = JobView()

    def show(seen: Observation) -> None:
        view.update(seen)
        text = text_of(view, time.time())
        html = escape(text)
        if seen.progress is not None:
            html = f'<progress value="{view.share:.3f}" max="1"></progress> {html}'
        handle.update({"text/plain": text, "text/html": html}, raw=True)

    return show


def lines(console: Console, job: str) -> Callable[[Observation], None]:
    """Return a function that prints a line every ``LINE_SECONDS``, and one at the end."""
    last_time, view = float("-inf"), JobView()

    def show(seen: Observation) -> None:
        nonlocal last_time
        view.update(seen)
        now = time.monotonic()
        if seen.has_ended or now - last_time >= LINE_SECONDS:
            console.print(f"{job}: {text_of(view, time.time())}")
            last_time = now

    return show
