"""Real clients through the release binary: fixtures for the proxy, for origins, and for running a client."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import zlib

import pytest
import trustme

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.path.abspath(os.environ.get("COUNTERSIGN") or ROOT / "target/release/countersign")
DEADLINE = 60

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not re.search(r"proxy|SSL_CERT|CA_BUNDLE|CAINFO|NODE_OPTIONS|NODE_EXTRA|COUNTERSIGN", name, re.I)
}


def canary(label="secret"):
    """A secret that exists in this test alone."""
    return f"{label}-{secrets.token_hex(12)}"


@pytest.fixture(scope="session")
def authority():
    return trustme.CA(organization_name="Origin Test CA")


@pytest.fixture(scope="session")
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0").configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Handler(http.server.BaseHTTPRequestHandler):
    """An origin: records each request, serves bytes, counts what it is sent."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def body(self, sink):
        """Reads the body into `sink`, whatever its framing."""
        if self.headers.get("transfer-encoding", "").lower().endswith("chunked"):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                left = size
                while left:
                    piece = self.rfile.read(min(left, 1 << 16))
                    sink(piece)
                    left -= len(piece)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            return
        left = int(self.headers.get("content-length") or 0)
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                return
            sink(piece)
            left -= len(piece)

    def handle_any(self):
        origin = self.server.origin
        seen = {"method": self.command, "path": self.path, "headers": list(self.headers.items()), "bytes": 0, "crc": 0,
                "body": b""}

        def sink(piece):
            seen["bytes"] += len(piece)
            seen["crc"] = zlib.crc32(piece, seen["crc"])
            if seen["bytes"] <= 1 << 20:
                seen["body"] += piece

        if self.headers.get("expect", "").lower() == "100-continue" and origin.refuse_expect:
            origin.seen.append(seen)
            self.close_connection = True
            return self.answer(417, b"no")
        self.body(sink)
        origin.seen.append(seen)
        for path, page in origin.pages.items():
            if self.path.split("?")[0] == path:
                return page(self, seen)
        if match := re.fullmatch(r"/bytes/(\d+)", self.path):
            return self.stream(int(match[1]))
        shown = {key: value for key, value in seen.items() if key != "body"}
        self.answer(200, json.dumps(shown).encode(), {"content-type": "application/json"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = do_PROPFIND = handle_any

    def handle_expect_100(self):
        return True if self.server.origin.refuse_expect else super().handle_expect_100()

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, count):
        self.send_response(200)
        self.send_header("content-length", str(count))
        self.end_headers()
        block = bytes(range(256)) * 256
        while count:
            count -= self.wfile.write(block[: min(count, len(block))])


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, address):
        pass  # clients that go away are part of some tests

    def finish_request(self, request, address):
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, address)


class Origin:
    """A recording origin on a free port of loopback."""

    def __init__(self, tls=None, handler=Handler, ip="127.0.0.1"):
        self.seen, self.pages, self.refuse_expect = [], {}, False
        self.server = Server((ip, 0), handler)
        self.server.tls, self.server.origin = tls, self
        self.port = self.server.server_address[1]
        self.base = f"{'https' if tls else 'http'}://{ip}:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path="/"):
        return self.base + path

    def values(self, name):
        """All values of a header field, over all requests."""
        return [value for seen in self.seen for key, value in seen["headers"] if key.lower() == name]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def origins(server_tls):
    made = []

    def make(tls=True, **more):
        made.append(Origin(server_tls if tls else None, **more))
        return made[-1]

    yield make
    for origin in made:
        origin.close()


