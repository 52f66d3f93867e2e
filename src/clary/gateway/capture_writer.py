"""Data capture, written down: AWS's JSON lines, in files by endpoint, variant and hour.

Source of schema and layout: "Data capture" in the service's developer guide. `<DestinationS3Uri>/<endpoint>/<variant>/
yyyy/mm/dd/hh/mm-ss-SSS-<uuid>.jsonl`, UTC, the hour of the invocation.
"""

from __future__ import annotations

import asyncio
import json
import time
from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from clary.errors import Fatal, Transient
from clary.gateway.capture import Capture, Captured
from clary.telemetry import logger

INTERVAL = 10.0
"""Seconds between writes."""
LAST_WRITE = 1.0
"""Seconds that the end of a gateway waits for what it captured to be written."""
FILE_BYTES = 16 * 1024 * 1024
"""Bodies in one file; more make several."""
_SLICE = 48 * 1024
"""Bytes encoded at once: other threads wait for each. A multiple of three, so that Base64 needs no padding inside."""


class Store(Protocol):
    """Where captures go."""

    async def put(self, url: str, body: bytes) -> None:
        """Write an object. Raises Transient where it may work later, Fatal where it will not."""


class CaptureWriter:
    """Takes what waits, and writes it; what cannot be written is dropped and counted."""

    def __init__(self, capture: Capture, store: Callable[[], Store], dropped: Callable[[int], None]) -> None:
        """`store` is made when there is something to write: most gateways never need it."""
        self._capture = capture
        self._make_store = store
        self._store: Store | None = None
        self._dropped = dropped
        self._counted = 0
        self._log = logger("capture")

    async def follow(self) -> None:
        """Write every few seconds, for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.write()

    async def flush(self) -> None:
        """Write what waits; at most a second long."""
        try:
            async with asyncio.timeout(LAST_WRITE):
                await self.write()
        except TimeoutError:
            self._log.warning("the last captures were not written")
        except Exception:  # the end of a gateway goes on
            self._log.exception("the last captures were not written")

    async def finish(self) -> None:
        """Write what is left, and count what could not be: nobody will later."""
        await self.flush()
        if left := len(self._capture.take()):
            self._dropped(left)

    async def write(self) -> None:
        """Write what waits now. Whatever happens, each record is written, waits again, or is counted as dropped."""
        dropped, self._counted = self._capture.dropped - self._counted, self._capture.dropped
        if dropped:
            self._dropped(dropped)
        if not self._capture.waiting:
            return
        if self._store is None:
            self._store = await asyncio.to_thread(self._make_store)
        waiting = self._capture.take()
        left = len(waiting)
        try:
            for url, batch in _files(waiting):
                await self._write_file(self._store, url, batch)
                left -= len(batch)
        finally:
            if left:  # there was no time
                self._dropped(left)

    async def _write_file(self, store: Store, url: str, batch: list[Captured]) -> None:
        try:
            body = await asyncio.to_thread(lambda: b"".join(piece for each in batch for piece in line(each)))
            await store.put(url, body)
        except Transient as trouble:
            self._log.warning("captures cannot be written now", url=url, reason=str(trouble))
            for each in batch:
                self._capture.offer(each)
        except Fatal as trouble:
            self._log.error("captures cannot be written", url=url, records=len(batch), reason=str(trouble))
            self._dropped(len(batch))
        except Exception:
            self._log.exception("captures cannot be written", url=url, records=len(batch))
            self._dropped(len(batch))


def _files(waiting: list[Captured]) -> Iterator[tuple[str, list[Captured]]]:
    folders: dict[str, list[Captured]] = defaultdict(list)
    for each in waiting:
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime(each.time))
        folders[f"{each.capture.destination.rstrip('/')}/{each.endpoint}/{each.variant}/{hour}"].append(each)
    for folder, found in folders.items():
        batch: list[Captured] = []
        size = 0
        for each in found:
            if batch and size + each.size > FILE_BYTES:
                yield _name(folder, batch), batch
                batch, size = [], 0
            batch.append(each)
            size += each.size
        yield _name(folder, batch), batch


def _name(folder: str, batch: list[Captured]) -> str:
    first = batch[0].time
    moment = time.strftime("%M-%S", time.gmtime(first))
    return f"{folder}/{moment}-{int(first * 1000) % 1000:03d}-{uuid4()}.jsonl"


def line(captured: Captured) -> Iterator[bytes]:
    """Give a record as a line of JSON, in pieces."""
    yield b'{"captureData":{'
    if captured.capture.inputs:
        yield b'"endpointInput":'
        yield from _half(captured, "INPUT", captured.request_type, captured.request)
        if captured.capture.outputs:
            yield b","
    if captured.capture.outputs:
        yield b'"endpointOutput":'
        yield from _half(captured, "OUTPUT", captured.answer_type, captured.answer)
    metadata: dict[str, object] = {"eventId": captured.event_id}
    if captured.custom_attributes:
        metadata["customAttributes"] = [captured.custom_attributes]
    if captured.inference_id:
        metadata["inferenceId"] = captured.inference_id
    metadata["inferenceTime"] = datetime.fromtimestamp(captured.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    yield b'},"eventMetadata":%b,"eventVersion":"0"}\n' % _json(metadata)


def _half(captured: Captured, mode: str, content_type: str, data: bytes) -> Iterator[bytes]:
    plain = content_type.partition(";")[0].strip().lower()
    encoding, text = "BASE64", None
    for name, types in (("CSV", captured.capture.csv_types), ("JSON", captured.capture.json_types)):
        if plain in (each.lower() for each in types):
            text = _decoded(data)
            encoding = name if text is not None else encoding
            break
    yield b'{"observedContentType":%b,"mode":"%b","data":"' % (_json(content_type), mode.encode())
    if text is not None:
        yield from (_json(text[at : at + _SLICE])[1:-1] for at in range(0, len(text), _SLICE))
    else:
        yield from (b2a_base64(data[at : at + _SLICE], newline=False) for at in range(0, len(data), _SLICE))
    yield b'","encoding":"%b"}' % encoding.encode()


def _decoded(data: bytes) -> str | None:
    """Give data as text; None where it is none, whatever its content type says."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
