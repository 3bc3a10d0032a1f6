"""What a server is started with, checked once and handed to its workers as JSON."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from embedpress.errors import UsageError
from embedpress.threads import check_threads

API_KEY = "EMBEDPRESS_API_KEY"
SETTINGS = "EMBEDPRESS_SERVE_SETTINGS"
LARGEST_KEY = 4096


@dataclass(frozen=True)
class Settings:
    """Options of :func:`embedpress.serve.run.serve`.

    Attributes
    ----------
    index, model : str
        Folders.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    workers : int
        Processes that share the port.
    map : str, optional
        A folder of ``embedpress map``, for the page.
    image_root : str, optional
        The folder that the index's paths are relative to; pictures are shown of files in it.
    max_queue : int
        Most texts, pictures or vectors of each kind that wait or are worked on; beyond it: 429.
    max_batch : int
        Most texts or pictures run through the network at once.
    max_wait : float
        Milliseconds that a batch waits for company while there are other clients.
    max_inputs, max_body : int
        Most inputs, and most bytes, of a request; beyond them: 413.
    allowed_hosts : tuple of str
        Names that a request's Host header may have. Empty: the loopback's own where the server
        listens there without a key, else any.
    stop_timeout : int
        Seconds that accepted requests have to end in after SIGTERM.
    reload_interval : float
        Seconds between looks for a new index; 0 never looks.
    memory_map : bool
        Leave the index on disk, where FAISS can.
    num_threads : int, optional
        Of a worker; by default all that are available, shared among the workers.
    """

    index: str
    model: str
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    map: str | None = None
    image_root: str | None = None
    max_queue: int = 2048
    max_batch: int = 32
    max_wait: float = 2.0
    max_inputs: int = 1024
    max_body: int = 16 << 20
    allowed_hosts: tuple[str, ...] = ()
    stop_timeout: int = 30
    reload_interval: float = 2.0
    memory_map: bool = False
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "max_queue", "max_batch", "max_inputs", "max_body"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("max_wait", "stop_timeout", "reload_interval"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise UsageError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"port {self.port} must lie between 0 and 65535")
        if self.max_inputs > self.max_queue:
            raise UsageError(
                f"max_inputs={self.max_inputs} is more than max_queue={self.max_queue}: a request "
                "of that size could never be accepted"
            )
        if self.num_threads is not None:
            check_threads(self.num_threads)
        for name in ("map", "image_root"):
            folder = getattr(self, name)
            if folder is not None and not Path(folder).is_dir():
                raise UsageError(f"no folder at {folder}")

    @property
    def threads(self) -> int:
        """Threads of one worker."""
        return self.num_threads or max(1, check_threads(None) // self.workers)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def to_json(self) -> str:
        """For the environment of a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What :meth:`to_json` wrote."""
        values = json.loads(text)
        values["allowed_hosts"] = tuple(values["allowed_hosts"])
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def read_api_key(file: str | Path | None = None) -> str | None:
    """The key that requests must carry: of a file, else of the environment, else none.

    Parameters
    ----------
    file : str or Path, optional
        Holds the key alone; by default ``EMBEDPRESS_API_KEY`` is looked up.

    Returns
    -------
    str or None

    Raises
    ------
    UsageError
        A file that cannot be read, or a key that a header cannot carry.
    """
    if file is None:
        key = os.environ.get(API_KEY, "")
    else:
        try:
            with Path(file).open(encoding="ascii") as opened:
                key = opened.read(LARGEST_KEY + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the API key cannot be read from {file}: {error}") from None
        if not key.strip():
            raise UsageError(f"{file} holds no API key")
    key = key.strip()
    if len(key) > LARGEST_KEY or not all("!" <= character <= "~" for character in key):
        raise UsageError("an API key is one word of printable ASCII characters")
    return key or None
