"""The process that holds one vLLM engine: `python -m moesd_dist.engines.vllm.child`, started by its parent."""

from __future__ import annotations

import os
from typing import Any

from moesd_dist.engines.vllm.serving import open_channel, serve
from moesd_dist.engines.vllm.session import Session
from moesd_dist.records import RankPlace


class Child:
    """Handlers of the parent's calls: the session's methods, once it is started."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def start(self, arguments: dict[str, Any], place: RankPlace) -> dict[str, Any]:
        self._session = Session(arguments, place)
        return self._session.describe()

    def session(self, method: str, arguments: dict[str, Any]) -> Any:
        assert self._session is not None  # the parent starts it first
        return getattr(self._session, method)(**arguments)

    def close(self) -> None:
        if self._session is not None:
            self._session.shut_down()


def main() -> None:
    child = Child()
    serve(open_channel(), {"start": child.start, "session": child.session, "close": child.close})
    os._exit(0)  # vLLM's own exit waits for its peers


if __name__ == "__main__":
    main()
