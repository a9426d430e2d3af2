"""Forged requests against the control interface: other hosts, other origins, other sites, other methods, other users, the
proxy itself, and a browser whose names resolve to us."""

import itertools
import json
import os
import shutil
import socket
import subprocess

import pytest
from conftest import canary, need
from test_console import HERE

CHANGES = [("POST", "/api/reload"), ("POST", "/api/stop"), ("POST", "/api/tokens"), ("POST", "/api/invitations"),
           ("POST", "/api/har"), ("DELETE", "/api/exchanges"), ("POST", "/api/exchanges/1/replay")]
READS = [("GET", "/api/status"), ("GET", "/api/exchanges"), ("GET", "/api/exchanges/1"), ("GET", "/api/exchanges/1/curl"),
         ("GET", "/api/exchanges/1/picture"), ("GET", "/api/events"), ("GET", "/api/har"), ("GET", "/api/csv"), ("GET", "/api/rules"),
         ("GET", "/api/explain?url=https://a/"), ("GET", "/api/filters")]


@pytest.fixture
def console(proxy):
    """A running proxy with one exchange, its console's port, and the cookie of a page."""
    secret = canary()
    one = proxy("version: 1\ncredentials: {key: {type: bearer, token: " + secret + "}}\n"
                "rules: [{name: Lab, host: \"http://127.0.0.1:9\", auth: key}]\n", canaries=[secret]).start()
    subprocess.run(["curl", "-sS", "-o", "/dev/null", "-x", one.url, "http://127.0.0.1:9/first"], env=one.env)
    port = int(one.addresses["console"].rstrip("/").rsplit(":", 1)[1])
    path = one.command("open", "--print").stdout.strip().split(f":{port}", 1)[1]
    status, head, _ = ask(port, "GET", path)
    assert status == 200
    cookie = next(value.split(";")[0] for name, value in head if name == "set-cookie")
    assert ask(port, "GET", path)[0] == 403, "the address works once"
    assert ask(port, "GET", "/api/status", cookie=cookie)[0] == 200, "what is forged below works unforged"
    return one, port, cookie


def ask(port, method, path, *fields, host=None, cookie=None, body=b"", version="1.1", address="127.0.0.1"):
    """One request, byte for byte ours; the answer's status, fields and beginning. No answer is status 0."""
    lines = [f"{method} {path} HTTP/{version}"]
    if host != "":
        lines.append(f"Host: {host or f'127.0.0.1:{port}'}")
    lines += [f"Cookie: {cookie}"] if cookie else []
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [f"Content-Length: {len(body)}"] if body else []
    with socket.create_connection((address, port), 10) as conn:
        conn.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        conn.settimeout(10)
        text = b""
        while b"\r\n\r\n" not in text and (piece := conn.recv(65536)):
            text += piece
        head, _, rest = text.partition(b"\r\n\r\n")
        while "/api/events" not in path and len(rest) < 1 << 20 and (piece := conn.recv(65536)):
            rest += piece
    first, *more = head.decode("latin-1").split("\r\n")
    pairs = [tuple(line.lower().split(": ", 1)) for line in more if ": " in line]
    return int(first.split()[1]) if first else 0, pairs, rest.decode(errors="replace")


def refused(answer, what, statuses=(400, 401, 403, 404, 405, 415, 421)):
    status, head, body = answer
    assert status in statuses, f"{what}: {status} {body[:200]}"
    assert not any(name.startswith("access-control-") for name, _ in head), f"{what}: {head}"
    assert "exchanges\":[" not in body and "Lab" not in body, f"{what}: {body[:200]}"


def alive(one, port, cookie):
    """Nothing of what was tried has changed anything."""
    assert one.process.poll() is None
    status, _, body = ask(port, "GET", "/api/exchanges", cookie=cookie)
    assert status == 200 and len(json.loads(body)["exchanges"]) == 1


