"""Tokens of `jwt` and `asap` judged by PyJWT and jwcrypto: all algorithms, every format of key."""

import base64
import http.client
import json
import time
import uuid

import jwt
import pytest
from conftest import DEADLINE, canary
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwcrypto import jwk, jws

HMAC = ["HS256", "HS384", "HS512"]
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
RSA = [f"{kind}{bits}" for kind in ("RS", "PS") for bits in (256, 384, 512)]
ALGORITHMS = [*HMAC, *RSA, *CURVES, "EdDSA"]
RSA_KEY = rsa.generate_private_key(65537, 2048)


def private_key(algorithm):
    if algorithm in RSA:
        return RSA_KEY
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(CURVES[algorithm]())


def pem(key, form="PKCS8"):
    return key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form),
                             serialization.NoEncryption()).decode()


def configuration(origin, auth, kind="jwt"):
    auth = json.dumps({"type": kind, **auth})
    return f"version: 1\nrules:\n  - {{name: J, host: \"{origin.base}\", auth: {auth}}}\n"


def ask(proxy, origin, path="/", method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE)
    connection.request(method, origin.url(path), body=body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def sent(proxy, origin):
    assert ask(proxy, origin) == 200
    scheme, token = origin.values("authorization")[-1].split(" ")
    assert scheme == "Bearer"
    return token


def judge(token, algorithm, key):
    """Both libraries accept the token; neither does once a bit of it is changed, or under another key."""
    claims = jwt.decode(token, key, algorithms=[algorithm], options={"verify_aud": False})
    if isinstance(key, bytes):
        ours = jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(key).rstrip(b"=").decode())
        other = jwk.JWK(kty="oct", k="AAAA" * 16)
    else:
        ours = jwk.JWK.from_pyca(key)
        other = jwk.JWK.from_pyca(
            rsa.generate_private_key(65537, 2048).public_key() if algorithm in RSA else private_key(algorithm).public_key())
    read = jws.JWS()
    read.allowed_algs = [algorithm]
    read.deserialize(token, ours)
    assert json.loads(read.payload) == claims
    head, payload, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "other"}).encode()).rstrip(b"=").decode()
    for bad, under in [(f"{head}.{forged}.{signature}", ours), (token, other)]:
        with pytest.raises(jws.InvalidJWSSignature):
            jws.JWS().deserialize(bad, under)
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(bad, jwt.PyJWK(json.loads(under.export()), algorithm), algorithms=[algorithm],
                       options={"verify_aud": False})
    return claims


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_and_format(origins, proxy, algorithm):
    origin = origins(tls=False)
    payload = {"sub": "jörg", "n": 5, "f": 1.5, "list": [1, {"a": None}], "on": True}
    base = {"algorithm": algorithm, "payload": payload, "headers": {"typ": "JWT", "kid": "k1"}}
    if algorithm in HMAC:
        secret = canary("a secret of more than 64 bytes, as HS512 wants it to be: ü €")
        raw = secret.encode()
        b64 = [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")]
        forms = [{"secret": secret}, *({"secret": one, "secret_base64": True} for one in b64)]
        public, secrets = raw, [secret, *b64]
    else:
        key = private_key(algorithm)
        public = key.public_key()
        texts = [pem(key), json.dumps(json.loads(jwk.JWK.from_pyca(key).export()))]
        if algorithm != "EdDSA":
            texts.append(pem(key, "TraditionalOpenSSL"))
        forms, secrets = [{"private_key": text} for text in texts], []
    for form in forms:
        one = proxy(configuration(origin, {**base, **form}), canaries=secrets).start("trace")
        token = sent(one, origin)
        assert judge(token, algorithm, public) == payload
        assert jwt.get_unverified_header(token) == {"typ": "JWT", "kid": "k1", "alg": algorithm}
        assert len(token.split(".")) == 3 and "=" not in token


def test_claims_of_time(origins, proxy):
    origin = origins(tls=False)
    auth = {"secret": "s" * 32, "payload": '{"b": 1, "a": 2}', "lifetime": 30, "set_iat": True, "set_jti": True}
    one = proxy(configuration(origin, auth)).start()
    tokens = [sent(one, origin) for _ in range(2)]
    claims = [jwt.decode(token, "s" * 32, algorithms=["HS256"], options={"require": ["exp", "iat", "jti"]}) for token in tokens]
    for claim in claims:
        assert list(claim) == ["b", "a", "iat", "exp", "jti"]
        assert abs(claim["iat"] - time.time()) < 5 and claim["exp"] == claim["iat"] + 30
        assert uuid.UUID(claim["jti"]).version == 4
    assert claims[0]["jti"] != claims[1]["jti"]


def test_an_old_token_is_refused(origins, proxy):
    origin = origins(tls=False)
    one = proxy(configuration(origin, {"secret": "s" * 32, "payload": {"exp": 1_700_000_000}})).start()
    token = sent(one, origin)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token, "s" * 32, algorithms=["HS256"])


