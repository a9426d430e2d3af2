"""OAuth 1.0a judged by oauthlib's provider, and compared byte for byte with node-oauth1."""

import http.client
import json
import pathlib
import random
import re
import ssl
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from conftest import BINARY, DEADLINE, Handler, canary, need
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from oauthlib.oauth1 import RequestValidator, ResourceEndpoint, SignatureOnlyEndpoint, WebApplicationServer
from oauthlib.oauth1.rfc5849 import signature as oauthlib_signature

HERE = pathlib.Path(__file__).parent
METHODS = ["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "RSA-SHA1", "RSA-SHA256", "RSA-SHA512", "PLAINTEXT"]


@pytest.fixture(scope="module")
def key():
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode(), public.decode()


class Validator(RequestValidator):
    """Knows one consumer and one token, and every nonce that it has seen."""

    enforce_ssl = False
    client_key_length = nonce_length = access_token_length = (1, 100)
    timestamp_lifetime = 600
    allowed_signature_methods = METHODS
    dummy_client, dummy_access_token = "dummy", "dummy"
    safe_characters = {chr(code) for code in range(33, 0x3000)} | {" "}

    def __init__(self, consumer_secret, token_secret, public_key):
        super().__init__()
        self.consumer_secret, self.token_secret, self.public_key = consumer_secret, token_secret, public_key
        self.nonces, self.forget = set(), False

    def validate_timestamp_and_nonce(self, client_key, timestamp, nonce, request, request_token=None, access_token=None):
        triple = (client_key, timestamp, nonce, access_token)
        fresh = triple not in self.nonces
        self.nonces.add(triple)
        return fresh

    def check_client_key(self, client_key):
        return True

    check_nonce = check_access_token = check_client_key

    def validate_client_key(self, client_key, request):
        return client_key == "consumer"

    def validate_access_token(self, client_key, token, request):
        return token == "token"

    def get_client_secret(self, client_key, request):
        return self.consumer_secret

    def get_access_token_secret(self, client_key, token, request):
        return self.token_secret

    def get_rsa_key(self, client_key, request):
        return self.public_key

    def validate_realms(self, *args, **more):
        return True


class Provider(Handler):
    """Answers 200 if oauthlib accepts the request."""

    def handle_any(self):
        origin = self.server.origin
        body = bytearray()
        self.body(body.extend)
        origin.seen.append({"method": self.command, "path": self.path, "headers": list(self.headers.items()),
                            "body": bytes(body)})
        scheme = "https" if self.server.tls else "http"
        uri = f"{scheme}://{self.headers['host']}{origin.tamper(self.path)}"
        text = origin.tamper(body.decode())
        refusal = origin.refuse(uri, text, self.headers)
        if refusal:
            return self.answer(refusal[0], refusal[2].encode(), refusal[1])
        accepted = origin.accepts(uri, self.command, text, dict(self.headers.items()))
        self.answer(200 if accepted else 401, b"yes" if accepted else b"no")

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = handle_any


@pytest.fixture
def provider(origins, key):
    def make(consumer_secret, token_secret="", tls=False, legs=3):
        origin = origins(tls=tls, handler=Provider)
        validator = Validator(consumer_secret, token_secret, key[1])
        endpoint = (ResourceEndpoint if legs == 3 else SignatureOnlyEndpoint)(validator)
        validate = endpoint.validate_protected_resource_request if legs == 3 else endpoint.validate_request
        origin.accepts = lambda uri, method, body, headers: validate(uri, method, body, headers)[0]
        origin.tamper = lambda text: text
        origin.refuse = lambda uri, body, headers: None
        origin.validator = validator
        return origin

    return make


def credential(origin, keys):
    """A configuration with one rule; JSON is YAML."""
    auth = json.dumps({"type": "oauth1", "consumer_key": "consumer", **keys})
    return f"version: 1\nrules:\n  - {{name: O, host: \"{origin.base}\", auth: {auth}}}\n"


def ask(proxy, url, method="GET", body=None, headers=None):
    """One request through the proxy with these very bytes in its target."""
    target = urllib.parse.urlsplit(url)
    if target.scheme == "https":
        context = ssl.create_default_context(cafile=str(proxy.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=context, timeout=DEADLINE)
        connection.set_tunnel(target.hostname, target.port)
        path = url.split(target.netloc, 1)[1]
    else:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE)
        path = url
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REQUESTS = [
    ("GET", "/", None, {}),
    ("GET", "/r%20v/X?b5=%3D%253D&a3=a&c%40=&a2=r%20b&c2=&a3=2+q", None, {}),
    ("GET", "/?name=J%C3%B6rg&name=&empty=&z=%7E!*'()&plus=a%2Bb", None, {}),
    ("DELETE", "/a/../b?x=1", None, {}),
    ("POST", "/form?q=1", b"status=Hello+%26+World&k=a%20b&empty=&k=again&u=%E2%82%AC", FORM),
    ("PUT", "/form", b"a=%7e", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}),
    ("POST", "/json?q=1", '{"a": "ü=1&b"}'.encode(), {"Content-Type": "application/json"}),
]


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("method", METHODS)
def test_accepted(provider, proxy, key, method, tls):
    consumer_secret, token_secret = canary("consumer & ü"), canary("tok/en")
    origin = provider(consumer_secret, token_secret, tls)
    keys = {"consumer_secret": consumer_secret, "token": "token", "token_secret": token_secret, "signature_method": method,
            "realm": "a realm"}
    if method.startswith("RSA"):
        keys["private_key"] = key[0]
    one = proxy(credential(origin, keys), canaries=[consumer_secret, token_secret]).start("trace")
    for verb, path, body, headers in REQUESTS:
        assert ask(one, origin.url(path), verb, body, headers) == (200, b"yes"), (verb, path)
        seen = origin.seen[-1]
        assert (seen["path"], seen["body"]) == (path, body or b""), "nothing is spelt anew"