def test_hosts_origins_and_sites(console):
    one, port, cookie = console
    own = f"http://127.0.0.1:{port}"
    hosts = ["evil.example", f"evil.example:{port}", "127.0.0.1", "localhost", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}",
             f"localhost.evil.example:{port}", f"0.0.0.0:{port}", f"[::]:{port}", f"192.168.1.10:{port}", f"169.254.169.254:{port}",
             f"a@127.0.0.1:{port}", f"127.0.0.1:{port}@evil.example", f"127.0.0.1:{port}/x", f"127.0.0.1:{port}?", f"localhost.:{port}",
             f"0x7f000001:{port}", f"2130706433:{port}", f"0177.0.0.1:{port}", f"127.1:{port}", f"127.0.0.1:0{port}x", f"127.0.0.1:+{port}", "*", ","]
    fields = [[("Origin", origin)] for origin in
              ["https://evil.example", "null", "", f"https://127.0.0.1:{port}", f"http://localhost:{port}", f"http://127.0.0.1:{port + 1}",
               f"{own}.evil.example", f"{own}@evil.example", f"{own}/", own.upper(), "file://", "chrome-extension://abc"]]
    fields += [[("Origin", own), ("Origin", "https://evil.example")], [("Origin", f"{own} https://evil.example")]]
    fields += [[("Sec-Fetch-Site", site)] for site in ["cross-site", "same-site", "Same-Origin", "same-origin, cross-site", ""]]
    tried = 0
    for method, path in READS + CHANGES:
        for host in hosts:
            refused(ask(port, method, path, host=host, cookie=cookie), f"{method} {path} Host {host}", (400, 421))
            tried += 1
        for more in fields:
            refused(ask(port, method, path, *more, cookie=cookie), f"{method} {path} {more}", (403,))
            tried += 1
        refused(ask(port, method, path, host="", cookie=cookie), f"{method} {path} no Host", (400, 421))
        refused(ask(port, method, path, ("Host", "evil.example"), cookie=cookie), f"{method} {path} two Hosts", (400, 421))
        refused(ask(port, method, f"http://evil.example{path}", cookie=cookie), f"{method} {path} absolute", (421,))
        tried += 3
    assert tried > 700
    alive(one, port, cookie)


def test_without_a_session_there_is_nothing(console):
    one, port, cookie = console
    name, value = cookie.split("=", 1)
    wrong = [None, f"{name}=", f"{name}=x", f"{name}={value[:-1]}", f"{name}={value}x", f"{name.upper()}={value}", f"countersign-1={value}",
             f"x{name}={value}", f"{name} x={value}", f"other=\"{name}={value}\""]
    for (method, path), given in itertools.product(READS + CHANGES, wrong):
        refused(ask(port, method, path, cookie=given), f"{method} {path} {given}", (401,))
    for path in ["/?once=", "/?once=x", f"/?once={value}", "/?once=%00", "/?ONCE=x", "/?x=1&once=y"]:
        refused(ask(port, "GET", path), path, (200, 403))
        assert not any(name == "set-cookie" for name, _ in ask(port, "GET", path)[1]), path
    for bearer in ["x", value, "", "null"]:
        refused(ask(port, "GET", "/api/status", ("Authorization", f"Bearer {bearer}")), bearer, (401,))
    # A session shows tokens but never hands one out.
    for body in [{"do": "get", "credential": "key", "client": None, "which": "access_token"}, {"do": "export", "credentials": []},
                 {"do": "import", "tokens": {}}]:
        answer = ask(port, "POST", "/api/tokens", ("Content-Type", "application/json"), cookie=cookie, body=json.dumps(body).encode())
        refused(answer, body, (400, 403))
    alive(one, port, cookie)