def test_in_the_query(origins, proxy):
    secret = canary("a secret of 32 bytes or more")
    origin = origins(tls=False)
    auth = {"secret": secret, "payload": {"sub": "1"}, "add_to": "query", "query_param": "jwt"}
    one = proxy(configuration(origin, auth), canaries=[secret]).start("trace")
    assert ask(one, origin, "/p?x=%7e&jwt=mine") == 200
    path, token = origin.seen[-1]["path"].split("&jwt=")
    assert path == "/p?x=%7e"
    assert judge(token, "HS256", secret.encode()) == {"sub": "1"}
    assert not origin.values("authorization")


def test_a_clock_that_the_server_corrects(origins, proxy):
    """A server ahead by an hour refuses what it takes for old; its `Date` makes the second token right."""
    origin = origins(tls=False)
    public = RSA_KEY.public_key()

    def page(handler, seen):
        token = handler.headers["authorization"].split(" ")[1]
        claims = jwt.decode(token, public, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False})
        now = int(time.time()) + 3600
        status = 200 if claims["iat"] <= now + 5 and now - claims["iat"] <= 60 else 401
        handler.date_time_string = lambda: time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
        handler.answer(status, seen["body"])

    origin.pages["/"] = page
    auth = {"algorithm": "RS256", "private_key": pem(RSA_KEY), "lifetime": 60, "set_iat": True}
    one = proxy(configuration(origin, auth)).start()
    assert ask(one, origin, method="POST", body=b"body") == 200
    assert [seen["body"] for seen in origin.seen] == [b"body", b"body"]
    assert ask(one, origin) == 200 and len(origin.seen) == 3, "from now on the first one is right"


def asap(**more):
    return {"issuer": "team/service", "audience": "server", "key_id": "team/service/1", "expiry": 60, **more}


def asap_server(origin, public, algorithm):
    """A verifier as the specification has it: the key by its identifier, an hour at most, each `jti` once."""
    seen_ids = set()

    def page(handler, seen):
        token = handler.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, public[header["kid"]], algorithms=[algorithm], audience="server",
                                options={"require": ["iss", "aud", "jti", "iat", "exp"]})
            fits = header["kid"].startswith(claims["iss"] + "/") and claims["sub"] == claims["iss"]
            fits = fits and 0 < claims["exp"] - claims["iat"] <= 3600 and claims["jti"] not in seen_ids
            seen_ids.add(claims["jti"])
        except (jwt.PyJWTError, KeyError):
            fits = False
        handler.answer(200 if fits else 401, b"")

    origin.pages["/"] = page


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES])
def test_asap(origins, proxy, algorithm):
    origin = origins(tls=False)
    key = private_key(algorithm)
    asap_server(origin, {"team/service/1": key.public_key()}, algorithm)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    uri = f"data:application/pkcs8;kid=team%2Fservice%2F1;base64,{base64.b64encode(der).decode()}"
    for text in [pem(key), uri]:
        one = proxy(configuration(origin, asap(algorithm=algorithm, private_key=text), "asap")).start("trace")
        assert [ask(one, origin) for _ in range(3)] == [200] * 3
        token = origin.values("authorization")[-1].split(" ")[1]
        judge(token, algorithm, key.public_key())
        assert text[60:100] not in one.output()


def test_the_asap_verifier_refuses(origins, proxy):
    for more in [{"audience": "another"}, {"expiry": 3700}, {"subject": "other"}, {"claims": {"exp": 1_700_000_000}},
                 {"key_id": "team/service/2"}, {"private_key": pem(private_key("ES256"))}]:
        origin = origins(tls=False)
        key = private_key("ES256")
        asap_server(origin, {"team/service/1": key.public_key()}, "ES256")
        auth = asap(algorithm="ES256", private_key=pem(key)) | more
        assert ask(proxy(configuration(origin, auth, "asap")).start(), origin) == 401, more
    origin = origins(tls=False)
    key = private_key("ES256")
    asap_server(origin, {"team/service/1": key.public_key()}, "ES256")
    once = asap(algorithm="ES256", private_key=pem(key), claims={"jti": "once"})
    one = proxy(configuration(origin, once, "asap")).start()
    assert [ask(one, origin) for _ in range(2)] == [200, 401], "a token is taken once"


def test_asap_may_keep_a_token(origins, proxy):
    origin = origins(tls=False)
    auth = asap(algorithm="ES256", private_key=pem(private_key("ES256")), reuse=True)
    one = proxy(configuration(origin, auth, "asap")).start()
    assert len({sent(one, origin) for _ in range(3)}) == 1


def test_without_the_rule_there_is_no_token(origins, proxy):
    origin = origins(tls=False)
    asap_server(origin, {}, "ES256")
    assert ask(proxy("version: 1\nrules: []\n").start(), origin) == 401
