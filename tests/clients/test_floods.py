"""HTTP/2 peers that mean harm: each flood is cut off or costs nothing, and everybody else is served meanwhile."""

import contextlib
import pathlib
import socket
import ssl
import threading
import time

import pytest
from conftest import bearer, canary
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MANY = 100_000
GROWTH = 32 << 10  # KiB


def frames(*made):
    return b"".join(frame.serialize() for frame in made)


class Connection:
    """Our end of an HTTP/2 connection: sends what it likes and notes what comes back."""

    def __init__(self, sock):
        self.sock = sock
        self.seen = []
        self.over = threading.Event()
        self.reading = threading.Event()
        self.reading.set()
        self.lock = threading.Lock()  # one TLS session cannot be read and written at once
        sock.setblocking(False)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        buffer = b""
        while True:
            self.reading.wait()
            try:
                with self.lock:
                    piece = self.sock.recv(1 << 16)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                time.sleep(0.002)
                continue
            except (OSError, ValueError):
                piece = b""
            if not piece:
                self.over.set()
                return
            buffer += piece
            while len(buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                if len(buffer) < 9 + length:
                    break
                with contextlib.suppress(Exception):  # what we do not know we do not read
                    frame.parse_body(memoryview(buffer[9 : 9 + length]))
                self.seen.append(frame)
                buffer = buffer[9 + length :]

    def send(self, data, patience=20):
        """Sends all of it; False if the peer closed, or took nothing for `patience` seconds."""
        view, since = memoryview(data), time.monotonic()
        while view:
            if self.over.is_set():
                return False
            try:
                with self.lock:
                    sent = self.sock.send(view[: 1 << 14])
                view, since = view[sent:], time.monotonic()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                if time.monotonic() - since > patience:
                    return False
                time.sleep(0.002)
            except (OSError, ValueError):
                return False
        return True

    def of(self, kind):
        return [frame for frame in self.seen if isinstance(frame, kind)]

    def close(self):
        self.over.set()
        with contextlib.suppress(OSError):
            self.sock.close()


class Attacked:
    """A proxy with one rule, and what every flood is measured by."""

    def __init__(self, origins, proxy, evil=None):
        self.origin, self.secret = origins(), canary()
        limits = "proxy: {limits: {idle_timeout: 3s, header_timeout: 3s, response_timeout: 10s}}\n"
        config = bearer(self.origin, self.secret).replace("version: 1\n", "version: 1\n" + limits)
        if evil:
            config += f"  - {{name: Evil, host: \"https://127.0.0.1:{evil}\", auth: {{type: bearer, token: {self.secret}}}}}\n"
        self.proxy = proxy(config, canaries=[self.secret]).start(log="warn")
        self.encoder = Encoder()

    def tunnel(self, protocol, port=None):
        sock = socket.create_connection(("127.0.0.1", self.proxy.port), 30)
        target = f"127.0.0.1:{port or self.origin.port}"
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        context = ssl.create_default_context(cafile=self.proxy.ca)
        context.set_alpn_protocols([protocol])
        return context.wrap_socket(sock, server_hostname="127.0.0.1")

    def http2(self, settings=None, port=None):
        sock = self.tunnel("h2", port)
        assert sock.selected_alpn_protocol() == "h2"
        sock.sendall(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
        return Connection(sock)

    def head(self, path="/bytes/2", more=(), port=None):
        return self.encoder.encode(
            [(":method", "GET"), (":scheme", "https"), (":authority", f"127.0.0.1:{port or self.origin.port}"),
             (":path", path), *more], huffman=False)

    def probe(self):
        """Somebody else's request, while the flood runs. Gives the seconds that it took."""
        began = time.monotonic()
        with self.tunnel("http/1.1") as sock:
            sock.settimeout(20)
            sock.sendall(f"GET /bytes/2 HTTP/1.1\r\nHost: 127.0.0.1:{self.origin.port}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\x00\x01"), answer
        return time.monotonic() - began

    @contextlib.contextmanager
    def holds(self, growth=GROWTH):
        """Nothing grows beyond the bound, and others are served while the flood runs and after it."""
        for _ in range(3):
            self.probe()
        pathlib.Path(f"/proc/{self.proxy.process.pid}/clear_refs").write_text("5")  # the peak begins anew
        before = self.proxy.memory("VmRSS")
        times, stop = [], threading.Event()

        def others():
            while not stop.is_set():
                times.append(self.probe())

        thread = threading.Thread(target=others, daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join(60)
        assert not thread.is_alive() and times, "nobody else was served"
        self.probe()
        grown = self.proxy.memory("VmHWM") - before
        print(f"grown by {grown} KiB; {len(times)} other requests, the slowest took {max(times):.2f} s")
        assert grown < growth, f"{grown} KiB"


@pytest.fixture
def attacked(origins, proxy):
    return Attacked(origins, proxy)


def repeat(made, count=MANY, batch=500):
    """`count` frames in batches; `made(n)` gives the bytes of the n-th."""
    for first in range(0, count, batch):
        yield b"".join(made(nth) for nth in range(first, min(first + batch, count)))


def flood(attacked, opening, made, count=MANY, settings=None, must_close=True, patience=20):
    """Sends `opening` and then the flood. Says how much of it was taken."""
    with attacked.holds():
        connection = attacked.http2(settings)
        assert connection.send(opening)
        batches = 0
        for piece in repeat(made, count):
            if not connection.send(piece, patience):
                break
            batches += 1
        connection.over.wait(20 if must_close else 1)
        goaway = connection.of(GoAwayFrame)
        print(f"{batches * 500} frames taken; closed: {connection.over.is_set()}; GOAWAY: {[g.error_code for g in goaway]}")
        if must_close:
            assert connection.over.is_set() and batches * 500 < count, "the flood went on to its end"
        connection.close()
    return connection


def test_continuation_without_end(attacked):
    opening = HeadersFrame(1, attacked.head(), flags=["END_STREAM"]).serialize()
    flood(attacked, opening, lambda nth: ContinuationFrame(1, b"").serialize())


def test_continuation_with_fields(attacked):
    opening = HeadersFrame(1, attacked.head(), flags=["END_STREAM"]).serialize()
    field = attacked.encoder.encode([("x-filler", "y" * 900)], huffman=False)
    flood(attacked, opening, lambda nth: ContinuationFrame(1, field).serialize())


def test_an_hpack_bomb(attacked):
    """One long field goes into the table; every byte of the later heads stands for all of it."""
    with attacked.holds():
        connection = attacked.http2()
        long = ("x-bomb", "b" * 3900)
        connection.send(HeadersFrame(1, attacked.head(more=[long]), flags=["END_STREAM", "END_HEADERS"]).serialize())
        for stream in range(3, 401, 2):
            bomb = attacked.head(more=[long] * 12000)
            assert len(bomb) < 16384, len(bomb)
            if not connection.send(HeadersFrame(stream, bomb, flags=["END_STREAM", "END_HEADERS"]).serialize()):
                break
        time.sleep(1)
        connection.close()
    assert not any(name == "x-bomb" and seen["headers"].count((name, value)) > 1
                   for seen in attacked.origin.seen for name, value in seen["headers"]), "a bomb reached the origin"


def test_empty_data(attacked):
    opening = HeadersFrame(1, attacked.head(), flags=["END_HEADERS"]).serialize()
    flood(attacked, opening, lambda nth: DataFrame(1, b"").serialize())


def test_rapid_reset(attacked):
    def made(nth):
        stream = 2 * nth + 1
        return frames(HeadersFrame(stream, attacked.head(), flags=["END_STREAM", "END_HEADERS"]),
                      RstStreamFrame(stream, error_code=8))

    flood(attacked, b"", made)
    assert len(attacked.origin.seen) < 5000, "most of them should never have left"


def test_resets_that_we_are_made_to_send(attacked):
    """A window update of 0 is an error of the stream, which the server must reset ("MadeYouReset")."""

    def made(nth):
        stream = 2 * nth + 1
        return frames(HeadersFrame(stream, attacked.head(), flags=["END_STREAM", "END_HEADERS"])) + \
            b"\x00\x00\x04\x08\x00" + stream.to_bytes(4, "big") + b"\x00\x00\x00\x00"

    flood(attacked, b"", made)


def test_more_streams_than_allowed(attacked):
    """All at once, and none of them read: refused beyond the limit, bounded below it."""
    with attacked.holds():
        connection = attacked.http2({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        for piece in repeat(lambda nth: HeadersFrame(2 * nth + 1, attacked.head("/bytes/1000000"),
                                                     flags=["END_STREAM", "END_HEADERS"]).serialize(), 5000):
            if not connection.send(piece):
                break
        connection.over.wait(2)
        connection.close()
    assert len(attacked.origin.seen) < 2000, len(attacked.origin.seen)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("kind", ["ping", "settings"])
def test_frames_that_want_an_answer(attacked, kind, reads):
    """The answers are read, which costs both sides alike, or they are not: then the connection must not fill memory."""
    frame = PingFrame(0, b"01234567") if kind == "ping" else SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 0})
    data = frame.serialize()
    with attacked.holds():
        connection = attacked.http2()
        if not reads:
            connection.reading.clear()
        took = sum(connection.send(piece, 6) for piece in repeat(lambda nth: data))
        print(f"{took * 500} frames taken")
        connection.reading.set()
        connection.over.wait(1)
        connection.close()


@pytest.mark.parametrize("kind", ["priority", "unknown", "window"])
def test_frames_without_effect(attacked, kind):
    made = {"priority": lambda nth: PriorityFrame(2 * nth + 1, depends_on=0, stream_weight=1).serialize(),
            "unknown": lambda nth: b"\x00\x00\x01\xfa\x00\x00\x00\x00\x00x",
            "window": lambda nth: WindowUpdateFrame(0, window_increment=1).serialize()}[kind]
    flood(attacked, b"", made, must_close=False)


def test_a_window_that_stays_shut_ends(attacked):
    """Clients that ask for much and take nothing: no growth, and gone at the deadline."""
    with attacked.holds():
        began = time.monotonic()
        held = []
        for _ in range(20):
            connection = attacked.http2({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
            for stream in range(1, 21, 2):
                connection.send(HeadersFrame(stream, attacked.head("/bytes/10000000"),
                                             flags=["END_STREAM", "END_HEADERS"]).serialize())
            held.append(connection)
        for connection in held:
            assert connection.over.wait(30), "a client that takes nothing is still served"
        print(f"all gone after {time.monotonic() - began:.1f} s")
        for connection in held:
            connection.close()


def test_a_window_opened_by_single_bytes_ends(attacked):
    """A byte now and then is no progress worth a connection that holds a request."""
    with attacked.holds():
        connection = attacked.http2({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        for stream in range(1, 41, 2):
            connection.send(HeadersFrame(stream, attacked.head("/bytes/10000000"),
                                         flags=["END_STREAM", "END_HEADERS"]).serialize())
        for _ in range(20):
            time.sleep(0.2)
            if not connection.send(WindowUpdateFrame(1, window_increment=1).serialize()):
                break
        connection.close()


class Evil:
    """An origin that speaks HTTP/2 alone, and answers the first request with a flood."""

    def __init__(self, authority, opening, made, count=MANY):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.context.set_alpn_protocols(["h2"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.opening, self.made, self.count, self.batches, self.connections = opening, made, count, 0, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                threading.Thread(target=self.answer, args=(accepted,), daemon=True).start()

    def answer(self, accepted):
        with contextlib.suppress(OSError):
            sock = self.context.wrap_socket(accepted, server_side=True)
            wanted = len(PREFACE)
            while wanted:
                wanted -= len(sock.recv(wanted))
            sock.sendall(SettingsFrame(0, settings={}).serialize())
            connection = Connection(sock)
            self.connections.append(connection)
            began = time.monotonic()
            while not connection.of(HeadersFrame) and time.monotonic() - began < 10:
                time.sleep(0.01)
            if connection.send(self.opening):
                for piece in repeat(self.made, self.count):
                    if not connection.send(piece, 10):
                        break
                    self.batches += 1
            connection.over.wait(15)
            connection.close()


ANSWER = Encoder().encode([(":status", "200")], huffman=False)
FLOODS = {
    "continuation": (HeadersFrame(1, ANSWER).serialize(), lambda nth: ContinuationFrame(1, b"").serialize()),
    "fields": (HeadersFrame(1, ANSWER).serialize(), lambda nth: ContinuationFrame(1, b"\x00\x01x\x7f\x81\x06" + b"y" * 900).serialize()),
    "empty data": (HeadersFrame(1, ANSWER, flags=["END_HEADERS"]).serialize(), lambda nth: DataFrame(1, b"").serialize()),
    "interim": (b"", lambda nth: HeadersFrame(1, Encoder().encode([(":status", "103")], huffman=False), flags=["END_HEADERS"]).serialize()),
    "ping": (b"", lambda nth: PingFrame(0, b"01234567").serialize()),
    "settings": (b"", lambda nth: SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 9}).serialize()),
    "bomb": (HeadersFrame(1, ANSWER).serialize(), lambda nth: ContinuationFrame(
        1, (b"\x40\x01x\x7f\xbd\x1d" + b"y" * 3900) if nth == 0 else b"\xbe" * 12000).serialize()),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_an_origin_that_floods(origins, proxy, authority, kind):
    evil = Evil(authority, *FLOODS[kind])
    attacked = Attacked(origins, proxy, evil.port)
    with attacked.holds():
        # A client of HTTP/2 is served over HTTP/2 where the origin speaks it.
        client = attacked.http2(port=evil.port)
        client.send(HeadersFrame(1, attacked.head("/", port=evil.port), flags=["END_STREAM", "END_HEADERS"]).serialize())
        began = time.monotonic()
        while time.monotonic() - began < 40 and not client.over.is_set():
            if any(frame.stream_id == 1 and "END_STREAM" in frame.flags for frame in client.seen) or client.of(RstStreamFrame):
                break
            time.sleep(0.02)
        got = len(client.seen)
        print(f"{evil.batches * 500} frames taken; the client got {got} frames in {time.monotonic() - began:.1f} s")
        client.close()
    evil.listener.close()
    for connection in evil.connections:
        connection.close()
    assert any(connection.of(HeadersFrame) for connection in evil.connections), "no request over HTTP/2 came"
    assert got < 1000, "the client was flooded too"
