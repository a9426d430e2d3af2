"""HTTP Message Signatures against an implementation that is not ours, on every algorithm that it knows."""

import datetime
import json

import pytest
import requests
from conftest import DEADLINE, Client, canary
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver, algorithms
from http_message_signatures.exceptions import HTTPMessageSignaturesException
from judge import refuse

KEYS = {
    "ed25519": (algorithms.ED25519, ed25519.Ed25519PrivateKey.generate),
    "ecdsa-p256-sha256": (algorithms.ECDSA_P256_SHA256, lambda: ec.generate_private_key(ec.SECP256R1())),
    "ecdsa-p384-sha384": (algorithms.ECDSA_P384_SHA384, lambda: ec.generate_private_key(ec.SECP384R1())),
    "rsa-pss-sha512": (algorithms.RSA_PSS_SHA512, lambda: rsa.generate_private_key(65537, 2048)),
    "rsa-v1_5-sha256": (algorithms.RSA_V1_5_SHA256, lambda: rsa.generate_private_key(65537, 2048)),
    "hmac-sha256": (algorithms.HMAC_SHA256, lambda: canary("shared").encode()),
}


class Verifier:
    """Refuses what does not verify, what does not cover enough, what is old, and a nonce that was there before."""

    def __init__(self, algorithm, public, required=("@method", "@target-uri"), accept=None, max_age=300):
        resolver = MappingKeyResolver(public_keys={"ours": public}, private_keys={})
        self.verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=resolver)
        self.required, self.accept, self.nonces = required, accept, set()
        self.max_age = datetime.timedelta(seconds=max_age)

    def __call__(self, asked):
        message = requests.Request(asked.method, asked.url).prepare()
        message.headers = requests.structures.CaseInsensitiveDict()
        for name, value in asked.lines:
            message.headers[name] = f"{message.headers[name]}, {value}" if name in message.headers else value
        message.url = asked.url
        more = {"accept_signature": self.accept} if self.accept else {}
        try:
            found = self.verifier.verify(message, max_age=self.max_age, require_components=self.required,
                                         expect_tag="app" if self.accept else None, body=asked.body)
        except HTTPMessageSignaturesException as error:
            refuse(401, str(error) or type(error).__name__, **more)
        nonce = found[0].nonce
        if nonce is not None and nonce in self.nonces:
            refuse(401, "repeated nonce")
        self.nonces.add(nonce)
        return 200, {"content-type": "text/plain"}, f"welcome {' '.join(found[0].covered_components)}"


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()


@pytest.fixture
def scene(judges, proxy, tmp_path):
    def make(name="hmac-sha256", protocol="http", more="", wrong=False, **verifier):
        algorithm, generate = KEYS[name]
        key = generate()
        public = key if isinstance(key, bytes) else key.public_key()
        there = judges(Verifier(algorithm, public, **verifier), protocol)
        ours = generate() if wrong else key
        path = tmp_path / f"key{there.port}"
        path.write_text(ours.decode() if isinstance(ours, bytes) else pem(ours))
        what = "secret" if isinstance(key, bytes) else "private_key"
        text = (f"version: 1\nrules:\n  - {{name: S, host: \"{there.base}\", auth: {{type: http_signature, "
                f"algorithm: {name}, key_id: ours, {what}: \"${{file:{path}}}\"{more}}}}}\n")
        secret = path.read_text().splitlines()[min(1, what == "private_key")]
        return there, Client(proxy(text, canaries=[secret]).start("trace"), protocol)

    return make


COMPONENTS = (', digest: sha-512, components: ["@method", "@target-uri", "@authority", "@scheme", "@request-target", '
              '"@path", "@query", "@query-param;name=\\"q a\\"?", "content-digest?", "content-type?", "x-a?", '
              '"x-dict;key=\\"b\\"?", "x-a;bs?"], expires_in: 5m, nonce: true, tag: app, include_alg: true')


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("protocol", ["http", "https", "h2"])
def test_accepted(scene, name, protocol):
    there, client = scene(name, protocol, COMPONENTS)
    headers = {"x-a": "a   b", "x-dict": "a=1,  b=(1   2);c", "content-type": "text/plain"}
    for path, body in [("/", None), ("/a%20b/%C3%BC?q+a=%7e+1&z", None), ("/p?x", b"body"), ("/large", b"x" * 300_000)]:
        reply = client.ask(there.base + path, body, headers=headers)
        assert reply.status_code == 200, f"{path}: {reply.text}"
        assert '"x-a" "x-dict";key="b" "x-a";bs' in reply.text
        assert ('"content-digest"' in reply.text) == (body is not None)
        assert ('"@query-param";name="q%20a"' in reply.text) == ("q+a" in path)
        asked, _ = there.said()
        assert asked.version == ("2" if protocol == "h2" else "1.1")


