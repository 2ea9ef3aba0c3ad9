"""The report of ``producer check``."""

from collections.abc import Iterator

from rich.console import Console

from common.alphabet import ALPHABETS
from common.job.output_form import OutputForm
from common.streams import can_print
from common.text import counted, counted_batches, counted_bytes, duration, printable
from producer.submission.input_check import InputCheck, LengthBin
from producer.submission.request import Request
from producer.terminal.tables import print_table

#: Width in characters of the longest bar of a histogram.
BAR = 40

#: What each kind of bad record is, in a table.
KINDS = {
    "empty": "without a sequence",
    "short": "shorter than min_length",
    "long": "longer than max_residues",
    "letters": "with letters that the model does not have",
    "gaps": "with gaps",
    "header": "with a NUL in the header",
}


def print_check(console: Console, found: InputCheck, request: Request) -> None:
    """Print what was found: counts, lengths, letters, and the bad records at the end."""
    print_table(console, ["of the input", "number", ""], rows_of(found, request), framed=False)
    if found.lengths:
        console.print()
        print_table(console, ["letters", "records", ""], histogram(found.lengths), framed=False)
    for title, lines in (
        (bad_title(found), list(bad_lines(found))),
        ("Warning:", list(found.warnings)),
        ("Refused:", list(found.refusals)),
    ):
        if lines:
            console.print()
            console.print(title)
            for line in lines:
                console.print(f"  {printable(line)}", soft_wrap=True)


def rows_of(found: InputCheck, request: Request) -> Iterator[tuple[str, str, str]]:
    """Yield what was counted: a name, a number, and what there is to say of it."""
    letters = ALPHABETS[request.alphabet.name].plural
    sources = counted(len(found.sources), "source")
    yield "records", f"{found.records:,}", f"in {sources}, for {found.model}"
    yield "to embed", f"{found.rows:,}", f"read as {found.molecule}"
    for name, what in (("empty", KINDS["empty"]), ("short", KINDS["short"])):
        if number := getattr(found, name):
            yield "left out", f"{number:,}", what
    if found.skipped:
        yield "left out", f"{found.skipped:,}", KINDS["letters"]
    for kind, number in found.bad.items():
        yield "bad", f"{number:,}", KINDS[kind]
    for name, number, what in (
        (
            "replaced",
            found.replaced,
            f"records with unknown letters, as {request.alphabet.unknown}",
        ),
        ("RNA", found.rna, "records whose U is read as T"),
        ("like DNA", found.like_dna, "records that look like DNA or RNA, read as proteins"),
        ("gaps", found.gaps, f"in {counted(found.gapped, 'record')}"),
        ("lower case", found.lower_case, "letters"),
        ("equal ids", found.duplicate_ids, "records with the id of an earlier one"),
        ("equal letters", found.duplicate_sequences, "records with the letters of an earlier one"),
        ("copies", found.rows - found.computed, "of them, which are not computed again"),
        ("long", found.long, describe_long(found, request.form)),
    ):
        if number:
            yield name, f"{number:,}", what
    yield "letters", f"{sum(found.letters.values()):,}", shares(found.letters)
    range_ = f"on average, from {found.shortest:,} to {found.longest:,}"
    if found.shortest == found.longest:
        range_ = "each"
    yield "lengths", f"{found.mean_length:,.0f}", range_
    if not found.rows:
        return
    yield "embedded", f"{found.residues:,}", letters
    yield "tokens", f"{found.tokens:,}", f"in {counted_batches(found.batches)}"
    if found.output_bytes is None:
        yield "output", "unknown", "only the workers know the model"
    else:
        yield "output", counted_bytes(found.output_bytes), "about, as HDF5"
    if not found.accepted:
        yield "", "", "all of this of the good records alone"
    yield "computing", *time_shown(found)


def time_shown(found: InputCheck) -> tuple[str, str]:
    time = found.time
    if time is None:
        return "unknown", "give --bench FILE, of worker bench --json"
    seconds = 3600 * time.device_hours
    shown = duration(seconds) if seconds >= 60 else f"{seconds:.1f} s"
    speed = f"{time.tokens_per_second:,.0f} tokens/s"
    return shown, f"on one device at {speed} ({time.precision}; {time.machine})"


def describe_long(found: InputCheck, form: OutputForm) -> str:
    """Return what becomes of long records."""
    longer = f"records longer than {form.max_residues:,}"
    if found.windows:
        return f"{longer}, in {found.windows:,} windows"
    if found.letters_lost:
        return f"{longer}, truncated: {found.letters_lost:,} letters are not embedded"
    return longer


def shares(letters: dict[str, int]) -> str:
    """Return the share of each letter, the most frequent first."""
    total = sum(letters.values())
    shown = {sign: f"{number / total:.1%}" for sign, number in letters.items()}
    return ", ".join(f"{sign} {'<0.1%' if s == '0.0%' else s}" for sign, s in shown.items())


def histogram(bins: tuple[LengthBin, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each bin of lengths, with a bar."""
    most = max(found.records for found in bins)
    sign = "█" if can_print("█") else "#"
    for found in bins:
        bar = sign * -(-BAR * found.records // most)
        yield f"{found.shortest:,} to {found.longest:,}", f"{found.records:,}", bar


def bad_title(found: InputCheck) -> str:
    """Return the line above the bad records."""
    number, listed = sum(found.bad.values()), len(found.bad_records)
    return f"{counted(number, 'bad record')}{f', the first {listed}' if listed < number else ''}:"


def bad_lines(found: InputCheck) -> Iterator[str]:
    """Yield a line for each bad record that is listed, and what to do."""
    for bad in found.bad_records:
        yield (f"{bad.source}, {bad.place}: record {bad.record} ({bad.header!r}) {bad.problem}.")
    for advice in dict.fromkeys(bad.advice for bad in found.bad_records):
        yield f"{advice}."
