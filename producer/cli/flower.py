"""``producer flower``: Flower, the web page of Celery, for this fleet."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import AfterValidator, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError
from common.http import is_loopback, split_address
from common.installing import how_to_install
from common.logs import LogFormat, LogLevel, start_logs
from common.paths import user_path
from common.settings import Settings
from producer.cli.options import Broker, to_path


class FlowerSettings(BaseSettings):
    """What the environment says of Flower. Command-line options take precedence."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_FLOWER_", frozen=True)

    address: str = "127.0.0.1:5555"
    url_prefix: str = ""
    login: SecretStr | None = None  # USER:PASSWORD; or several, one in each line
    login_file: Annotated[Path, AfterValidator(user_path)] | None = None  # with the same text

    def logins(self) -> tuple[str, ...]:
        """Return the logins, each ``USER:PASSWORD``, of the file or else of the variable.

        Raises:
            UserError: the file cannot be read, or they have another form; they are not quoted.
        """
        if self.login_file is None:
            variable = "VIRNUCPRO_FLOWER_LOGIN"
            return () if self.login is None else logins_of(variable, self.login.get_secret_value())
        try:
            return logins_of(str(self.login_file), self.login_file.read_text("ascii"))
        except OSError as error:
            raise UserError(f"{self.login_file}: {error.strerror}.") from None
        except UnicodeDecodeError:
            return logins_of(str(self.login_file), "")  # is not of the right form either


def flower(
    *,
    address: str | None = None,
    login_file: Annotated[Path | None, Parameter(converter=to_path)] = None,
    url_prefix: str | None = None,
    log_format: LogFormat | None = None,
    log_level: LogLevel | None = None,
    broker: Broker = None,
) -> None:
    """Show workers, tasks and queues in a browser until Ctrl-C or SIGTERM. Needs the extra flower.

    It only shows: nothing can be changed through it. Where others can reach it, it needs a login:
    USER:PASSWORD in VIRNUCPRO_FLOWER_LOGIN or in a file.

    Parameters
    ----------
    address
        Where it is served, such as 0.0.0.0:5555 for all interfaces; default:
        VIRNUCPRO_FLOWER_ADDRESS, or 127.0.0.1:5555.
    login_file
        File with USER:PASSWORD in each line; default: VIRNUCPRO_FLOWER_LOGIN_FILE.
    url_prefix
        Path of all pages, behind a proxy that has others; default: VIRNUCPRO_FLOWER_URL_PREFIX.
    log_format
        text, or json for one JSON object in each line; default: VIRNUCPRO_LOG_FORMAT, or text.
    log_level
        Least level of lines: debug, info, warning or error; default: VIRNUCPRO_LOG_LEVEL, or info.
    """
    start_logs("flower", log_format, log_level)
    given: dict[str, Any] = {"address": address, "login_file": login_file, "url_prefix": url_prefix}
    site = FlowerSettings(**{name: value for name, value in given.items() if value is not None})
    host, port = split_address("--address", site.address, "Give a free HOST:PORT.")
    logins = site.logins()
    if not logins and not is_loopback(host):
        raise UserError(
            f"--address {site.address}: others can reach it, and would see every job. Set "
            "VIRNUCPRO_FLOWER_LOGIN to USER:PASSWORD, or name a file with it (--login-file); or "
            "give an address of this machine alone, such as 127.0.0.1:5555."
        )
    settings = Settings.read(broker=broker)
    if find_spec("flower") is None:
        raise UserError(f"Flower is not installed. To install it: {how_to_install('flower')}")
    from producer.cli.flower_pages import serve_pages

    serve_pages(settings.broker_url, host, port, logins=logins, prefix=site.url_prefix.strip("/"))
    logging.shutdown()
    os._exit(0)  # threads that ask workers could wait for Redis for ever


def logins_of(source: str, text: str) -> tuple[str, ...]:
    """Return the logins in a text, one in each line.

    Raises:
        UserError: there is none, or one is of another form. Flower compares no others than ASCII.
    """
    logins = tuple(filter(None, map(str.strip, text.splitlines())))
    for user, _, password in (login.partition(":") for login in logins or ("",)):
        if not (user and password and f"{user}{password}".isascii()):
            raise UserError(f"{source}: not USER:PASSWORD, in ASCII, in each line.")
    return logins
