"""The progress of a job in words and bars: as lines that fit a terminal, or as one line."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import OverflowMethod
from rich.text import Text

from common.ledger.progress import JobState, Progress
from common.ledger.workers import WorkerInfo
from common.text import counted_batches, duration, one_line
from producer.scheduling.observation import Observation

#: Widest and narrowest bar in characters.
WIDEST_BAR, NARROWEST_BAR = 40, 10

#: The beginning of lines below the first.
INDENT = "  "

#: What workers do until they have loaded their model, by the stage in their entry.
STAGES = {
    "waiting": "waiting for a server that has the model",
    "downloading": "downloading the model",
    "loading": "loading the model",
    "hashing": "hashing the model's files",
    "warming up": "warming up the device",
}

#: Pictures of the spinner a second.
SPINS = 8


@dataclass(frozen=True)
class Glyphs:
    """The characters of the display."""

    spinner: str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
    done: str = "✓"
    full: str = "━"
    half: str = "╸"
    rest: str = "─"
    separator: str = " · "
    cropped: OverflowMethod = "ellipsis"


#: For a terminal that has ASCII alone.
ASCII = Glyphs("|/-\\", done="*", full="#", half="-", rest=".", separator=", ", cropped="crop")


@dataclass
class JobView:
    """What is shown of a job: the latest observation, and a progress that never goes back.

    A batch may begin again, and its last tokens be told later than its end.
    """

    began: float = field(default_factory=time.time)
    seen: Observation = field(default_factory=lambda: Observation(None))
    progress: Progress | None = None  # the latest that Redis told
    tokens: int = 0  # the most that were done

    def update(self, seen: Observation) -> None:
        """Take in another observation."""
        self.seen = seen
        if seen.progress is not None:
            self.progress = seen.progress
            self.tokens = max(self.tokens, seen.progress.tokens_done + seen.running_tokens)

    @property
    def is_finished(self) -> bool:
        return self.progress is not None and self.progress.finished

    @property
    def share(self) -> float:
        """The share of the job that is done; below 1 until it is finished."""
        if self.progress is None:
            return 0.0
        if self.progress.finished and not self.progress.batches_failed:
            return 1.0
        return min(0.99, self.tokens / max(1, self.progress.tokens))

    @property
    def percent(self) -> str:
        return f"{int(100 * self.share)} %"

    def elapsed(self, now: float) -> float:
        """Return the seconds since the job was submitted, or since this machine runs it."""
        created = self.progress.created if self.progress and not self.seen.is_local else self.began
        return max(0.0, now - min(created, self.began))

    def times(self, now: float) -> list[str]:
        """Return the time elapsed, and the time left if it can be told."""
        times = [f"{duration(self.elapsed(now))} elapsed"]
        speed = self.seen.tokens_per_second
        is_known = self.progress is not None and self.progress.state is not JobState.STAGING
        if self.progress is not None and is_known and speed and not self.seen.has_ended:
            left = max(0, self.progress.tokens - self.tokens) / speed
            times.append(f"{duration(left)} left")
        return times


def text_of(view: JobView, now: float) -> str:
    """Return one line about a job."""
    if view.seen.progress is None:
        return in_line(view.seen.trouble)
    waiting = waiting_for(view)
    return Glyphs.separator.join(
        [view.percent, *([waiting] if waiting else []), *details(view), *view.times(now)]
    )


def lines_of(view: JobView, width: int, now: float, glyphs: Glyphs) -> list[Text]:
    """Return lines about a job, each narrower than ``width``: the last column is the cursor's."""
    room = max(1, width - 1)
    spinner = glyphs.spinner[int(now * SPINS) % len(glyphs.spinner)]
    first = f"{glyphs.done if view.is_finished else spinner} "
    waiting, times = waiting_for(view), glyphs.separator.join(view.times(now))
    parts = details(view)
    if waiting:
        head = Text(first + waiting)
        parts = [times, *parts]
    else:
        head, has_times = headline(first, view, times, room, glyphs)
        parts = parts if has_times else [times, *parts]
    below = [
        *filled(parts, room, glyphs.separator),
        *filled([in_line(view.seen.trouble)], room, glyphs.separator),
    ]
    lines = [head, *map(Text, below)]
    for line in lines:
        line.truncate(room, overflow=glyphs.cropped)
    return lines