def test_methods_and_content_types(console):
    one, port, cookie = console
    for (_, path), method in itertools.product(CHANGES, ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "FOO"]):
        if (method, path) == ("GET", "/api/har") or (method in ("GET", "HEAD") and path == "/api/exchanges"):
            continue
        target = path if method != "CONNECT" else f"127.0.0.1:{port}"
        refused(ask(port, method, target, cookie=cookie), f"{method} {path}")
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"]:
        for method, path in CHANGES:
            if path not in ("/api/har", "/api/exchanges"):
                refused(ask(port, "GET", f"{path}?_method={method}", (name, method), cookie=cookie), f"{name} {path}", (404, 405))
    # A preflight gets no leave.
    for method, path in READS + CHANGES:
        refused(ask(port, "OPTIONS", path, ("Origin", "https://evil.example"), ("Access-Control-Request-Method", method),
                    ("Access-Control-Request-Private-Network", "true")), f"preflight {path}", (403,))
    # What a form of another page can send is no JSON.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/plain;application/json"]:
        for _, path in CHANGES:
            if path.startswith("/api/exchanges") and not path.endswith("replay"):
                continue
            refused(ask(port, "POST", path, ("Content-Type", kind), cookie=cookie, body=b'{"do":"list"}'), f"{path} {kind}", (415,))
    refused(ask(port, "GET", "/api/events", ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "x" * 22 + "=="),
                ("Origin", "https://evil.example"), cookie=cookie), "websocket", (403,))
    for path in ["/api//status", "/api/../api/status", "/%61pi/status", "//evil.example/api/status", "/assets/../api/status", "/assets/%2e%2e/x",
                 "/API/status", "/api/status/", "/api/exchanges/1/curl/x", "/assets/main.js/", "/../../etc/passwd"]:
        refused(ask(port, "GET", path), path, (401, 404))
    alive(one, port, cookie)


def test_other_users_of_the_machine(console):
    """A cookie seen elsewhere is of no use to another user."""
    one, port, cookie = console
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    for path, status in [("/api/status", "403"), ("/", "403"), ("/assets/main.js", "403"), ("/healthz", "200")]:
        result = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-b", cookie, f"http://127.0.0.1:{port}{path}"],
                                capture_output=True, text=True, user=65534, group=65534, env={"PATH": os.environ["PATH"]}, cwd="/")
        assert result.stdout == status, f"{path}: {result.stdout} {result.stderr}"
    alive(one, port, cookie)


def test_the_proxy_does_not_reach_its_own_console(console):
    one, port, cookie = console
    own = [line.split()[3].split("/")[0] for line in
           subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True).stdout.splitlines()] if shutil.which("ip") else []
    names = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]", "0.0.0.0", "0", "127.1", "127.0.1", "2130706433", "0x7f000001",
             "0x7f.0.0.1", "0177.0.0.1", "127.000.000.001", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "127.0.0.2", "①②⑦.0.0.1", *own]
    for name in names:
        for target in [f"http://{name}:{port}/api/status", f"https://{name}:{port}/api/status"]:
            result = subprocess.run(["curl", "-s", "-k", "-g", "-x", one.url, "-b", cookie, "-H", f"Host: 127.0.0.1:{port}" if "127.0.0.1:" in target else "x-a: b",
                                     "-w", "\n%{http_code} %{http_connect}", "--path-as-is", target], capture_output=True, text=True, env=one.env, timeout=30)
            body, _, codes = result.stdout.rpartition("\n")
            assert "\"console\"" not in body, f"{target}: {body}"
            assert codes.split()[0] != "200", f"{target}: {result.stdout}"
        tunnel = subprocess.run(["curl", "-s", "-g", "-p", "-x", one.url, "-b", cookie, "-w", "\n%{http_code} %{http_connect}", f"http://{name}:{port}/api/status"],
                                capture_output=True, text=True, env=one.env, timeout=30)
        assert "\"console\"" not in tunnel.stdout and not tunnel.stdout.rsplit("\n", 1)[1].startswith("200"), f"CONNECT {name}: {tunnel.stdout}"
    assert one.process.poll() is None


def test_a_browser_whose_names_resolve_to_us(console):
    """A page of another site, under a name that resolves to loopback (rebinding) and under its own."""
    one, port, cookie = console
    need("node")
    browser = shutil.which("chromium")
    if not browser:
        pytest.skip("chromium is not installed")
    address = one.command("open", "--print").stdout.strip()
    result = subprocess.run(["node", HERE / "console_forged.mjs", address], cwd=HERE, env={**one.env, "CHROMIUM": browser}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    seen = json.loads(result.stdout)
    assert seen["own"] == 200, "the session works"
    assert set(seen["rebound"].values()) <= {421, 403, "blocked"}, seen
    assert set(seen["foreign"].values()) <= {"blocked", "opaque"}, seen
    assert seen["navigated"] in (403, 421) and seen["framed"] is False, seen
    alive(one, port, cookie)
