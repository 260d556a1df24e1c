"""The limits of the sockets: an echo with nothing around it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import picows
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.live_settings import HOST, UVICORN, here


async def _echo(socket: WebSocket) -> None:
    here()
    await socket.accept()
    try:
        while True:
            await socket.send_bytes(await socket.receive_bytes())
    except WebSocketDisconnect:
        return


def starlette(port: int, folder: Path) -> None:
    """Bytes in, the same bytes out, through Starlette and uvicorn."""
    uvicorn.run(Starlette(routes=[WebSocketRoute("/ws", _echo)]), port=port, **UVICORN)


class _Listener(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        here()
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


def quickest(port: int, folder: Path) -> None:
    """The same with no framework at all: what the client at the other end can keep up with."""

    async def serve() -> None:
        server = await picows.ws_create_server(lambda _: _Listener(), HOST, port)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