@pytest.mark.parametrize("add_to", ["header", "body", "query", "body_or_query"])
def test_accepted_wherever_it_stands(provider, proxy, add_to):
    secret = canary("consumer")
    origin = provider(secret, "ts")
    keys = {"consumer_secret": secret, "token": "token", "token_secret": "ts", "add_to": add_to}
    one = proxy(credential(origin, keys), canaries=[secret]).start("trace")
    for verb, path, body, headers in REQUESTS:
        if add_to == "body" and headers.get("Content-Type", "").split(";")[0] != FORM["Content-Type"]:
            assert ask(one, origin.url(path), verb, body, headers)[0] == 502
            continue
        # What the client says of OAuth itself is taken out.
        path += ("&" if "?" in path else "?") + "oauth_token=mine&oauth_signature=x"
        if headers and "form" in headers["Content-Type"]:
            body += b"&oauth_nonce=mine"
        headers = {**headers, "Authorization": "OAuth oauth_token=\"mine\""}
        assert ask(one, origin.url(path), verb, body, headers) == (200, b"yes"), (verb, path)
        assert b"mine" not in repr(origin.seen[-1]).encode()


def test_two_legs(provider, proxy):
    origin = provider("secret", legs=2)
    one = proxy(credential(origin, {"consumer_secret": "secret"})).start()
    assert ask(one, origin.url("/?a=1")) == (200, b"yes")
    assert "oauth_token" not in origin.values("authorization")[0]


def refused(provider, proxy, keys=None, tamper=None, request=REQUESTS[4], twice=False, **more):
    origin = provider("consumer-secret", "token-secret", **more)
    if tamper:
        origin.tamper = tamper
    keys = {"consumer_secret": "consumer-secret", "token": "token", "token_secret": "token-secret", **(keys or {})}
    one = proxy(credential(origin, keys)).start()
    verb, path, body, headers = request
    statuses = [ask(one, origin.url(path), verb, body, headers)[0] for _ in range(1 + twice)]
    return statuses


