"""Tells a store that does not answer, or cannot write now, from one that was asked for nonsense."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException, RestException
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from moesd_dist.ports import TrackerUnavailable
from moesd_dist.tracking.redact import redact

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_SQLITE = re.compile(r"disk is full|is locked|disk I/O error|readonly database|unable to open")
_LATER = (408, 429)  # too slow, too many: the same request is right in a while
_ANSWERS = re.compile(
    r"failed with error code (5\d\d|408|429)|(5\d\d|408|429) (Server|Client) Error"
    r"|timed? ?out|Max retries exceeded"
)


@contextmanager
def told() -> Iterator[None]:
    """Raises TrackerUnavailable for what passes by itself or by a person's making room."""
    try:
        yield
    except (MlflowException, RequestException, HTTPError, OSError, sqlite3.Error) as error:
        if (reason := _outage(error)) is not None:
            raise TrackerUnavailable(redact(reason)) from error
        raise


def _outage(error: BaseException) -> str | None:
    """The reason in one line, found anywhere among the causes; None if it is no outage."""
    for cause in _causes(error):
        if _passes(cause):
            return " ".join(str(cause).split())[:300]
    return None


def _passes(error: BaseException) -> bool:
    match error:
        case RestException() | MlflowException() if _ANSWERS.search(str(error)):
            return True
        case RestException():
            return _is_for_later(int(error.get_http_status_code()))
        case RequestException() if error.response is not None:
            return _is_for_later(error.response.status_code)
        case RequestException() | HTTPError() | ConnectionError() | TimeoutError():
            return True
        case sqlite3.OperationalError():
            return _SQLITE.search(str(error)) is not None
        case OSError():
            return error.errno in _DISK
    return False


def _is_for_later(status: int) -> bool:
    return status >= 500 or status in _LATER


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The deepest first: it says what really happened. SQLAlchemy keeps the driver's as `orig`."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or one in found:
            continue
        found.append(one)
        said = [argument for argument in one.args if isinstance(argument, BaseException)]
        left += [getattr(one, "orig", None), one.__cause__, one.__context__, *said]
    yield from reversed(found)
