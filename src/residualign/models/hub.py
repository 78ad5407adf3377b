"""Files of models on the Hugging Face hub: downloaded once into the hub's own cache, and read from there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from residualign.errors import BadInputError, is_full

__all__ = ["SAFETENSORS", "cache_alone_without_network", "fetch", "not_loaded"]

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
"""A checkpoint with one of these has safetensors weights, in one file or several."""

_OLDER = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# what loading reads; other formats of the same weights would double the download
_FILES = (
    "config.json",
    # not read, but refused beside full weights
    "adapter_config.json",
    "*processor_config.json",
    *SAFETENSORS,
    "model-*-of-*.safetensors",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)

# downloaded where there are no safetensors: older checkpoints, such as BLIP's
_OLDER_FILES = (*_OLDER, "pytorch_model-*-of-*.bin")


def fetch(name: str, hub_id: str, revision: str | None = None) -> Path:
    """The folder of a model's files at one commit, which it is named for; what is not in the cache is downloaded.

    name: of the model, in error messages. revision: a branch, tag or commit; None is the main branch. All files are of
    one commit, even if the model changes on the hub meanwhile. Without a network, or with HF_HUB_OFFLINE=1, only the
    cache is read. `BadInputError` for a model that does not exist, is not public, is gated, is neither in the cache nor
    within reach, or is incomplete.
    """
    from huggingface_hub import snapshot_download

    def has_weights() -> bool:
        return any((folder / file).is_file() for file in (*SAFETENSORS, *_OLDER))

    try:
        with _bars_on_terminals_only():
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_FILES)))
            if not has_weights() and (folder / "config.json").is_file():
                # at the commit that was downloaded
                snapshot_download(hub_id, revision=folder.name, allow_patterns=list(_OLDER_FILES))
    except Exception as error:
        # the client raises its own errors, those of its HTTP library and plain OSErrors
        raise _refusal(name, hub_id, revision, error) from error
    has_config = (folder / "config.json").is_file()
    if not has_config or not has_weights():
        lacking = "model.safetensors" if has_config else "config.json"
        # an interrupted download, or a cache that was cleaned, leaves links without their files
        raise BadInputError(
            f"model {name!r}: commit {folder.name[:12]} has no {lacking}; either the hub does not have it, or the "
            "local cache holds only a part of the model and the hub could not be reached for the rest"
        )
    return folder


def _refusal(name: str, hub_id: str, revision: str | None, error: Exception) -> BadInputError:
    from huggingface_hub import errors

    # first, because it re-raises a full disk or memory behind the client's error
    otherwise = not_loaded(name, "from the hub", error)
    status = _http_status(error)
    if isinstance(error, errors.HFValidationError):
        return BadInputError(f"model {name!r}: {hub_id!r} is not a hub id; expected org/name")
    if isinstance(error, errors.RevisionNotFoundError):
        return BadInputError(f"model {name!r}: the hub's {hub_id!r} has no revision {revision!r}")
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return BadInputError(
            f"model {name!r} is gated: accept its terms at https://huggingface.co/{hub_id} and log in (hf auth login, "
            "or HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return BadInputError(
            f"model {name!r}: the hub has no public model {hub_id!r}; a private one needs a login (hf auth login, or "
            "HF_TOKEN)"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and not isinstance(error, errors.HfHubHTTPError):
        answer = "" if status is None else f" (HTTP {status})"
        held = "holds only a part of it or a different revision" if _is_cached(hub_id) else "does not hold it"
        return BadInputError(f"model {name!r}: the hub could not be reached{answer}, and the local cache {held}")
    return otherwise


def _http_status(error: BaseException) -> int | None:
    """HTTP status of the hub's response behind an error, if there was a response."""
    responses = (getattr(one, "response", None) for one in _behind(error))
    return next((int(response.status_code) for response in responses if response is not None), None)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    return any(folder.glob("snapshots/*/*"))


@contextlib.contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Show the progress of downloads on a terminal, but not in logs and pipes."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


_LONGEST_REASON = 300


def not_loaded(name: str, how: str, error: Exception) -> BadInputError:
    """One sentence with what the library said, on one line and cut where it is long.

    A full disk or memory behind the error is the machine's fault, not the model's, and is raised as it is: it has its
    own exit code and sentence.
    """
    for one in _behind(error):
        if isinstance(one, MemoryError) or (isinstance(one, OSError) and is_full(one)):
            raise one
    reason = " ".join(str(error).split()) or type(error).__name__
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}..."
    return BadInputError(f"model {name!r} could not be loaded {how}: {reason}")


_SECONDS = 5.0


@contextlib.contextmanager
def cache_alone_without_network(spec: str = "") -> Iterator[None]:
    """Put the hub's client into its offline mode inside the context, if the hub does not respond.

    spec: what a library is asked for; nothing is done for one that begins with `local-dir:`, which needs no network.

    The client itself retries for half a minute per file before it reads its cache. Costs one request, to which any
    response counts; a client that is offline already stays offline.
    """
    from huggingface_hub import constants

    if spec.startswith("local-dir:") or constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
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
        # the client's version decides which HTTP library raises
        return False
    return True
