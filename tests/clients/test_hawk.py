"""Hawk against the server of its reference implementation: MACs, payload hashes, clocks, nonces and proofs of answers."""

import json
import pathlib
import queue
import subprocess
import threading

import pytest
import requests
from conftest import CLEAN, DEADLINE, Client, canary, need

HERE = pathlib.Path(__file__).parent


class HawkServer:
    def __init__(self, process, protocol):
        self.process, self.protocol = process, protocol
        self.port = int(process.stdout.readline())
        self.base = f"{'http' if protocol == 'http' else 'https'}://127.0.0.1:{self.port}"
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def said(self):
        """What it thought of the next request."""
        return self.lines.get(timeout=DEADLINE)


@pytest.fixture
def hawk(tmp_path, authority):
    need("node")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    started = []

    def start(protocol="http", key="right", algorithm="sha256", **more):
        options = {"keys": {"me": {"key": key, "algorithm": algorithm}}, "protocol": protocol,
                   "cert": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.pem"), **more}
        process = subprocess.Popen(["node", HERE / "hawk_server.js", json.dumps(options)], env=CLEAN, cwd=HERE,
                                   stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        started.append(process)
        return HawkServer(process, protocol)

    yield start
    for process in started:
        process.kill()
        process.wait()


def config(server, key, more=""):
    return (f"version: 1\nrules:\n  - {{name: H, host: \"{server.base}\", "
            f"auth: {{type: hawk, id: me, key: {key}{more}}}}}\n")


@pytest.fixture
def scene(hawk, proxy):
    """A server, and a client through a proxy that knows its key (or another one)."""

    def make(more="", ours=None, **server):
        key = canary("key")
        there = hawk(key=key, **server)
        ours = ours or key
        one = proxy(config(there, ours, more), canaries=[ours]).start("trace")
        return there, Client(one)

    return make


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
@pytest.mark.parametrize("protocol", ["http", "https", "h2"])
def test_accepted(scene, protocol, algorithm):
    there, client = scene(f", algorithm: {algorithm}, include_payload_hash: true, ext: some-app-ext, app: a1, dlg: d1",
                          protocol=protocol, algorithm=algorithm)
    cases = [
        ("/?", None, {}),
        ("/a%20b/%C3%BC?x=1&y=%7e&&z", None, {}),
        ("/hashed", b"", {"content-type": "text/plain"}),
        ("/hashed?q", "h\u00fcllo".encode() * 50000, {"content-type": "Text/Plain; charset=utf-8"}),
        ("/hashed", b"\x00\xff", {}),
    ]
    for path, body, headers in cases:
        reply = client.ask(there.base + path, body, headers=headers)
        assert (reply.status_code, reply.text) == (200, f"welcome me {len(body or b'')}"), path
        said = there.said()
        assert said["version"] == ("2.0" if protocol == "h2" else "1.1")
        assert 'ext="some-app-ext"' in said["authorization"] and 'dlg="d1"' in said["authorization"]


def test_wrong_key_is_refused(scene):
    there, client = scene(ours=canary("wrong"))
    assert client.ask(there.base).status_code == 401
    assert there.said()["error"] == "Bad mac"


def test_the_server_refuses_what_was_tampered_with_or_repeated(scene):
    there, client = scene(", include_payload_hash: true")
    assert client.ask(f"{there.base}/hashed?a=1", b"body").status_code == 200
    taken = {"authorization": there.said()["authorization"]}

    def straight(path, body):
        answer = requests.post(there.base + path, data=body, headers=taken, timeout=DEADLINE)
        return answer.status_code, there.said()["error"]

    assert straight("/hashed?a=2", b"body") == (401, "Bad mac")
    assert straight("/hashed?a=1", b"body") == (401, "Invalid nonce")
    assert client.ask(f"{there.base}/hashed?a=1", b"body").status_code == 200, "a new one each time"
    # The hash is checked: this server forgets the nonces of its predecessor, and gets another body.
    there, client = scene(", include_payload_hash: true, timestamp: 1, nonce: n")
    assert client.ask(f"{there.base}/hashed", b"body").status_code == 401
    assert there.said()["error"] == "Stale timestamp"


def test_the_server_refuses_another_body(hawk, proxy):
    key = canary("key")
    first, second = hawk(key=key), hawk(key=key, port=80)
    one = proxy(config(first, key, ", include_payload_hash: true, port: 80"), canaries=[key]).start("trace")
    assert Client(one).ask(f"{first.base}/hashed", b"body").status_code == 401, "the port belongs to the MAC"
    taken = {"authorization": first.said()["authorization"]}
    answer = requests.post(f"{second.base}/hashed", data=b"tampered", headers=taken, timeout=DEADLINE)
    assert (answer.status_code, second.said()["error"]) == (401, "Bad payload hash")


@pytest.mark.parametrize("protocol", ["http", "https"])
@pytest.mark.parametrize("offset", [-7200, 3600])
def test_a_clock_that_differs_is_learnt_once(scene, protocol, offset):
    there, client = scene(protocol=protocol, offset=offset * 1000)
    assert client.ask(f"{there.base}/a", b"body").text == "welcome me 4"
    assert [there.said().get("error"), there.said().get("error")] == ["Stale timestamp", None]
    assert client.ask(f"{there.base}/b").status_code == 200
    assert there.said().get("error") is None, "the offset is known"
    # An old request is refused by a server whose clock is right, too.
    there, client = scene(", timestamp: 1353832234")
    assert client.ask(there.base).status_code == 401
    assert there.said()["error"] == "Stale timestamp"


@pytest.mark.parametrize("protocol", ["http", "h2"])
def test_answers_have_to_prove_themselves(scene, protocol):
    there, client = scene(", verify_response: require", protocol=protocol)
    for path, status in [("/", 200), ("/unhashed", 200), ("/forged", 502), ("/altered", 502), ("/bare", 502), ("/long", 502)]:
        reply = client.ask(there.base + path)
        assert reply.status_code == status, f"{path}: {reply.text}"
        assert there.said()["status"] == 200, path
        if status == 502:
            assert reply.headers["x-countersign-error"] == "credential-rejected"
            assert "welcome" not in reply.text and "something else" not in reply.text
    assert client.ask(there.base, method="HEAD").status_code == 200
    there, client = scene(", verify_response: warn")
    for path in ["/", "/forged", "/altered", "/bare"]:
        assert client.ask(there.base + path).status_code == 200, path


@pytest.mark.parametrize("protocol", ["http", "https", "h2"])
def test_bewits(scene, protocol):
    there, client = scene(", add_to: bewit, ext: xandyandz", protocol=protocol)
    for path in ["/bewit", "/bewit?a=1&b=%7e", "/bewit?"]:
        reply = client.ask(there.base + path)
        assert (reply.status_code, reply.text) == (200, "bewit of me"), path
        url = there.said()["url"]
        assert "bewit=" in url
    if protocol == "http":
        longer = url.replace("/bewit?", "/bewit?more=1&")
        assert requests.get(there.base + longer, timeout=DEADLINE).status_code == 401, "another path"
        assert there.said()["error"] == "Bad mac"
    assert client.ask(there.base + "/bewit", b"body").status_code == 502, "not for POST"