def headline(first: str, view: JobView, times: str, room: int, glyphs: Glyphs) -> tuple[Text, bool]:
    """Return the line with the bar, and whether it has room for the times too."""
    percent = f" {view.percent:>5}"
    with_times = f"{percent}  {times}"
    has_times = room - cell_len(first + with_times) >= NARROWEST_BAR
    rest = with_times if has_times else percent
    width = max(1, min(WIDEST_BAR, room - cell_len(first + rest)))
    return Text.assemble(first, *bar(view.share, width, glyphs), rest), has_times


def bar(share: float, width: int, glyphs: Glyphs) -> list[tuple[str, str]]:
    """Return a bar of ``width`` characters as styled parts."""
    halves = int(2 * width * share)
    done = glyphs.full * (halves // 2) + glyphs.half * (halves % 2)
    return [(done, "bar.complete"), (glyphs.rest * (width - len(done)), "bar.back")]


def details(view: JobView) -> list[str]:
    """Return what is to be said of a job beside its bar."""
    progress, seen = view.progress, view.seen
    if progress is None:
        return []
    parts = [
        f"{progress.batches_done:,}/{progress.batches:,} batches"
        f"{' staged so far' if progress.state is JobState.STAGING else ''}",
        f"{progress.rows_done:,}/{progress.records:,} sequences",
    ]
    if progress.identical:
        parts.append(f"{progress.identical:,} more identical")
    if seen.tokens_per_second is not None:
        parts.append(f"{seen.tokens_per_second:,.0f} tokens/s")
    if not seen.has_ended:
        parts += devices(seen.workers)
    troubles = {
        "retried": progress.rows_retried,
        "quarantined": progress.rows_quarantined,
        "requeued from lost workers": progress.leases_lost,
    }
    parts += [f"{count:,} {label}" for label, count in troubles.items() if count]
    if progress.batches_failed:
        parts.append(f"{counted_batches(progress.batches_failed)} failed")
    return parts


def in_line(text: str) -> str:
    """Return a text from elsewhere as a part of a line, whose width is known."""
    return one_line(text).expandtabs(1)


def devices(workers: Sequence[WorkerInfo]) -> list[str]:
    """Return the kinds of devices with their precision: ``fp16 on 2 x NVIDIA H200``."""
    kinds = Counter((worker.precision, in_line(worker.device)) for worker in workers)
    return [
        f"{precision} on {device if count == 1 else f'{count:,} x {device}'}"
        for (precision, device), count in sorted(kinds.items())
    ]


def waiting_for(view: JobView) -> str:
    """Return what a job waits for that has not begun; nothing if it could begin."""
    progress, workers = view.progress, view.seen.workers
    if progress is None or view.seen.has_ended or progress.batches_done or view.tokens:
        return ""
    if not workers:
        return "starting the worker" if view.seen.is_local else "waiting for a worker"
    if all(worker.weights is None for worker in workers):
        stage = next((worker.stage for worker in workers if worker.stage), "loading")
        return STAGES.get(stage) or f"loading the model ({' '.join(in_line(stage).split())})"
    return ""


def filled(parts: Sequence[str], room: int, separator: str) -> Iterator[str]:
    """Yield lines of as many parts as fit; a part that is longer is broken between words."""
    line = ""
    for part in parts:
        if line and cell_len(INDENT + line + separator + part) <= room:
            line = f"{line}{separator}{part}"
            continue
        if line:
            yield INDENT + line
        *whole, line = textwrap.wrap(part, max(1, room - len(INDENT))) or [""]
        yield from (INDENT + text for text in whole)
    if line:
        yield INDENT + line
