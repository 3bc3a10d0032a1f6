"""Loads what is served, and loads the index again when its folder changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from embedpress.errors import FormatError
from embedpress.index.manifest import MANIFEST
from embedpress.serve.metrics import Metrics
from embedpress.serve.service import Service
from embedpress.serve.settings import Settings

State = tuple[tuple[str, int, int, int], ...]
FIRST_WAIT = 1.0

_log = logging.getLogger("uvicorn.error")


class Watcher:
    """Keeps a service with the newest whole index.

    A folder that is being written, or that is damaged, is never taken: the index before it goes
    on, and the folder is tried again when it changes. Searches under way end on the index that
    they began with.

    Parameters
    ----------
    settings : Settings
    metrics : Metrics
    on_failure : callable, optional
        Called when the first load fails, which is then not tried again.

    Attributes
    ----------
    service : Service or None
        None until it is loaded.
    failure : Exception or None
        Why the last load failed.
    tried : asyncio.Event
        Set after the first load, however it ended.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.settings, self.metrics = settings, metrics
        self._on_failure = on_failure
        self.service: Service | None = None
        self.failure: Exception | None = None
        self.tried = asyncio.Event()
        self._taken: bytes | None = None
        self._failed: State | None = None

    async def watch(self) -> None:
        """Load, and load again, until cancelled."""
        interval = self.settings.reload_interval
        while True:
            await self.look()
            self.tried.set()
            if self.failure is not None and self.service is None and self._on_failure is not None:
                self._on_failure(self.failure)
                return
            if self.service is not None and not interval:
                return
            await asyncio.sleep(interval or FIRST_WAIT)

    async def look(self) -> None:
        """Load what is new since the last look, if anything is."""
        folder = Path(self.settings.index)
        manifest, state = _manifest_of(folder), state_of(folder)
        if self.service is not None:
            if manifest == self._taken:
                self.failure = None
                return
            if state == self._failed:
                return
        service = self.service
        try:
            if service is None:
                service = await asyncio.to_thread(Service, self.settings, self.metrics)
                opened = service.opened
            else:
                opened = await asyncio.to_thread(service.open)
            if _manifest_of(folder) != manifest:
                state = None  # look again
                raise FormatError(f"{folder} changed while it was read")
        except Exception as error:  # whatever it is, the index before it goes on
            told = self.service is None and self._on_failure is not None
            if not told and str(error) != str(self.failure):
                what = "not ready" if self.service is None else "the index before it goes on"
                _log.error("%s: %s", what, error)
            self.failure, self._failed = error, state
            self.metrics.reloads.labels("failed").inc()
            return
        service.opened = opened
        self.service, self.failure, self._taken = service, None, manifest
        self.metrics.reloads.labels("loaded").inc()
        self.metrics.vectors.set(len(opened.index))
        self.metrics.bytes.set(opened.bytes)
        _log.info("serving %s with %d vectors", folder, len(opened.index))


def _manifest_of(folder: Path) -> bytes | None:
    """It names every other file with its checksum: another manifest, another index."""
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        return None


def state_of(folder: Path) -> State | None:
    """Names, sizes, times and numbers of a folder's files: another state, another content."""
    found = []
    try:
        for file in sorted(folder.rglob("*")):
            about = file.stat()
            found.append((str(file), about.st_size, about.st_mtime_ns, about.st_ino))
    except OSError:  # a file went away meanwhile: the next look sees it whole
        return None
    return tuple(found)
