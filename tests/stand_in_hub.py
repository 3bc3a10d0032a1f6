"""A stand-in for the model hub: as much of its HTTP API as huggingface_hub's client asks for."""

from __future__ import annotations

import base64
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

TOKEN = "hf_right"


@dataclass
class Repository:
    """Commits by their hash, each a whole tree; branches and tags by their name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        text = repr((len(self.commits), sorted(files.items())))
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.refs[branch] = files, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Hub:
    """What the server holds, and what it was asked: method and path, in order."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    readers_need_a_token: bool = False
    told: dict[str, int] = field(default_factory=dict)
    """Sizes of files that it lies about."""

    def downloads(self) -> set[str]:
        """Names of files whose bytes were sent."""
        sent = (re.match(r"GET /.*/resolve/[^/]+/(.*)", line) for line in self.asked)
        return {found[1] for found in sent if found}


@contextmanager
def stand_in_hub() -> Iterator[Hub]:
    """Serves an empty hub on the loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        writes = self.command in ("POST", "PUT") and not path.startswith("/lfs/")
        token = self.headers.get("Authorization")
        if (writes or self.hub.readers_need_a_token) and token != f"Bearer {TOKEN}":
            self._refuse(401, message="Invalid credentials in Authorization header")
            return
        for method, pattern, act in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                act(self, body, *found.groups())
                return
        self._refuse(404, "EntryNotFound")

    # -- the API ----------------------------------------------------------------------

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization'] or 'someone'}/{asked['name']}"
        if asked["organization"] == "others":
            self._refuse(403, message="You don't have the rights to create a model here")
            return
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, Repository()).refs.setdefault("main", "")
        repository = self.hub.repositories[name]
        if not repository.commits:
            repository.commit({".gitattributes": b"*.onnx filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/{name}"}, status)

    def branch(self, _: bytes, name: str, branch: str) -> None:
        repository = self._repository(name)
        if repository is not None:
            status = 409 if branch in repository.refs else 200
            repository.refs.setdefault(branch, repository.refs["main"])
            self._json({}, status)

    def validate(self, _: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._tree(name, revision) is not None:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs"
                    if file["path"].endswith(("onnx", "tensors"))
                    else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._json({"files": modes})

    def batch(self, body: bytes, name: str) -> None:
        objects = [
            {
                **asked,
                "actions": {
                    "upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify/{asked['oid']}"},
                },
            }
            for asked in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.lfs[oid] = body
        self._json({})

    def verify(self, _: bytes, oid: str) -> None:
        self._json({}, 200 if oid in self.hub.lfs else 404)

    def commit(self, body: bytes, name: str, revision: str) -> None:
        tree = self._tree(name, revision)
        if tree is None:
            return
        files = dict(tree[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.hub.repositories[name].commit(files, revision)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def info(self, _: bytes, name: str, revision: str | None) -> None:
        tree = self._tree(name, revision or "main")
        if tree is not None:
            siblings = [{"rfilename": path} for path in tree[1]]
            self._json({"_id": "0", "id": name, "sha": tree[0], "siblings": siblings})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        tree = self._tree(name, revision)
        if tree is not None:
            entries = [
                {
                    "type": "file",
                    "path": path,
                    "size": self.hub.told.get(path, len(data)),
                    "oid": hashlib.sha1(data).hexdigest(),
                }
                for path, data in tree[1].items()
            ]
            self._json(entries)

    def file(self, _: bytes, name: str, revision: str, path: str) -> None:
        tree = self._tree(name, revision)
        if tree is None:
            return
        if path not in tree[1]:
            self._refuse(404, "EntryNotFound")
            return
        data = tree[1][path]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": tree[0]}
        if self.command == "HEAD" and path in self.hub.told:
            headers["X-Linked-Size"] = str(self.hub.told[path])
        self._send(200, data, headers)

    # -- answers ----------------------------------------------------------------------

    def _repository(self, name: str) -> Repository | None:
        if name not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        return self.hub.repositories.get(name)

    def _tree(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self._repository(name)
        if repository is None:
            return None
        oid = repository.resolve(revision)
        if oid is None:
            self._refuse(404, "RevisionNotFound")
            return None
        return oid, repository.commits[oid]

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    ("GET", f"/api/models/{_NAME}(?:/revision/([^/]+))?", _Handler.info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    ("POST", f"/{_NAME}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/([0-9a-f]+)", _Handler.store),
    ("POST", "/lfs-verify/([0-9a-f]+)", _Handler.verify),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.file),
)
