"""A hub of data sets on this machine: as much of the hub's HTTP interface as the `datasets` library asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)(?P<rest>(/.*)?)")
_FILE = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class HubServer:
    """repos: repository -> path -> content. gated: repositories whose files nobody may read.

    asked: (method, path, range) of every request, in order; sent: bytes of files that went out.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def sha(self, repo: str) -> str:
        """The commit of a repository: it follows from the content."""
        digest = hashlib.sha1(repo.encode())
        for path, content in sorted(self.repos[repo].items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()

    def clear(self) -> None:
        """Forget every repository and request."""
        self.repos, self.gated, self.asked, self.sent = {}, set(), [], 0

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        """Serve in a thread until the block ends."""
        hub = self

        class Handler(_Handler):
            server_hub = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._answer(body=True, sent=self.rfile.read(length))

    def _answer(self, body: bool, sent: bytes = b"") -> None:
        # the one revision with slashes in its name that is asked for
        path = unquote(urlsplit(self.path).path).replace("refs/convert/parquet", "main")
        self.server_hub.asked.append((self.command, path, self.headers.get("Range")))
        if match := _FILE.fullmatch(path):
            return self._file(match["repo"], match["revision"], match["path"], body)
        if match := _API.fullmatch(path):
            return self._api(match["repo"], match["rest"], sent)
        return self._refuse(404, "EntryNotFound")

    def _api(self, repo: str, rest: str, sent: bytes) -> None:
        hub = self.server_hub
        if repo not in hub.repos:
            return self._refuse(401, "RepoNotFound")
        files, sha = hub.repos[repo], hub.sha(repo)
        parts = rest.strip("/").split("/")
        if len(parts) > 1 and parts[1] not in ("main", sha):
            return self._refuse(404, "RevisionNotFound")
        entries = [_entry(path, content) for path, content in sorted(files.items())]
        if parts[0] in ("", "revision"):
            siblings = [{"rfilename": entry["path"]} for entry in entries]
            gated = "manual" if repo in hub.gated else False
            return self._json(
                {"id": repo, "sha": sha, "siblings": siblings, "private": False, "gated": gated, "tags": []}
            )
        if parts[0] == "tree":
            below = "/".join(parts[2:])
            found = [entry for entry in entries if not below or entry["path"].startswith(below + "/")]
            if not found and below:
                return self._refuse(404, "EntryNotFound")
            return self._json(_tree(found, below, "recursive=true" in self.path.lower()))
        if parts[0] == "paths-info":
            wanted = json.loads(sent)["paths"]
            folders = {path.rpartition("/")[0] for path in files}
            told = [entry for entry in entries if entry["path"] in wanted]
            told += [
                {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in wanted if path in folders
            ]
            return self._json(told)
        return self._refuse(404, "EntryNotFound")

    def _file(self, repo: str, revision: str, path: str, body: bool) -> None:
        hub = self.server_hub
        if repo not in hub.repos:
            return self._refuse(401, "RepoNotFound")
        if repo in hub.gated:
            return self._refuse(401, "GatedRepo")
        if revision not in ("main", hub.sha(repo)):
            return self._refuse(404, "RevisionNotFound")
        content = hub.repos[repo].get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": hub.sha(repo)})
        headers = {
            "X-Repo-Commit": hub.sha(repo),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        code = 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, code = content[start : end + 1], 206
        if body:
            hub.sent += len(content)
        return self._send(code, content, headers, body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def _refuse(self, code: int, reason: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": reason, "X-Error-Message": reason, **(headers or {})}
        self._send(code, b"{}", told, self.command != "HEAD")

    def _send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _tree(entries: list[dict[str, Any]], below: str, recursive: bool) -> list[dict[str, Any]]:
    if recursive:
        return entries
    start = len(below) + 1 if below else 0
    folders = sorted(
        {
            entry["path"][:start] + entry["path"][start:].split("/")[0]
            for entry in entries
            if "/" in entry["path"][start:]
        }
    )
    files = [entry for entry in entries if "/" not in entry["path"][start:]]
    return [*({"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders), *files]
