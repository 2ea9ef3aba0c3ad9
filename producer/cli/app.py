"""The ``producer`` command: its subcommands and its error messages."""

import logging
import sys

from cyclopts import App, CycloptsError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common import __version__, logs
from common.advice import CommandLine, advise_commands
from common.errors import NotReadyError, VirnucproError
from common.memory import memory_errors_explained
from common.streams import flushed_output, log_to_stderr, open_closed_streams
from common.text import one_line, printable
from producer.cli import change, keeper, lists, output, status, watch
from producer.cli.check import check
from producer.cli.doctor import doctor
from producer.cli.flower import flower
from producer.cli.init import init
from producer.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_READY,
    EXIT_USER_ERROR,
)
from producer.cli.predict import predict
from producer.cli.report import report
from producer.cli.resume import resume
from producer.cli.submit import submit
from producer.cli.train_classifier import train_classifier
from producer.cli.translate import translate
from producer.cli.values import one_each

log = logging.getLogger("producer.cli")

app = App(
    name="producer",
    help="FASTA to embeddings: submit, watch and fetch jobs.",
    version=__version__,
)
for command in (
    *(submit, status.status, status.jobs, watch.watch, output.fetch, output.export, output.verify),
    *(check, translate, predict, train_classifier, report, resume, change.cancel, change.retry),
    *(change.set_priority, change.delete, lists.quarantine, init, keeper.keeper, flower),
    *(lists.dead_letters, doctor),
):
    app.command(command)
app.register_install_completion_command()


def run() -> None:
    """Run a command; an error that the user can fix becomes one message and exit code 2."""
    open_closed_streams()
    log_to_stderr(logging.WARNING, "%(message)s")
    advise_commands(CommandLine())
    try:
        with flushed_output(), memory_errors_explained():
            app(one_each(sys.argv[1:]), exit_on_error=False, print_error=not prints_json())
    except CycloptsError as error:
        if prints_json():
            fail(str(error))
        sys.exit(EXIT_USER_ERROR)
    except NotReadyError as error:
        fail(str(error), EXIT_NOT_READY)
    except VirnucproError as error:
        fail(str(error))
    except RedisError as error:
        fail(describe_redis_error(error))
    except BrokenPipeError:
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def prints_json() -> bool:
    """Return whether the command is to print JSON, and an error as one line."""
    return "--json" in sys.argv


def fail(text: str, code: int = EXIT_USER_ERROR) -> None:
    if logs.are_json():
        log.error("%s", text)
    else:
        shown = one_line(text) if prints_json() else printable(text)
        sys.stderr.write(f"producer: {shown}\n")
    sys.exit(code)


def describe_redis_error(error: RedisError) -> str:
    """Return a message that says why a Redis command failed, and what to do.

    A note of the error names what goes on with the job that was concerned.
    """
    go_on = getattr(error, "__notes__", ["give the same command again"])[0]
    if "OOM" in str(error):
        return (
            "Redis has no memory left (its maxmemory). Nothing is lost: give it more, or wait "
            f"until workers have taken messages; then {go_on}. VIRNUCPRO_HIGH_WATER limits the "
            "number of waiting messages (1 KB each)."
        )
    if not isinstance(error, RedisConnectionError | RedisTimeoutError):
        return f"Redis refused a command: {error}"
    return f"Redis stopped answering ({error}). Once it is back, {go_on}."
