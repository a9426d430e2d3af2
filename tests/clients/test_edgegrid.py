"""EdgeGrid against a server that signs each request once more with Akamai's own library and compares."""

import datetime
import json
import re

import pytest
import requests
from akamai.edgegrid.edgegrid import EdgeGridAuthHeaders
from conftest import DEADLINE, Client, canary
from judge import refuse


class Edge:
    """Refuses what Akamai refuses: another signature, a time more than 30 s off, a nonce that was there before."""

    def __init__(self, secret, offset=0, headers_to_sign=(), client="akab-c"):
        self.signer = EdgeGridAuthHeaders(client, secret, "akab-a", headers_to_sign=headers_to_sign)
        self.offset, self.nonces = datetime.timedelta(seconds=offset), set()

    def now(self):
        return datetime.datetime.now(datetime.UTC) + self.offset

    def deny(self, status, detail):
        date = self.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
        text = json.dumps({"type": "https://problems.luna.akamaiapis.net/-/pep-authn/deny", "title": "Not authorized",
                           "status": status, "detail": detail})
        refuse(status, text, content_type="application/problem+json", date=date)

    def __call__(self, asked):
        given = asked.headers.get("Authorization", "")
        found = re.fullmatch(r"EG1-HMAC-SHA256 client_token=([^;]*);access_token=([^;]*);timestamp=([^;]*);nonce=([^;]*);"
                             r"signature=(.*)", given)
        if not found:
            self.deny(400, "Missing or malformed Authorization")
        timestamp, nonce = found[3], found[4]
        again = requests.Request(asked.method, asked.url, data=asked.body).prepare()
        # As it came, not as requests would write it.
        again.url = asked.url
        again.headers = requests.structures.CaseInsensitiveDict(asked.headers)
        if self.signer.make_auth_header(again, timestamp, nonce) != given:
            self.deny(401, "The signature does not match")
        when = datetime.datetime.strptime(timestamp, "%Y%m%dT%H:%M:%S%z")
        if abs(self.now() - when) > datetime.timedelta(seconds=30):
            self.deny(400, "Invalid timestamp")
        if nonce in self.nonces:
            self.deny(401, "Invalid nonce")
        self.nonces.add(nonce)
        return 200, {"content-type": "text/plain"}, f"welcome {len(asked.body)}"


def config(there, secret, more=""):
    return (f"version: 1\nrules:\n  - {{name: E, host: \"{there.base}\", auth: {{type: edgegrid, client_token: akab-c, "
            f"access_token: akab-a, client_secret: {secret}{more}}}}}\n")


@pytest.fixture
def scene(judges, proxy):
    def make(protocol="http", more="", ours=None, **edge):
        secret = canary("secret")
        there = judges(Edge(secret, **edge), protocol)
        ours = ours or secret
        return there, Client(proxy(config(there, ours, more), canaries=[ours]).start("trace"), protocol)

    return make


@pytest.mark.parametrize("protocol", ["http", "https", "h2"])
def test_accepted(scene, protocol):
    there, client = scene(protocol, ", headers_to_sign: [X-B, X-A]", headers_to_sign=["X-B", "X-A"])
    for path, body, method in [
        ("/", None, "GET"),
        ("/papi/v1/a%20b;c=1/%C3%BC?x=1&y=%7e&z", None, "GET"),
        ("/p", "h\u00fcllo".encode(), "POST"),
        ("/p?empty", b"", "POST"),
        ("/large", b"x" * 131072, "POST"),
        ("/larger", b"x" * 400_000, "POST"),
        ("/put", b"body", "PUT"),
        ("/patch", b"body", "PATCH"),
        ("/delete", None, "DELETE"),
    ]:
        reply = client.ask(there.base + path, body, method, {"X-A": "a   b", "X-B": "b"})
        assert (reply.status_code, reply.text) == (200, f"welcome {len(body or b'')}"), f"{method} {path}: {reply.text}"
        asked, _ = there.said()
        assert asked.version == ("2" if protocol == "h2" else "1.1")
        assert asked.body == (body or b"")


def test_a_wrong_secret_is_refused_once(scene):
    there, client = scene(ours=canary("wrong"))
    assert client.ask(there.base).status_code == 401
    assert "does not match" in there.said()[1]
    assert there.said_lines.empty()


def test_the_server_refuses_what_was_tampered_with_repeated_or_old(scene):
    there, client = scene(more=", headers_to_sign: X-A", headers_to_sign=["X-A"])
    assert client.ask(there.base + "/p?a=1", b"body", headers={"X-A": "1"}).status_code == 200
    taken = there.said()[0].headers["Authorization"]

    def straight(path, body, x_a="1"):
        headers = {"Authorization": taken, "X-A": x_a}
        return requests.post(there.base + path, data=body, headers=headers, timeout=DEADLINE).json()["detail"]

    assert straight("/p?a=2", b"body") == "The signature does not match"
    assert straight("/p?a=1", b"tampered") == "The signature does not match"
    assert straight("/p?a=1", b"body", "2") == "The signature does not match"
    assert straight("/p?a=1", b"body") == "Invalid nonce"
    there, client = scene(more=", timestamp: \"20140321T19:34:21+0000\"")
    assert client.ask(there.base).json()["detail"] == "Invalid timestamp"


@pytest.mark.parametrize("protocol", ["http", "https", "h2"])
@pytest.mark.parametrize("offset", [-600, 3600])
def test_a_clock_that_differs_is_learnt_once(scene, protocol, offset):
    there, client = scene(protocol, offset=offset)
    assert client.ask(there.base + "/p", b"x" * 200_000).text == "welcome 200000"
    assert "Invalid timestamp" in there.said()[1]
    assert there.said()[1] is None
    assert client.ask(there.base + "/p").status_code == 200
    assert there.said()[1] is None, "the offset is known"
    assert there.said_lines.empty()


def test_tokens_from_a_file_of_akamais_tools(judges, proxy, tmp_path):
    secret = canary("secret") + "="
    there = judges(Edge(secret))
    edgerc = tmp_path / "edgerc"
    edgerc.write_text(f"[other]\nhost = x\n\n[papi]\nclient_secret = {secret}\nhost = akab-h.luna.akamaiapis.net/\n"
                      "access_token = akab-a\nclient_token = akab-c\n")
    text = (f"version: 1\nrules:\n  - {{name: E, host: \"{there.base}\", auth: {{type: edgegrid, "
            f"edgerc: {{file: \"{edgerc}\", section: papi}}}}}}\n")
    one = proxy(text, canaries=[secret]).start("trace")
    assert Client(one).ask(there.base + "/", b"body").text == "welcome 4"
    shown = one.command("explain", "POST", there.base + "/p", "--data", "body", "--json")
    canonical = json.loads(shown.stdout)["canonical"]["edgegrid"]["data_to_sign"]
    assert canonical.startswith(f"POST\thttp\t127.0.0.1:{there.port}\t/p\t\t") and secret not in shown.stdout
