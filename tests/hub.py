"""A model hub for tests: a cache in its own layout, and a server that speaks what of its protocol loading needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "3141592653589793238462643383279502884197"


def cache_model(cache: Path, hub_id: str, folder: Path, revision: str = "main", commit: str = COMMIT) -> Path:
    """Put the files of a folder into a hub cache; returns the snapshot, whose files are links to blobs."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for part in (snapshot, repository / "blobs", (repository / "refs" / revision).parent):
        part.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    for file in folder.iterdir():
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        (repository / "blobs" / digest).write_bytes(content)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", digest))
    return snapshot


@contextmanager
def serve_model(hub_id: str, folder: Path, *, status: int = 200, code: str = "") -> Iterator[tuple[str, list[str]]]:
    """A hub with one model at one commit; yields its address and the paths that were asked for.

    status, code: what every question is answered with instead (401, 403), and the hub's own word for it.
    """
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            body, headers = b"", {"X-Repo-Commit": COMMIT}
            answer = status
            if status != 200:
                headers |= {"X-Error-Code": code} if code else {}
            elif path in (f"/api/models/{hub_id}", f"/api/models/{hub_id}/revision/main"):
                body = json.dumps({"id": hub_id, "sha": COMMIT, "siblings": []}).encode()
            elif path == f"/api/models/{hub_id}/tree/{COMMIT}":
                body = json.dumps([self._entry(file) for file in sorted(folder.iterdir())]).encode()
            elif path.startswith(f"/{hub_id}/resolve/{COMMIT}/"):
                body = (folder / Path(path).name).read_bytes()
                headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
            elif path.startswith(f"/api/models/{hub_id}/revision/"):
                answer, headers = 404, {"X-Error-Code": "RevisionNotFound"}
            else:
                answer, headers = 404, {"X-Error-Code": "RepoNotFound"}
            self.send_response(answer)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _entry(self, file: Path) -> dict[str, object]:
            content = file.read_bytes()
            digest = hashlib.sha1(content).hexdigest()
            return {"type": "file", "path": file.name, "size": len(content), "oid": digest}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
