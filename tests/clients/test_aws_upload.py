"""Uploads to S3 that are signed while they stream: a gibibyte each way of framing, within 64 MiB of memory.

The server here is the standard library's: it verifies the request and every chunk on arrival and keeps nothing."""

import datetime
import hashlib
import hmac
import http.client
import http.server
import socket
import threading
import urllib.parse

import pytest
from conftest import canary

GIB = 1 << 30
EMPTY = hashlib.sha256(b"").hexdigest()
SCOPE = "eu-west-1/s3/aws4_request"


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Judge(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        words = dict(field.split("=", 1) for field in self.headers["authorization"].split(" ", 1)[1].split(", "))
        self.stamp = self.headers["x-amz-date"]
        day = self.stamp[:8]
        self.scope = f"{day}/{SCOPE}"
        payload = self.headers["x-amz-content-sha256"]
        headers = "".join(f"{name}:{self.headers[name]}\n" for name in words["SignedHeaders"].split(";"))
        path = urllib.parse.quote(urllib.parse.unquote(self.path))
        canonical = f"PUT\n{path}\n\n{headers}\n{words['SignedHeaders']}\n{payload}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        self.key = f"AWS4{self.server.secret}".encode()
        for part in (day, *SCOPE.split("/")):
            self.key = mac(self.key, part)
        signature = mac(self.key, f"AWS4-HMAC-SHA256\n{self.stamp}\n{self.scope}\n{digest}").hex()
        age = abs(datetime.datetime.strptime(self.stamp, "%Y%m%dT%H%M%SZ") - datetime.datetime.utcnow())
        self.left = int(self.headers["content-length"])
        if signature != words["Signature"] or age > datetime.timedelta(minutes=15):
            return self.answer(403, b"the request")
        data = self.chunks(signature) if payload.startswith("STREAMING-AWS4-HMAC") else self.plain()
        if data is None or self.left:
            return self.answer(403, b"a chunk")
        self.answer(200, str(data).encode())

    def plain(self):
        data = self.left
        while self.left:
            assert self.read(min(self.left, 1 << 20))
        return data

    def chunks(self, previous):
        data = 0
        while True:
            size, signature = self.line().split(";chunk-signature=")
            chunk = self.read(int(size, 16))
            digest = hashlib.sha256(chunk).hexdigest()
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self.stamp}\n{self.scope}\n{previous}\n{EMPTY}\n{digest}"
            if mac(self.key, text).hex() != signature:
                return None
            previous, data = signature, data + len(chunk)
            assert self.line() == ""
            if not chunk:
                assert data == int(self.headers["x-amz-decoded-content-length"])
                return data

    def read(self, size):
        piece = self.rfile.read(size)
        self.left -= len(piece)
        return piece.replace(b"l", b"L") if self.server.tampers else piece

    def line(self):
        line = self.rfile.readline()
        self.left -= len(line)
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode()

    def answer(self, status, body):
        self.close_connection = self.left > 0
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def judge():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.secret, server.tampers = canary(), False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def config(judge, more=""):
    return (f"version: 1\ncredentials:\n  aws: {{type: aws_sigv4, access_key: AKIDEXAMPLE, secret_key: {judge.secret}, "
            f"region: eu-west-1, service: s3{more}}}\nrules:\n  - {{name: S3, host: \"http://127.0.0.1:{judge.server_port}\", auth: aws}}\n")


def upload(one, judge, pieces, length, *lines):
    """A PUT through the proxy, as absolute form, with a body of so many bytes."""
    base = f"127.0.0.1:{judge.server_port}"
    head = [f"PUT http://{base}/bucket/key HTTP/1.1", f"Host: {base}", f"Content-Length: {length}", *lines, "", ""]
    connection = socket.create_connection(("127.0.0.1", one.port), 60)
    connection.settimeout(300)
    connection.sendall("\r\n".join(head).encode())
    for piece in pieces:
        connection.sendall(piece)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    body = answer.read()
    connection.close()
    return answer.status, body.decode()


def sdk_chunks(total, size=128 << 10):
    """A body as an SDK with dummy keys frames it, and its length."""
    signature, data = "d" * 64, bytes(size)
    chunk = f"{size:x};chunk-signature={signature}\r\n".encode() + data + b"\r\n"
    last = f"0;chunk-signature={signature}\r\n\r\n".encode()
    count = total // size
    return (chunk if n < count else last for n in range(count + 1)), len(chunk) * count + len(last)


DUMMY = (
    "Authorization: AWS4-HMAC-SHA256 Credential=dummy/20200101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00",
    "X-Amz-Date: 20200101T000000Z",
)


def test_a_gibibyte_is_signed_while_it_streams_in_64_mib(judge, proxy):
    one = proxy(config(judge), canaries=[judge.secret]).start()
    pieces, length = sdk_chunks(GIB)
    framed = ("X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "Content-Encoding: aws-chunked",
              f"X-Amz-Decoded-Content-Length: {GIB}")
    assert upload(one, judge, pieces, length, *DUMMY, *framed) == (200, str(GIB))
    # A plain body of this length over http gets chunks of our own.
    plain = (bytes(1 << 20) for _ in range(1024))
    assert upload(one, judge, plain, GIB, *DUMMY) == (200, str(GIB))
    peak = one.memory("VmHWM")
    print(f"peak {peak} KiB")
    assert peak < 64 << 10, f"{peak} KiB"


def test_the_judge_refuses_a_wrong_secret_and_a_changed_chunk(judge, proxy):
    one = proxy(config(judge).replace(judge.secret, "wrong")).start()
    assert upload(one, judge, [b"hello"], 5)[0] == 403
    one = proxy(config(judge, ", payload: streaming"), canaries=[judge.secret]).start()
    assert upload(one, judge, [b"hello"], 5) == (200, "5")
    judge.tampers = True
    assert upload(one, judge, [b"hello"], 5) == (403, "a chunk")