class Proxy:
    """The release binary as its own process; its output is searched for canaries at the end."""

    def __init__(self, folder, config, authority=None, args=(), env=None, canaries=()):
        self.folder = folder
        self.canaries = list(canaries)
        (folder / "countersign.yaml").write_text(config)
        self.common = ["--config", str(folder / "countersign.yaml"), "--data-dir", str(folder / "data")]
        if authority:
            authority.cert_pem.write_to_path(str(folder / "origin-ca.pem"))
        self.trust = ["--upstream-ca", str(folder / "origin-ca.pem")] if authority else []
        self.env = {**CLEAN, **(env or {}), "HOME": str(folder)}
        self.process = None
        self.args = list(args)
        self.clients = []

    def start(self, log="info"):
        addresses = self.folder / "addresses.json"
        addresses.unlink(missing_ok=True)
        self.out = open(self.folder / "stdout", "wb")
        self.err = open(self.folder / "stderr", "wb")
        self.process = subprocess.Popen(
            [BINARY, "start", *self.common, *([] if "--listen" in self.args else ["--listen", "127.0.0.1:0"]),
             *([] if "--console" in self.args else ["--console", "127.0.0.1:0"]), "--address-file", str(addresses), *self.trust, *self.args],
            env={**self.env, "RUST_LOG": log}, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
        )
        start = time.monotonic()
        while True:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self.addresses = json.loads(addresses.read_text())
                break
            assert self.process.poll() is None, self.output()
            assert time.monotonic() - start < DEADLINE, self.output()
            time.sleep(0.01)
        self.address = self.addresses["proxy"].removeprefix("http://").rstrip("/")
        self.url = f"http://{self.address}"
        self.port = int(self.address.rsplit(":", 1)[1])
        self.ca = self.folder / "data/ca.pem"
        return self

    def output(self):
        return "".join((self.folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))

    def memory(self, field="VmHWM"):
        """Resident memory in KiB: the peak, or what it is now (`VmRSS`)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1])

    def command(self, *args, **more):
        """A command of the binary with this proxy's files."""
        return subprocess.run([BINARY, args[0], *self.common, *args[1:]], env=self.env, cwd=self.folder,
                              capture_output=True, text=True, timeout=DEADLINE, **more)

    def variables(self):
        """What `countersign env` tells a shell."""
        result = self.command("env", "--format", "json")
        assert result.returncode == 0, result.stderr
        return {**self.env, **{name: value for name, value in json.loads(result.stdout).items() if value is not None}}

    def run(self, *command, timeout=DEADLINE, env=None, cwd=None, code=0):
        """A client wired by `countersign run`, with a proxy of its own."""
        result = subprocess.run([BINARY, "run", *self.common, *self.trust, "--", *map(str, command)],
                                env={**self.env, **(env or {})}, cwd=cwd or self.folder, capture_output=True, text=True,
                                timeout=timeout, stdin=subprocess.DEVNULL)
        for secret in self.canaries:
            assert secret not in result.stderr, "a secret on the terminal"
        assert result.returncode == code, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def stop(self):
        # A client that keeps HTTP/2 open without reading from it would be waited for.
        for client in self.clients:
            client.close()
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                code = self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
            self.out.close()
            self.err.close()
            text = self.output()
            assert code == 0, text
            assert "panicked at" not in text, text
            for secret in self.canaries:
                assert secret not in text, f"a secret in the output of the proxy:\n{text}"


@pytest.fixture
def proxy(tmp_path, authority):
    """`proxy(config, canaries=[...])` prepares one; `.start()` runs it; `.run(...)` wires one client."""
    made = []

    def make(config, **more):
        folder = tmp_path / f"proxy{len(made)}"
        folder.mkdir()
        made.append(Proxy(folder, config, authority, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def bearer(origin, token, more=""):
    """A configuration with one rule."""
    return (f"version: 1\nrules:\n  - {{name: Origin, host: \"{origin.base}\", auth: {{type: bearer, token: {token}}}"
            f"{more}}}\n")


def need(*programs):
    """Skips a test if a program could not be installed here."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for_port(port, process=None):
    start = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process is None or process.poll() is None, "the server ended"
        assert time.monotonic() - start < DEADLINE, f"nobody listens on {port}"
        time.sleep(0.02)


@pytest.fixture
def judges(tmp_path, authority):
    """`judges(function, protocol)` serves what the function thinks of each request."""
    from judge import Judge

    pem = str(tmp_path / "judge.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    made = []

    def make(judge, protocol="http"):
        made.append(Judge(judge, protocol, pem))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Client:
    """httpx through a proxy. An HTTP/2 client gets HTTP/2 upstream where the origin speaks it."""

    def __init__(self, one, protocol="http"):
        import httpx

        trust = ssl.create_default_context(cafile=one.ca)
        self.client = httpx.Client(proxy=one.url, verify=trust, trust_env=False, http2=protocol == "h2", timeout=DEADLINE)
        one.clients.append(self.client)

    def ask(self, url, body=None, method=None, headers=None):
        method = method or ("GET" if body is None else "POST")
        return self.client.request(method, url, content=body, headers=headers)
