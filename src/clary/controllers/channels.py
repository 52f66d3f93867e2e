"""Connections to containers that are asked something now and then, and then perhaps a hundred times."""

from __future__ import annotations

import asyncio

from clary.channel import Broken, Channel, Reply

KEPT = 1.0
"""Seconds that an idle connection is kept: less than servers keep theirs (gunicorn two, and that is the shortest of the
common ones), so that hardly ever one closes that is just being sent to."""

Place = tuple[str, int]
"""Host and port."""


class Channels:
    """One connection for each question that is under way; whoever asks has a limit of time of his own."""

    def __init__(self) -> None:
        self._idle: dict[Place, list[tuple[Channel, asyncio.TimerHandle]]] = {}
        """With what will close them."""

    async def ask(self, place: Place, head: bytes, body: bytes) -> Reply:
        """Send a request, whose head ends with `Content-Length: `, and give the answer.

        Raises OSError where nobody takes a connection, and nothing was sent; Broken where no whole answer came.
        """
        channel = self._take(place)
        if channel is None:
            return await self._over(await self._connect(place), place, head, body)
        try:
            return await self._over(channel, place, head, body)
        except Broken as broken:
            if broken.answered:
                raise
        # The container may have closed it before, or because of this: what it does over a new one will tell.
        try:
            channel = await self._connect(place)
        except OSError as error:
            raise Broken(str(error), answered=False) from error
        return await self._over(channel, place, head, body)

    def close(self) -> None:
        for idle in self._idle.values():
            for channel, timer in idle:
                timer.cancel()
                channel.close()
        self._idle.clear()

    async def _over(self, channel: Channel, place: Place, head: bytes, body: bytes) -> Reply:
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        channel.ask(head, body, future)
        try:
            reply = await future
        except asyncio.CancelledError:
            channel.close()
            raise
        assert reply is not None, "nobody takes it but we"
        if not channel.is_closed:
            self._keep(place, channel)
        return reply

    async def _connect(self, place: Place) -> Channel:
        return await Channel.connect(*place, None)

    def _take(self, place: Place) -> Channel | None:
        idle = self._idle.get(place, [])
        while idle:
            channel, timer = idle.pop()
            timer.cancel()
            if not channel.is_closed:
                return channel
        return None

    def _keep(self, place: Place, channel: Channel) -> None:
        timer = asyncio.get_running_loop().call_later(KEPT, self._drop, place, channel)
        self._idle.setdefault(place, []).append((channel, timer))

    def _drop(self, place: Place, channel: Channel) -> None:
        channel.close()
        left = [each for each in self._idle.get(place, []) if each[0] is not channel]
        if left:
            self._idle[place] = left
        else:
            self._idle.pop(place, None)
