"""Errors of the hub's libraries as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from residualign.errors import BadInputError, system_reason

__all__ = ["http_error", "hub_errors"]

_LONGEST = 300  # characters of another library's message


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn errors of loading the data set `name` into `BadInputError`; disk errors pass through as OSError.

    Log messages of the libraries are not shown: they would repeat the error.
    """
    # imported here: importing the package must stay quick
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from datasets.utils import logging as datasets_logging

    told = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)
    try:
        yield
    except BadInputError:
        raise
    # RuntimeError: a repository with a loading script; its subclass NotImplementedError: what cannot be streamed
    except (DatasetsError, http_error(), OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        chain = _chain(error)
        for one in chain:
            # a failing disk is not bad input
            if isinstance(one, OSError) and system_reason(one) is not None:
                raise one from None
        if type(error) is RuntimeError and "script" not in str(error):
            raise
        raise BadInputError(_sentence(name, chain)) from error
    finally:
        datasets_logging.set_verbosity(told)


def http_error() -> type[Exception]:
    """The base error of the hub's HTTP library; which library that is depends on the version."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the library it uses

    return HTTPError


def _sentence(name: str, chain: list[BaseException]) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def raised(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    # the library reports a gated set only in its message, and hides the cause
    if raised(GatedRepoError) or any("gated" in str(one) for one in chain if isinstance(one, DatasetNotFoundError)):
        return f"the data set {name!r} is gated: ask for access on its page of the hub, then log in (`hf auth login`)"
    if raised(RevisionNotFoundError):
        return f"the data set {name!r} has no such revision on the hub"
    if raised(OfflineModeIsEnabled):
        return f"the data set {name!r} is not in the local cache, and the hub is turned off (HF_HUB_OFFLINE)"
    if raised(RepositoryNotFoundError, DatasetNotFoundError):
        return (
            f"there is no data set {name!r} on the hub, or it is private: check the name, or log in (`hf auth login`)"
        )
    if raised(ConnectionError) or (raised(http_error()) and not raised(HfHubHTTPError)):
        return f"the data set {name!r} is not in the local cache, and the hub cannot be reached; check the network"
    return f"the data set {name!r} cannot be loaded: {_first_sentences(chain)}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, the outermost first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found


def _first_sentences(chain: list[BaseException]) -> str:
    """The message of the innermost cause on one line; the outer ones often say nothing."""
    texts = [" ".join(str(one).split("Example of usage")[0].split()) for one in reversed(chain)]
    text = next((text for text in texts if text), type(chain[0]).__name__).rstrip(".:")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
