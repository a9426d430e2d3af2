"""Postman's own runner sends a definition straight to an origin; the bare request goes through the proxy with the same
definition in our words. Target, body and credential have to be the same, but for the differences that `docs/postman.md` lists."""

import base64
import datetime
import http.client
import json
import pathlib
import random
import re
import subprocess
import urllib.parse

import pytest
from conftest import CLEAN, need
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HERE = pathlib.Path(__file__).parent
FORM = "application/x-www-form-urlencoded"
PIECES = ["a", "b", "Z", "9", " ", "&", "=", "+", "%25", "~", "!", "*", "'", "(", ")", "/", "ü", "€", "😀", "-", "_", "."]
PEM = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


class Case:
    """One request, with its credential in Postman's words and in ours."""

    def __init__(self, kind, rng, postman, ours, **request):
        self.kind, self.postman, self.ours = kind, postman, ours
        self.method, self.query, self.headers, self.form, self.raw = "GET", "", {}, None, None
        self.tail = "/" + rng.choice(["", "p", "a%20b", "x/y", "J%C3%B6rg", "a+b", "p.q~r"])
        vars(self).update(request)


def text(rng, most, pieces=PIECES):
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(1, most)))


def plain(rng, most=12):
    return text(rng, most, "abcXYZ019-_.")


def request(rng, body=True):
    """A method, a query in some spelling, perhaps a form or another body."""
    pairs = [(text(rng, 4), text(rng, 6) if rng.random() < 0.8 else "") for _ in range(rng.randrange(4))]
    pairs += rng.sample(pairs, rng.randrange(len(pairs) + 1))
    quote = rng.choice([urllib.parse.quote, urllib.parse.quote_plus, lambda one: urllib.parse.quote(one, safe="/")])
    query = "&".join(quote(name) + "=" + quote(value) for name, value in pairs)
    made = {"query": query, "method": rng.choice(["GET", "DELETE"])}
    if body and rng.random() < 0.6:
        made["method"] = rng.choice(["POST", "PUT", "PATCH"])
        if rng.random() < 0.5:
            made["form"] = [(text(rng, 4), text(rng, 6)) for _ in range(rng.randrange(1, 4))]
        else:
            made["raw"] = json.dumps({"a": text(rng, 9)}, ensure_ascii=False)
            made["headers"] = {"Content-Type": rng.choice(["application/json", "text/plain; charset=utf-8"])}
    return made


def basic(rng):
    name, password = text(rng, 6).replace(":", ""), text(rng, 9)
    yield Case("basic", rng, {"username": name, "password": password}, {"username": name, "password": password}, **request(rng))


def bearer(rng):
    token = plain(rng, 30)
    yield Case("bearer", rng, {"token": token}, {"token": token}, **request(rng))


def apikey(rng):
    name, value = plain(rng).strip(".-_") or "k", plain(rng, 30)
    place = rng.choice(["header", "query"])
    yield Case("apikey", rng, {"key": name, "value": value, "in": place}, {"name": name, "value": value, "in": place}, **request(rng))