def test_the_oracle_refuses(provider, proxy):
    assert refused(provider, proxy) == [200]
    assert refused(provider, proxy, {"consumer_secret": "wrong"}) == [401]
    assert refused(provider, proxy, {"token_secret": "wrong"}) == [401]
    assert refused(provider, proxy, {"token": "other"}) == [401]
    assert refused(provider, proxy, tamper=lambda text: text.replace("q=1", "q=2")) == [401]
    assert refused(provider, proxy, tamper=lambda text: text.replace("Hello", "Hallo")) == [401]
    assert refused(provider, proxy, tamper=lambda text: text.replace("/form", "/from")) == [401]
    assert refused(provider, proxy, {"nonce": "once"}, twice=True) == [200, 401]
    assert refused(provider, proxy, {"timestamp": str(int(time.time()) - 700)}) == [401]


def test_the_oracle_refuses_other_keys(provider, proxy):
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()).decode()
    for method in ["RSA-SHA1", "RSA-SHA256", "RSA-SHA512"]:
        assert refused(provider, proxy, {"signature_method": method, "private_key": other}) == [401]


def test_without_the_rule_it_is_refused(provider, proxy):
    origin = provider("secret", "ts")
    one = proxy("version: 1\nrules: []\n").start()
    assert ask(one, origin.url("/"))[0] == 401


@pytest.mark.parametrize("in_body", [False, True], ids=["header", "body"])
@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_wrong_clock_is_corrected_once(provider, proxy, ahead, in_body):
    """A server whose clock is an hour off says which times it takes; from then on it gets them at once."""
    origin = provider("cs", "ts")
    origin.validator.timestamp_lifetime = 100_000

    def refuse(uri, body, headers):
        sent = int(re.search(r'oauth_timestamp="(\d+)"', headers["authorization"])[1])
        now = int(time.time()) + ahead
        if abs(sent - now) <= 300:
            return None
        problem = f"oauth_problem=timestamp_refused&oauth_acceptable_timestamps={now - 300}-{now + 300}"
        if in_body:
            return 401, {"content-type": "application/x-www-form-urlencoded"}, problem
        quoted = ", ".join('{}="{}"'.format(*pair.split("=")) for pair in problem.split("&"))
        return 401, {"www-authenticate": f'OAuth realm="x", {quoted}'}, ""

    origin.refuse = refuse
    keys = {"consumer_secret": "cs", "token": "token", "token_secret": "ts"}
    one = proxy(credential(origin, keys)).start()
    for count in [2, 3]:
        assert ask(one, origin.url("/f"), "POST", b"a=1", FORM) == (200, b"yes")
        assert len(origin.seen) == count


def test_a_used_nonce_is_replaced_once(provider, proxy):
    origin = provider("cs", "ts")
    refusals = []

    def refuse(uri, body, headers):
        if len(refusals) % 3 == 2:
            refusals.append("let through")
            return None
        refusals.append(headers["authorization"])
        return 401, {}, "oauth_problem=nonce_used"

    origin.refuse = refuse
    one = proxy(credential(origin, {"consumer_secret": "cs", "token": "token", "token_secret": "ts"})).start()
    assert ask(one, origin.url("/"))[0] == 401, "not more than once in an exchange"
    assert len(set(refusals)) == 2
    assert ask(one, origin.url("/"))[0] == 200


def test_the_body_hash(provider, proxy):
    origin = provider("cs", "ts")
    keys = {"consumer_secret": "cs", "token": "token", "token_secret": "ts", "include_body_hash": True}
    one = proxy(credential(origin, keys)).start()
    for verb, path, body, headers in REQUESTS:
        assert ask(one, origin.url(path), verb, body, headers) == (200, b"yes")
        hashed = "oauth_body_hash" in origin.values("authorization")[-1]
        assert hashed == ("form" not in headers.get("Content-Type", ""))
    assert ask(one, origin.url("/"), "POST", b"Hello World!", {"Content-Type": "text/plain"}) == (200, b"yes")
    assert 'oauth_body_hash="Lve95gjOVATpfV8EL5X4nxwjKHE%3D"' in origin.values("authorization")[-1]


