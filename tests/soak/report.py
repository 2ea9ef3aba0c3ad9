"""The report of a soak test, as tables and as JSON."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from common.ledger.events import Event
from tests.soak.recovery import ELSEWHERE, GOAL_SECONDS, Recoveries


@dataclass(frozen=True)
class Times:
    """Seconds of all recoveries of one kind."""

    fault: str
    what: str
    count: int
    median: float
    worst: float
    worst_net: float  # without the time in which Redis or a keeper was down
    unfinished: int


@dataclass(frozen=True, kw_only=True)
class Report:
    seed: int
    batches: int
    workers: int
    seconds: float  # from the submission to the last batch
    problems: list[str]  # empty if the test passed
    faults: dict[str, int]
    recoveries: list[Times]
    events: dict[str, int]  # by kind, from the logs
    strange_messages: int
    ends: dict[str, list[int]]  # exit codes of processes that ended by themselves
    tracebacks: dict[str, int]  # in the logs
    submits: list[int] = field(default_factory=list)  # exit codes of repeated submissions

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def times_of(recoveries: Recoveries) -> list[Times]:
    """Return the times of recoveries by fault and expected event, and those of batches overall."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    unfinished: Counter[tuple[str, str]] = Counter()
    for recovery in recoveries.all:
        places = [(recovery.fault, recovery.what)]
        if recovery.what == ELSEWHERE:
            places.append(("all of these", ELSEWHERE))
        for place in places:
            found = groups.setdefault(place, [])
            if recovery.is_finished:
                found.append((recovery.seconds, recoveries.net_seconds(recovery)))
            else:
                unfinished[place] += 1
    return [
        Times(
            *place,
            count=len(found) + unfinished[place],
            median=round(median(seconds for seconds, _ in found), 1) if found else 0.0,
            worst=round(max((seconds for seconds, _ in found), default=0.0), 1),
            worst_net=round(max((net for _, net in found), default=0.0), 1),
            unfinished=unfinished[place],
        )
        for place, found in sorted(groups.items(), key=lambda group: group[0][::-1])
    ]


def missed_goals(times: Iterable[Times]) -> list[str]:
    """Return a line for each kind of fault after which batches did not run elsewhere in time."""
    ours = [each for each in times if each.what == ELSEWHERE and each.fault != "all of these"]
    late = [
        f"{each.fault}: {each.what} after {each.worst_net:g} s, Redis and a keeper being there; "
        f"at most {GOAL_SECONDS:g} are allowed"
        for each in ours
        if each.worst_net > GOAL_SECONDS
    ]
    never = [
        f"{each.fault}: {each.unfinished} times never {each.what}"
        for each in ours
        if each.unfinished
    ]
    return late + never


def events_in(logs: Sequence[Path]) -> dict[str, int]:
    """Count the events in the logs, by kind and by process."""
    counts: Counter[str] = Counter()
    for log in logs:
        who = log.stem.split("-")[0]
        for text in re.findall(r"\{\"time\".*\}", log.read_text(errors="replace")):
            try:
                counts[f"{Event.model_validate_json(text).event} ({who})"] += 1
            except ValidationError:  # cut by a kill
                counts[f"unreadable ({who})"] += 1
    return dict(sorted(counts.items()))


def tracebacks_in(logs: Sequence[Path]) -> dict[str, int]:
    """Return the number of tracebacks in each log that has any."""
    found = {log.name: log.read_text(errors="replace").count("Traceback (most") for log in logs}
    return {name: count for name, count in found.items() if count}


def print_report(report: Report) -> None:
    console = Console()
    console.width = max(console.width, 110)
    rate = report.batches / report.seconds
    console.print(
        f"{report.batches:,} batches by {report.workers} workers in {report.seconds:,.0f} s "
        f"({rate:.1f}/s), seed {report.seed}",
        highlight=False,
    )
    table = Table("fault", "times", title="Faults", title_justify="left")
    for fault, count in report.faults.items():
        table.add_row(fault, str(count))
    table.add_row("", str(sum(report.faults.values())))
    console.print(table)
    console.print(recovery_table(report.recoveries))
    counts: Mapping[str, object] = {
        **report.events,
        "strange messages pushed": report.strange_messages,
        "repeated submissions, exit codes": report.submits,
        **{f"{name} ended by itself, exit codes": codes for name, codes in report.ends.items()},
        **{f"tracebacks in {name}": count for name, count in report.tracebacks.items()},
    }
    table = Table("event", "count", title="Seen in the logs", title_justify="left")
    for name, value in counts.items():
        table.add_row(name, str(value))
    console.print(table)
    for problem in report.problems:
        console.print(f"WRONG: {problem}", highlight=False, style="bold red")
    if not report.problems:
        console.print("Every row is present once, in order, as computed without faults.")


def recovery_table(recoveries: Sequence[Times]) -> Table:
    """Return a table in seconds; *worst, net* excludes times when Redis or a keeper was down."""
    columns = "fault", "until", "times", "median, s", "worst, s", "worst, net"
    table = Table(*columns, title="Recovery", title_justify="left")
    for each in recoveries:
        never = f" ({each.unfinished} not until the end)" if each.unfinished else ""
        figures = (f"{value:.1f}" for value in (each.median, each.worst, each.worst_net))
        table.add_row(each.fault, each.what, f"{each.count}{never}", *figures)
    return table
