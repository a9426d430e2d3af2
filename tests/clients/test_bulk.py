"""Memory: a gibibyte in each direction, and a thousand idle clients."""

import json
import resource
import socket
import ssl
import subprocess

from conftest import bearer, canary

GIB = 1 << 30


def test_a_gibibyte_each_way_in_64_mib(origins, proxy):
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    curl = ["curl", "-sS", "-x", one.url, "--cacert", str(one.ca)]
    for version in ("--http1.1", "--http2"):
        down = subprocess.run([*curl, version, "-o", "/dev/null", "-w", "%{size_download} %{http_code}", origin.url(f"/bytes/{GIB}")],
                              env=one.env, capture_output=True, text=True, timeout=300)
        assert down.stdout == f"{GIB} 200", down.stderr
    zeros = subprocess.Popen(["head", "-c", str(GIB), "/dev/zero"], stdout=subprocess.PIPE)
    up = subprocess.run([*curl, "--http1.1", "-T", "-", "-H", "Expect:", origin.url("/up")], stdin=zeros.stdout, env=one.env,
                        capture_output=True, text=True, timeout=300)
    zeros.wait()
    assert json.loads(up.stdout)["bytes"] == GIB, up.stderr
    assert set(origin.values("authorization")) == {f"Bearer {secret}"}
    peak = one.memory("VmHWM")
    print(f"peak {peak} KiB")
    assert peak < 64 << 10, f"{peak} KiB"


def test_a_thousand_idle_connections_in_40_mib(origins, proxy):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    origin, secret = origins(tls=False), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    request = f"GET {origin.url('/bytes/2')} HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n".encode()
    idle = []
    for _ in range(1000):
        connection = socket.create_connection(("127.0.0.1", one.port), 30)
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < 2:
            piece = connection.recv(4096)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200"), answer
        idle.append(connection)
    now = one.memory("VmRSS")
    print(f"plain: {now} KiB")
    assert now < 40 << 10, f"{now} KiB"
    assert len(origin.seen) == 1000
    for connection in idle:
        connection.close()


def test_300_idle_intercepted_connections(origins, proxy):
    """The same inside TLS: each holds a session, so the bound is wider."""
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    context = ssl.create_default_context(cafile=one.ca)
    context.set_alpn_protocols(["http/1.1"])
    idle = []
    for _ in range(300):
        connection = socket.create_connection(("127.0.0.1", one.port), 30)
        target = f"127.0.0.1:{origin.port}"
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        secure = context.wrap_socket(connection, server_hostname="127.0.0.1")
        secure.sendall(f"GET /bytes/2 HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert secure.recv(4096).startswith(b"HTTP/1.1 200")
        idle.append(secure)
    now = one.memory("VmRSS")
    print(f"intercepted: {now} KiB")
    assert now < 64 << 10, f"{now} KiB"