class Granting(Validator):
    """The same, with the three steps to a token."""

    request_token_length = verifier_length = (1, 100)
    realms = [""]
    dummy_request_token = "dummy"

    def __init__(self, *secrets):
        super().__init__(*secrets)
        self.temporary, self.tokens = {}, {}

    def check_realms(self, realms):
        return True

    check_request_token = check_verifier = check_realms

    def get_default_realms(self, client_key, request):
        return []

    def get_realms(self, token, request):
        return []

    def validate_requested_realms(self, client_key, realms, request):
        return True

    def validate_redirect_uri(self, client_key, redirect_uri, request):
        return redirect_uri == "oob" or redirect_uri.startswith("http://127.0.0.1:")

    def save_request_token(self, token, request):
        self.temporary[token["oauth_token"]] = {"secret": token["oauth_token_secret"], "back": request.redirect_uri}

    def get_request_token_secret(self, client_key, token, request):
        return self.temporary.get(token, {"secret": "dummy"})["secret"]

    def verify_request_token(self, token, request):
        return token in self.temporary

    def get_redirect_uri(self, token, request):
        return self.temporary[token]["back"]

    def save_verifier(self, token, verifier, request):
        self.temporary[token]["verifier"] = verifier["oauth_verifier"]

    def validate_request_token(self, client_key, token, request):
        return token in self.temporary

    def validate_verifier(self, client_key, token, verifier, request):
        return self.temporary.get(token, {}).get("verifier") == verifier

    def save_access_token(self, token, request):
        self.tokens[token["oauth_token"]] = token["oauth_token_secret"]

    def invalidate_request_token(self, client_key, request_token, request):
        del self.temporary[request_token]

    def validate_access_token(self, client_key, token, request):
        return token in self.tokens

    def get_access_token_secret(self, client_key, token, request):
        return self.tokens.get(token, "dummy")


class GrantingHandler(Handler):
    """oauthlib's whole server; everyone agrees."""

    def handle_any(self):
        origin = self.server.origin
        body = bytearray()
        self.body(body.extend)
        origin.seen.append(self.path)
        scheme = "https" if self.server.tls else "http"
        asked = (f"{scheme}://{self.headers['host']}{self.path}", self.command, body.decode(), dict(self.headers.items()))
        path = self.path.split("?")[0]
        if path == "/initiate":
            headers, text, status = origin.oauth.create_request_token_response(*asked)
        elif path == "/authorize":
            headers, text, status = origin.oauth.create_authorization_response(*asked)
        elif path == "/token":
            headers, text, status = origin.oauth.create_access_token_response(*asked)
        else:
            accepted = origin.oauth.validate_protected_resource_request(*asked)[0]
            headers, text, status = {}, "yes" if accepted else "no", 200 if accepted else 401
        self.answer(status, (text or "").encode(), headers)

    do_GET = do_POST = handle_any


@pytest.fixture
def granting(origins, key):
    def make(consumer_secret, tls=False):
        origin = origins(tls=tls, handler=GrantingHandler)
        origin.oauth = WebApplicationServer(Granting(consumer_secret, "", key[1]))
        return origin

    return make


def login_config(origin, consumer_secret, more=None):
    return credential(origin, {"consumer_secret": consumer_secret, "request_token_url": origin.url("/initiate"),
                               "authorize_url": origin.url("/authorize?lang=en"), "access_token_url": origin.url("/token"),
                               "login_wait": "1s", **(more or {})})


def named(config):
    """The credential of a rule, with a name."""
    rule = json.loads(re.search(r"auth: (\{.*\})\}", config)[1])
    host = re.search(r'host: "(.*?)"', config)[1]
    return f"version: 1\ncredentials:\n  it: {json.dumps(rule)}\nrules:\n  - {{name: O, host: \"{host}\", auth: it}}\n"