def oauth1(rng):
    method = rng.choice(["HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "RSA-SHA1", "RSA-SHA256", "RSA-SHA512", "PLAINTEXT"])
    token = text(rng, 6).strip() if rng.random() < 0.7 else ""
    shared = {
        "consumer_key": text(rng, 6).strip() or "ck", "consumer_secret": text(rng, 9), "token": token,
        "token_secret": text(rng, 9) if token else "", "nonce": plain(rng), "timestamp": str(1_700_000_000 + rng.randrange(10**6)),
        "version": rng.choice(["1.0", "1.0", ""]), "signature_method": method, "private_key": PEM, "realm": plain(rng),
    }
    words = {"consumer_key": "consumerKey", "consumer_secret": "consumerSecret", "token": "token", "token_secret": "tokenSecret",
             "nonce": "nonce", "timestamp": "timestamp", "version": "version", "signature_method": "signatureMethod",
             "private_key": "privateKey", "realm": "realm"}
    postman, ours = {words[name]: value for name, value in shared.items()}, dict(shared)
    postman["addParamsToHeader"] = rng.random() < 0.6
    ours["add_to"] = "header" if postman["addParamsToHeader"] else "body_or_query"
    postman["addEmptyParamsToSign"] = ours["sign_empty_params"] = rng.random() < 0.3
    postman["includeBodyHash"] = ours["include_body_hash"] = rng.random() < 0.3
    if not ours["include_body_hash"] and rng.random() < 0.3:
        postman["callback"] = ours["callback"] = "https://cb.example/x?y=1"
        postman["verifier"] = ours["verifier"] = text(rng, 6).strip() or "v"
    ours["normalize_query"] = True
    yield Case("oauth1", rng, postman, ours, **request(rng))


def claims(rng):
    values = [lambda: rng.randrange(10**12), lambda: text(rng, 9), lambda: True, lambda: None, lambda: [1, "a", {"z": 0, "b": []}],
              lambda: rng.randrange(1, 99) + 0.5]
    # JavaScript moves members whose names are numbers to the front.
    return {"m" + plain(rng, 6): rng.choice(values)() for _ in range(rng.randrange(1, 6))}


def jwt(rng):
    algorithm = rng.choice(["HS256", "HS384", "HS512", "RS256", "RS384", "RS512"])
    payload, header = claims(rng), {"typ": "JWT", "h" + plain(rng, 6): text(rng, 6)}
    shared = {"algorithm": algorithm, "payload": rng.choice([payload, json.dumps(payload, indent=1)])}
    postman, ours = {**shared, "header": header}, {**shared, "headers": header}
    if algorithm.startswith("HS"):
        secret = text(rng, 40)
        if rng.random() < 0.3:
            secret = base64.b64encode(secret.encode()).decode()
            postman["isSecretBase64Encoded"] = ours["secret_base64"] = True
        postman["secret"] = ours["secret"] = secret
    else:
        postman["privateKey"] = ours["private_key"] = PEM
    if rng.random() < 0.3:
        postman |= {"addTokenTo": "queryParam", "queryParamKey": "jwt"}
        ours |= {"add_to": "query", "query_param": "jwt"}
    elif rng.random() < 0.5:
        postman["headerPrefix"] = ours["header_prefix"] = rng.choice(["", "JWT", "Token"])
    yield Case("jwt", rng, postman, ours, **request(rng))


def asap(rng):
    more = {"iat": 1_700_000_000, "jti": plain(rng), "exp": 1_700_003_600, **claims(rng)}
    if rng.random() < 0.3:
        more["sub"] = "someone"
    postman = {"alg": rng.choice(["RS256", "RS384", "RS512"]), "iss": "team/it", "aud": rng.choice(["one", ["one", "two"]]),
               "kid": "team/it/key-1", "privateKey": PEM, "claims": json.dumps(more), "exp": "60"}
    ours = {"algorithm": postman["alg"], "issuer": "team/it", "audience": postman["aud"], "key_id": "team/it/key-1",
            "private_key": PEM, "claims": more, "expiry": 60}
    if rng.random() < 0.5:
        postman["sub"] = ours["subject"] = "me"
    yield Case("asap", rng, postman, ours, **request(rng))


def digest(rng):
    # Postman cannot put a name beyond Latin-1 into a header.
    name, realm = (text(rng, 6, [piece for piece in PIECES if piece.isascii()]) for _ in range(2))
    shared = {"username": name, "password": text(rng, 9), "realm": realm, "nonce": plain(rng), "opaque": plain(rng),
              "algorithm": rng.choice(["MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256", "SHA-512-256-sess"])}
    postman = {**shared, "nonceCount": "0000000a", "clientNonce": "c0ffee", "disableRetryRequest": True}
    ours = {**shared, "nonce_count": "0000000a", "client_nonce": "c0ffee", "retry": False, "username_star": "never"}
    qop = rng.choice(["auth", "auth-int", None])
    if qop:
        postman["qop"] = ours["qop"] = qop
    yield Case("digest", rng, postman, ours, **request(rng))


def hawk(rng):
    shared = {"algorithm": rng.choice(["sha256", "sha1"]), "nonce": plain(rng), "timestamp": str(1_700_000_000 + rng.randrange(10**6))}
    postman, ours = {"authId": plain(rng), "authKey": text(rng, 9), **shared}, dict(shared)
    ours["id"], ours["key"] = postman["authId"], postman["authKey"]
    if rng.random() < 0.5:
        postman["extraData"] = ours["ext"] = text(rng, 9, ["a", "b", " ", "=", "-"]).strip() or "e"
    if rng.random() < 0.4:
        postman["app"] = ours["app"] = plain(rng)
        if rng.random() < 0.5:
            postman["delegation"] = ours["dlg"] = plain(rng)
    made = request(rng)
    if rng.random() < 0.5 and (made.get("raw") or made.get("form")):
        postman["includePayloadHash"] = ours["include_payload_hash"] = True
        made.setdefault("headers", {"Content-Type": FORM})
    yield Case("hawk", rng, postman, ours, **made)


def edgegrid(rng):
    postman = {"accessToken": plain(rng), "clientToken": plain(rng), "clientSecret": plain(rng, 30), "nonce": plain(rng),
               "timestamp": "20231114T22:13:20+0000"}
    ours = {"access_token": postman["accessToken"], "client_token": postman["clientToken"],
            "client_secret": postman["clientSecret"], "nonce": postman["nonce"], "timestamp": postman["timestamp"]}
    made = request(rng)
    if rng.random() < 0.5:
        made["headers"] = {**made.get("headers", {}), "X-A": " a   b ", "X-B": "b"}
        postman["headersToSign"], ours["headers_to_sign"] = "X-B, X-A", ["X-B", "X-A"]
    if rng.random() < 0.3:
        postman["baseURL"] = ours["base_url"] = "https://akab-host.luna.akamaiapis.net"
    yield Case("edgegrid", rng, postman, ours, **made)


def awsv4(rng):
    shared = {"region": rng.choice(["eu-west-1", "us-east-1"]), "service": rng.choice(["execute-api", "sqs", "es"])}
    postman, ours = {"accessKey": "AKIDEXAMPLE", "secretKey": plain(rng, 40), **shared}, dict(shared)
    ours["access_key"], ours["secret_key"] = postman["accessKey"], postman["secretKey"]
    if rng.random() < 0.3:
        postman["sessionToken"] = ours["session_token"] = plain(rng, 40)
    # Of a body Postman signs the hash as a header of its own; we sign its length.
    made = request(rng, body=False)
    if rng.random() < 0.5:
        made["headers"] = {"X-Amz-Target": "Table.Get", "Content-Type": "application/json"}
    yield Case("awsv4", rng, postman, ours, **made)


# Postman's name, ours, the cases.
KINDS = {"basic": ("basic", basic), "bearer": ("bearer", bearer), "apikey": ("api_key", apikey), "oauth1": ("oauth1", oauth1),
         "jwt": ("jwt", jwt), "asap": ("asap", asap), "digest": ("digest", digest), "hawk": ("hawk", hawk),
         "edgegrid": ("edgegrid", edgegrid), "awsv4": ("aws_sigv4", awsv4)}
COUNT = 40


def item(case, url, auth):
    """A request of a collection."""
    one = {"method": case.method, "url": url, "auth": auth,
           "header": [{"key": name, "value": value} for name, value in case.headers.items()]}
    if case.form is not None:
        one["body"] = {"mode": "urlencoded", "urlencoded": [{"key": name, "value": value} for name, value in case.form]}
    elif case.raw is not None:
        one["body"] = {"mode": "raw", "raw": case.raw}
    return {"name": url, "request": one, "protocolProfileBehavior": {"disableBodyPruning": True}}


def newman(folder, origin, items):
    """What the origin sees when Postman's runner sends these."""
    collection = {"info": {"name": "differential", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
                  "item": items}
    (folder / "collection.json").write_text(json.dumps(collection))
    origin.seen.clear()
    result = subprocess.run(["node", HERE / "node_modules/newman/bin/newman.js", "run", folder / "collection.json", "--color", "off"],
                            env={**CLEAN, "HOME": str(folder)}, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(origin.seen) == len(items), result.stdout
    return list(origin.seen)


def replay(proxy, origin, bare, case):
    """The bare request, byte for byte as Postman sent it, through the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    connection.putrequest(bare["method"], origin.base + bare["path"], skip_accept_encoding=True)
    kept = {name.lower() for name in case.headers} | {"content-type"}
    for name, value in bare["headers"]:
        if name.lower() in kept:
            connection.putheader(name, value)
    if bare["body"] or bare["method"] in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(len(bare["body"])))
    connection.endheaders(bare["body"] or None)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, answer.status
    return origin.seen[-1]


def explained(proxy, origin, bare, case, date):
    """What would leave at the time at which Postman signed, for a scheme without a fixed time."""
    at = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").strftime("%Y-%m-%dT%H:%M:%SZ")
    data = proxy.folder / "body"
    data.write_bytes(bare["body"])
    kept = {name.lower() for name in case.headers}
    headers = [arg for name, value in bare["headers"] if name.lower() in kept for arg in ("-H", f"{name}: {value}")]
    body = ["--data", f"@{data}"] if bare["body"] else []
    result = proxy.command("explain", bare["method"], origin.base + bare["path"], *headers, *body, "--at", at, "--json",
                           "--show-secrets")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    return {"path": said["request"]["target"], "headers": said["request"]["headers"], "body": bare["body"]}


def field(seen, name):
    return [value for key, value in seen["headers"] if key.lower() == name]


def parameters(value):
    """`name=value` pairs without quotes, in any order."""
    pairs = re.findall(r'([\w-]+)="?((?:[^"\\,]|\\.|(?<=").)*?)"?(?:, |$)', value.split(" ", 1)[1])
    return dict(pairs)


def credential(kind, seen, key=None):
    """The credential as far as it has to be the same."""
    values = field(seen, "authorization")
    if kind == "digest":
        said = [parameters(value) for value in values]
        for one in said:
            if "qop" not in one:
                one.pop("cnonce", None)
                one.pop("nc", None)
        return said
    if kind == "apikey":
        return field(seen, key) if key else [seen["path"]]
    if kind == "jwt" and not values:
        return [seen["path"]]
    if kind == "oauth1" and not values:
        return [seen["path"], seen["body"]]
    if kind == "awsv4":
        names = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"]
        return values, [field(seen, name) for name in names]
    return values


def available(proxy, origin, kind):
    """Whether this build has the scheme."""
    name, cases = KINDS[kind]
    auth = {"type": name, **next(cases(random.Random(0))).ours}
    check = proxy(json.dumps({"version": 1, "rules": [{"name": "One", "host": origin.base, "auth": auth}]})).command("check")
    if "not available in this version" in check.stdout + check.stderr:
        pytest.skip(f"{name} is not in this build")
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_postman_sends(tmp_path, origins, proxy, kind):
    need("node")
    origin = origins(tls=False)
    available(proxy, origin, kind)
    name, generate = KINDS[kind]
    rng = random.Random(kind)
    cases = [case for _ in range(COUNT) for case in generate(rng)]
    items, rules = [], []
    for at, case in enumerate(cases):
        url = f"{origin.base}/case/{at}{case.tail}" + (f"?{case.query}" if case.query else "")
        auth = {"type": kind, kind: [{"key": key, "value": value, "type": "any"} for key, value in case.postman.items()]}
        items += [item(case, url, auth), item(case, url, {"type": "noauth"})]
        ours = json.loads(json.dumps(case.ours).replace("${", "$${"))
        rules.append({"name": f"Case {at}", "host": origin.base, "path": f"/case/{at}/**", "auth": {"type": name, **ours}})
    sent = newman(tmp_path, origin, items)
    ours = proxy(json.dumps({"version": 1, "rules": rules}))
    if kind != "awsv4":
        ours.start()
    for at, case in enumerate(cases):
        theirs, bare = sent[2 * at], sent[2 * at + 1]
        if kind == "awsv4":
            seen = explained(ours, origin, bare, case, field(theirs, "x-amz-date")[0])
        else:
            seen = replay(ours, origin, bare, case)
        told = f"case {at}: {case.postman}\n{theirs}\n{seen}"
        assert seen["path"] == theirs["path"], told
        assert seen["body"] == theirs["body"], told
        key = case.ours["name"].lower() if kind == "apikey" and case.ours["in"] == "header" else None
        assert credential(kind, seen, key) == credential(kind, theirs, key) != [], told
