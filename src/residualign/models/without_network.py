"""Libraries that fetch by themselves look into the hub's cache alone where there is no network, and at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["cache_alone_without_network"]

_SECONDS = 5.0


@contextlib.contextmanager
def cache_alone_without_network() -> Iterator[None]:
    """Switch the hub's client to its offline mode for the time of the context, where the hub does not answer.

    The client itself tries again and again for half a minute a file before it looks into the cache. Costs one request;
    any answer counts as one, and a client that is offline already stays so.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(address: str) -> bool:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # as its own documentation has it

    try:
        get_session().head(address, timeout=_SECONDS)
    except Exception:
        # which HTTP library raises changes with the client's version; no answer is no answer
        return False
    return True