class Login:
    """`countersign login it`, and the person at it."""

    def __init__(self, one):
        self.process = subprocess.Popen([BINARY, "login", "it", *one.common, "--no-browser"], env=one.env, cwd=one.folder,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""
        while not (found := re.search(r"^https?://\S+$", self.said, re.M)):
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.url = found[0]

    def end(self, pasted=None):
        rest, _ = self.process.communicate(pasted, timeout=DEADLINE)
        return self.process.returncode, self.said + rest


def browse(url, authority=None):
    """A browser follows redirects and trusts the test's authority."""
    context = ssl.create_default_context()
    if authority:
        authority.configure_trust(context)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("method", ["HMAC-SHA1", "RSA-SHA256"])
def test_login(granting, proxy, authority, key, method, tls):
    secret = canary("consumer")
    origin = granting(secret, tls)
    more = {"signature_method": method} | ({"private_key": key[0]} if method.startswith("RSA") else {})
    one = proxy(named(login_config(origin, secret, more)), canaries=[secret]).start("trace")
    status, text = ask(one, origin.url("/api"))
    assert status == 511 and b"login-needed" in text
    login = Login(one)
    assert "/authorize?lang=en&oauth_token=" in login.url
    browse(login.url, authority)
    code, said = login.end()
    assert code == 0 and "logged in: it" in said
    assert ask(one, origin.url("/api?a=1")) == (200, b"yes")
    [(token, token_secret)] = origin.oauth.request_validator.tokens.items()
    one.canaries += [token_secret]
    assert token_secret not in said
    assert one.command("token", "get", "it").stdout.strip() == token
    assert one.command("logout", "it").returncode == 0
    assert ask(one, origin.url("/api"))[0] == 511


def test_login_by_a_verifier_that_is_pasted(granting, proxy):
    origin = granting("cs")
    one = proxy(named(login_config(origin, "cs", {"callback": "oob"}))).start()
    login = Login(one)
    verifier = browse(login.url)
    code, said = login.end(f"{urllib.parse.urlencode(dict(urllib.parse.parse_qsl(verifier)))}\n")
    assert code == 0, said
    assert ask(one, origin.url("/api")) == (200, b"yes")


def test_the_login_oracle_refuses(granting, proxy):
    origin = granting("right")
    one = proxy(named(login_config(origin, "wrong"))).start()
    result = one.command("login", "it", "--no-browser", input="")
    assert result.returncode == 1 and "request_token_url: the server answered 401" in result.stderr
    good = proxy(named(login_config(origin, "right", {"callback": "oob"}))).start()
    code, said = Login(good).end("oauth_verifier=guessed\n")
    assert code == 1 and "access_token_url: the server answered 401" in said
    assert ask(good, origin.url("/api"))[0] == 511

SIGN = r"""
const oauth = require('node-oauth1');
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(cases.map(one => {
  const parameters = one.oauth.filter(([, value]) => value);
  const signature = oauth.SignatureMethod.sign(
    {action: one.url, method: one.method, parameters: parameters.concat(one.form)},
    {consumerSecret: one.consumer_secret, tokenSecret: one.token_secret, privateKey: one.private_key});
  return oauth.getAuthorizationHeader(one.realm, parameters.concat([['oauth_signature', signature]]));
})));
"""


def generated(count, seed):
    """Requests with everything that a query and a form may hold, in every spelling."""
    rng = random.Random(seed)
    pieces = ["a", "b", "Z", "0", " ", "&", "=", "+", "%", "~", "!", "*", "'", "(", ")", "/", "?", "#", "ü", "€", "😀", "-", "_", "."]

    def text(most):
        return "".join(rng.choice(pieces) for _ in range(rng.randrange(most)))

    def spelt(pairs):
        quote = rng.choice([urllib.parse.quote_plus, urllib.parse.quote, lambda text: urllib.parse.quote(text, safe="!*'()/?")])
        lower = rng.random() < 0.3

        def part(text):
            quoted = quote(text)
            return re.sub("%..", lambda found: found[0].lower(), quoted) if lower else quoted

        return "&".join(part(name) + ("=" + part(value) if value or rng.random() < 0.7 else "") for name, value in pairs)

    for _ in range(count):
        pairs = [(text(4) or "n", text(8)) for _ in range(rng.randrange(5))]
        pairs += rng.sample(pairs, rng.randrange(len(pairs) + 1))
        form = [(text(4) or "f", text(8)) for _ in range(rng.randrange(4))] if rng.random() < 0.5 else []
        yield {
            "query": spelt(pairs), "body": spelt(form), "form": form,
            "method": rng.choice(["POST", "PUT"] if form else ["GET", "DELETE", "PATCH"]),
            "signature_method": rng.choice(METHODS),
            "consumer_key": text(6).strip() or "ck", "consumer_secret": text(9) or "cs",
            "token": text(6).strip(), "token_secret": text(9), "nonce": f"n{rng.randrange(10**9)}",
            "timestamp": str(1_700_000_000 + rng.randrange(10**6)),
        }


def test_the_same_bytes_as_node_oauth1(origins, proxy, key):
    need("node")
    origin = origins(tls=False)
    cases, rules = [], []
    for at, one in enumerate(generated(120, seed=5849)):
        one["path"] = f"/case/{at}/r%20v"
        names = ["consumer_key", "token", "signature_method", "timestamp", "nonce"]
        one["oauth"] = [[f"oauth_{name}", one[name]] for name in names] + [["oauth_version", "1.0"]]
        one["url"] = origin.url(one["path"]) + ("?" + one["query"] if one["query"] else "")
        one["private_key"], one["realm"] = key[0], "realm"
        auth = {"type": "oauth1", "private_key": key[0], "realm": "realm"}
        auth |= {name: one[name].replace("${", "$${") for name in [*names, "consumer_secret", "token_secret"]}
        rules.append({"name": f"Case {at}", "host": origin.base, "path": f"/case/{at}/**", "auth": auth})
        cases.append(one)
    expected = subprocess.run(["node", "-e", SIGN], input=json.dumps(cases), cwd=HERE, capture_output=True, text=True,
                              timeout=DEADLINE)
    assert expected.returncode == 0, expected.stderr
    one_proxy = proxy(json.dumps({"version": 1, "rules": rules})).start()
    for one, header in zip(cases, json.loads(expected.stdout)):
        headers = FORM if one["form"] else {}
        status, _ = ask(one_proxy, one["url"], one["method"], one["body"].encode() or None, headers)
        assert status == 200
        seen = origin.seen[-1]
        assert dict(seen["headers"])["authorization"] == header, one
        assert (seen["path"], seen["body"]) == (one["url"].removeprefix(origin.base), one["body"].encode())


def test_oauthlib_agrees_on_base_strings(proxy, origins):
    """`explain` prints the base string that oauthlib makes of the same request."""
    one = proxy(credential(origins(tls=False), {"consumer_secret": "cs"}))
    target = re.search(r"http://127.0.0.1:\d+", (one.folder / "countersign.yaml").read_text())[0]
    for case in generated(12, seed=3986):
        url = f"{target}/p" + ("?" + case["query"] if case["query"] else "")
        result = one.command("explain", case["method"], url, "--at", "2023-11-14T22:13:20Z", "--nonce", "n", "--json")
        assert result.returncode == 0, result.stderr
        said = json.loads(result.stdout)["canonical"]["oauth1"]["base_string"]
        oauth = [("oauth_consumer_key", "consumer"), ("oauth_signature_method", "HMAC-SHA1"), ("oauth_nonce", "n"),
                 ("oauth_timestamp", "1700000000"), ("oauth_version", "1.0")]
        pairs = urllib.parse.parse_qsl(case["query"], keep_blank_values=True) + oauth
        expected = oauthlib_signature.signature_base_string(
            case["method"], oauthlib_signature.base_string_uri(url), oauthlib_signature.normalize_parameters(pairs))
        assert said == expected
