"""Commands that list what was set aside: quarantined sequences, and messages of no use."""

from typing import Annotated

from common.text import counted
from common.wire.dead_letters import DeadLetters
from producer.cli.options import Broker, Flag, JobName, Json, StoreUrl, named_fleet
from producer.terminal.console import print_line, say
from producer.terminal.documents import DeadLetterList, PrintedLetter, QuarantineList


def quarantine(job: JobName, /, *, json: Json = False, store: StoreUrl = None) -> None:
    """List the sequences of a job that have no embedding, and why. Needs only the store."""
    jobs = named_fleet(store=store).jobs_named(job)
    rows = [row for one in jobs for row in one.quarantined()]
    if json:
        print_line(QuarantineList(job=job, sequences=tuple(rows)).text())
        return
    for row in rows:
        print_line(str(row))
    say(f"{counted(len(rows), 'sequence')} of job {job} without an embedding.")


def dead_letters(
    *, clear: Annotated[bool, Flag] = False, json: Json = False, broker: Broker = None
) -> None:
    """List the messages that no worker could process, one line of JSON each.

    Newest first, with the time in seconds since 1970. The last 1,000 are kept.

    Parameters
    ----------
    clear
        Delete them instead.
    json
        Print one JSON object with all of them, as the other commands do.
    """
    letters = DeadLetters(named_fleet(broker=broker).ledger.redis)
    if clear:
        letters.clear()
        return
    if json:
        found = tuple(map(PrintedLetter.of, letters.latest()))
        print_line(DeadLetterList(dead_letters=found).text())
        return
    for letter in letters.latest():
        print_line(letter.model_dump_json())