@pytest.mark.parametrize("name", KEYS)
def test_a_wrong_key_is_refused(scene, name):
    there, client = scene(name, wrong=True)
    assert client.ask(there.base).status_code == 401
    assert there.said()[1]


def test_the_server_refuses_what_was_tampered_with_repeated_or_old(scene):
    there, client = scene(more=", digest: sha-256, nonce: true", required=("@method", "@target-uri", "content-digest"))
    assert client.ask(there.base + "/p?a=1", b"body").status_code == 200
    sent = there.said()[0].headers
    taken = {name: sent[name] for name in ["Signature", "Signature-Input", "Content-Digest"]}

    def straight(path, body, method="POST", **other):
        answer = requests.request(method, there.base + path, data=body, headers={**taken, **other}, timeout=DEADLINE)
        assert answer.status_code == 401
        return answer.text

    for tampered in [
        straight("/p?a=2", b"body"),
        straight("/p?a=1", b"other"),
        straight("/p?a=1", b"body", "PUT"),
        straight("/p?a=1", b"body", **{"Signature-Input": taken["Signature-Input"].replace("nonce=\"", "nonce=\"0")}),
    ]:
        assert tampered != "repeated nonce"
    assert straight("/p?a=1", b"body") == "repeated nonce"
    there, client = scene(more=", created: false, digest: sha-256")
    assert client.ask(there.base, b"").status_code == 401, "this server wants to know the age"


@pytest.mark.parametrize("minutes, more, accepted", [
    (0, "", True), (4, "", True), (6, "", False), (4, ", expires_in: 5m", True), (4, ", expires_in: 1m", False)])
def test_the_server_refuses_what_is_old_or_expired(proxy, judges, minutes, more, accepted):
    secret = canary("shared")
    there = judges(Verifier(algorithms.HMAC_SHA256, secret.encode()), "http")
    one = proxy(f"version: 1\nrules:\n  - {{name: S, host: \"{there.base}\", auth: {{type: http_signature, algorithm: "
                f"hmac-sha256, key_id: ours, secret: {secret}{more}}}}}\n", canaries=[secret]).start()
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes)
    told = one.command("explain", "GET", f"{there.base}/p", "--json", "--show-secrets", "--at", then.strftime("%FT%TZ"))
    assert told.returncode == 0, told.stderr
    headers = dict(json.loads(told.stdout)["request"]["headers"])
    answer = requests.get(f"{there.base}/p", headers=headers, timeout=DEADLINE)
    assert answer.status_code == (200 if accepted else 401), answer.text
    assert accepted or "expires" in answer.text or "age" in answer.text or "old" in answer.text, answer.text


def test_other_signatures_stay(scene):
    there, client = scene(more=', components: ["@method", "@target-uri", "signature;key=\\"mine\\""], tag: app',
                          required=("@method", '"signature";key="mine"'))
    there.judge.accept = "unused"
    mine = requests.Request("GET", there.base + "/").prepare()
    private = MappingKeyResolver(public_keys={}, private_keys={"mine": b"the client's own"})
    signer = HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=private)
    signer.sign(mine, key_id="mine", label="mine")
    own = {name: mine.headers[name] for name in ["Signature", "Signature-Input"]}
    reply = client.ask(there.base + "/", headers=own)
    assert reply.status_code == 200, reply.text
    sent = there.said()[0].headers
    assert sent["Signature"].startswith(own["Signature"] + ", sig1=:")
    assert sent["Signature-Input"].startswith(own["Signature-Input"] + ", sig1=(")


def test_accept_signature_is_honoured_once(scene):
    wish = 'sig2=("@authority" "content-type");created;nonce="from-the-server";tag="app"'
    there, client = scene(required=("@method", "@authority", "content-type"), accept=wish)
    reply = client.ask(there.base + "/", headers={"content-type": "text/plain"})
    assert (reply.status_code, reply.text.startswith("welcome")) == (200, True), reply.text
    assert there.said()[1]
    sent = there.said()[0].headers["Signature-Input"]
    assert sent.startswith('sig2=("@method" "@target-uri" "@authority" "content-type");created=')
    assert 'nonce="from-the-server";tag="app"' in sent
    assert client.ask(there.base + "/").status_code == 401, "it has no such field"
    there.said()
    assert there.said_lines.empty(), "so nobody tried"
