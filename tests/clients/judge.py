"""A server over http, https or HTTP/2 whose answers come from a function: for oracles that are libraries."""

import asyncio
import dataclasses
import queue
import socket
import threading

import hypercorn.asyncio
import hypercorn.config

DEADLINE = 60


@dataclasses.dataclass
class Asked:
    """A request as it arrived."""

    method: str
    url: str
    version: str
    lines: list
    body: bytes

    @property
    def headers(self):
        """The fields by name; `Host` also where HTTP/2 says `:authority`."""
        return {name.title(): value for name, value in self.lines}


class Judge:
    """Serves on a free port of loopback. `judge(asked)` gives status, headers and body; `said()` what it raised."""

    def __init__(self, judge, protocol, pem):
        self.judge, self.said_lines = judge, queue.Queue()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.scheme = "http" if protocol == "http" else "https"
        self.base = f"{self.scheme}://127.0.0.1:{self.port}"
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.errorlog, config.graceful_timeout = None, 0.1
        if protocol != "http":
            config.certfile = config.keyfile = pem
            config.alpn_protocols = ["h2"] if protocol == "h2" else ["http/1.1"]
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve(config)), daemon=True)
        self.thread.start()
        assert self.ready.wait(DEADLINE)

    async def serve(self, config):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        await hypercorn.asyncio.serve(self.app, config, shutdown_trigger=self.stop.wait)

    def close(self):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(DEADLINE)

    def said(self):
        """The request that came next, and why it was refused, or None."""
        return self.said_lines.get(timeout=DEADLINE)

    async def app(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self.ready.set()
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        lines = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        host = next(value for name, value in lines if name == "host")
        query = scope["query_string"].decode()
        url = f"{self.scheme}://{host}{scope['raw_path'].decode()}{'?' + query if query else ''}"
        asked = Asked(scope["method"], url, scope["http_version"], lines, body)
        try:
            status, headers, text = self.judge(asked)
            self.said_lines.put((asked, None))
        except AssertionError as error:
            status, headers, text = error.args[0]
            self.said_lines.put((asked, text))
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": text.encode()})


def refuse(status, text, **headers):
    """Ends the judgement."""
    raise AssertionError((status, {name.replace("_", "-"): value for name, value in headers.items()}, text))
