"""Templates judged by others: Azurite and s3rver check every request, ccxt signs as the exchanges want it, and the
libraries of webhook senders verify what arrives."""

import http.client
import json
import re
import subprocess
import time
import urllib.parse

import ccxt
import pytest
import standardwebhooks
import stripe
from conftest import CLEAN, ROOT, canary, free_port, need, wait_for_port

EXAMPLES = ROOT / "config/examples"
MODULES = ROOT / "tests/clients/node_modules"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def curl(proxy, *args):
    result = subprocess.run(["curl", "-sS", "-o", "-", "-w", "\n%{http_code}", "-x", proxy.url, *args], env=proxy.env,
                            capture_output=True, text=True, check=True)
    body, status = result.stdout.rsplit("\n", 1)
    return int(status), body


def explain(proxy, method, url, headers=(), data=None, at=None, nonce=None):
    """The request as it would leave, with the signature in it."""
    args = ["explain", method, url, "--json", "--show-secrets"]
    for name, value in headers:
        args += ["-H", f"{name}: {value}"]
    args += ["--data", data] if data is not None else []
    args += ["--at", at] if at else []
    args += ["--nonce", nonce] if nonce else []
    result = proxy.command(*args)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["request"]


def send(request, port, target=None, body=None):
    """Sends an explained request past the proxy, changed or not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {name: value for name, value in request["headers"]}
    connection.request(request["method"], target or request["target"], body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def example(name, **replace):
    text = (EXAMPLES / name).read_text()
    for old, new in replace.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def node(tmp_path):
    need("node")
    started = []

    def start(port, *args):
        process = subprocess.Popen(["node", *map(str, args)], env=CLEAN, cwd=tmp_path, stdout=subprocess.DEVNULL)
        started.append(process)
        wait_for_port(port, process)
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait()


@pytest.fixture
def azurite(node):
    port = free_port()
    return node(port, MODULES / "azurite/dist/src/blob/main.js", "--blobHost", "127.0.0.1", "--blobPort", port,
                "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry")


def azure(port, key=AZURE_KEY):
    return example("hmac-azure-storage.yaml").replace("127.0.0.1:10000", f"127.0.0.1:{port}").replace(AZURE_KEY, key)


def test_azure_storage(azurite, proxy):
    one = proxy(azure(azurite), canaries=[AZURE_KEY]).start("trace")
    base = f"http://127.0.0.1:{azurite}/devstoreaccount1"
    assert curl(one, "-X", "PUT", f"{base}/box?restype=container")[0] == 201
    upload = ["-X", "PUT", "--data-binary", "hello world", "-H", "x-ms-blob-type: BlockBlob", "-H", "content-type: text/plain",
              "-H", "x-ms-meta-b:  two   words "]
    assert curl(one, *upload, f"{base}/box/a%20b/%C3%BC.txt")[0] == 201
    assert curl(one, f"{base}/box/a%20b/%C3%BC.txt") == (200, "hello world")
    assert curl(one, "-H", "range: bytes=0-4", f"{base}/box/a%20b/%C3%BC.txt") == (206, "hello")
    status, listing = curl(one, f"{base}/box?comp=list&restype=container&prefix=a%20b/&include=metadata")
    assert status == 200 and "ü.txt" in listing and "two   words" in listing
    assert curl(one, "-X", "PUT", "--data-binary", "", "-H", "x-ms-blob-type: BlockBlob", f"{base}/box/empty")[0] == 201
    # Without a length beforehand the body is read first.
    chunked = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", one.url, "-T", "-", "-H",
                              "x-ms-blob-type: BlockBlob", f"{base}/box/streamed"], input="streamed", env=one.env,
                             capture_output=True, text=True, check=True)
    assert chunked.stdout == "201"
    # An SDK that has another key: what it signed is replaced.
    status, _ = curl(one, "-H", "authorization: SharedKey devstoreaccount1:d3Jvbmc=", "-H",
                     "x-ms-date: Mon, 01 Jan 2001 00:00:00 GMT", f"{base}/box?restype=container")
    assert status == 200


def test_azurite_refuses_what_is_wrong(azurite, proxy):
    base = f"http://127.0.0.1:{azurite}/devstoreaccount1"
    right = proxy(azure(azurite)).start()
    assert curl(right, "-X", "PUT", f"{base}/box?restype=container")[0] == 201
    request = explain(right, "GET", f"{base}/box?restype=container")
    assert send(request, azurite) == 200
    assert send(request, azurite, target=request["target"] + "&comp=acl") == 403, "a changed query"
    wrong = proxy(azure(azurite, "d3JvbmcgLSB3cm9uZyAtIHdyb25n")).start()
    assert curl(wrong, f"{base}/box?restype=container")[0] == 403
    bare = proxy("version: 1\nrules: []\n").start()
    assert curl(bare, f"{base}/box?restype=container")[0] in (401, 403, 404)


@pytest.fixture
def s3(node, tmp_path):
    port = free_port()
    (tmp_path / "s3").mkdir()
    return node(port, MODULES / "s3rver/bin/s3rver.js", "-d", tmp_path / "s3", "-a", "127.0.0.1", "-p", port, "--silent",
                "--configure-bucket", "box")


def sigv2(port, credential, key="S3RVER"):
    text = example("hmac-aws-sigv2.yaml").replace("S3_SECRET_KEY:-wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", f"S3_SECRET_KEY:-{key}")
    text = text.replace("S3_ACCESS_KEY:-AKIAIOSFODNN7EXAMPLE", "S3_ACCESS_KEY:-S3RVER")
    return text[:text.index("rules:")] + f"rules: [{{name: S3, host: \"http://127.0.0.1:{port}\", auth: {credential}}}]\n"


@pytest.mark.parametrize("credential", ["s3", "s3-query"])
def test_aws_signature_version_2(s3, proxy, credential):
    one = proxy(sigv2(s3, credential)).start()
    url = f"http://127.0.0.1:{s3}/box/a%20b.txt"
    assert curl(one, "-X", "PUT", "--data-binary", "hello", "-H", "content-type: text/plain", "-H", "x-amz-meta-z: 1", "-H",
                "x-amz-meta-a: 2", url)[0] == 200
    assert curl(one, url) == (200, "hello")
    assert curl(one, f"{url}?response-cache-control=no-cache&foo=bar") == (200, "hello")
    assert curl(one, f"{url}?acl")[0] == 200
    assert curl(one, f"http://127.0.0.1:{s3}/box?prefix=a")[0] == 200
    request = explain(one, "GET", url)
    assert send(request, s3) == 200
    assert send(request, s3, target=request["target"].replace("a%20b", "a%20c")) == 403, "another object"
    old = explain(one, "GET", url, at="2020-01-01T00:00:00Z")
    assert send(old, s3) == 403, "an old time"
    wrong = proxy(sigv2(s3, credential, "another-secret")).start()
    assert curl(wrong, url)[0] == 403


AT = "2024-05-06T07:08:09.123Z"
AT_MS = 1714979289123


def exchange(kind, ms):
    keys = {"apiKey": "example", "secret": "example-secret", "password": "example"}
    if kind in (ccxt.coinbaseexchange, ccxt.kraken):
        keys["secret"] = "ZXhhbXBsZS1rZXktb2YtY29pbmJhc2UtZXhjaGFuZ2U="
    one = kind(keys)
    now = AT_MS if ms else AT_MS // 1000
    one.nonce = lambda: now
    one.milliseconds = lambda: AT_MS
    one.seconds = lambda: AT_MS // 1000
    return one


@pytest.mark.parametrize(("kind", "ms", "call", "compared"), [
    (ccxt.binance, True, ("account", "private", "GET", {"recvWindow": 5000}), []),
    (ccxt.coinbaseexchange, False, ("orders", "private", "POST", {"size": "0.01", "side": "buy", "product_id": "BTC-USD"}),
     ["cb-access-sign", "cb-access-timestamp"]),
    (ccxt.coinbaseexchange, False, ("orders", "private", "GET", {"status": "open"}), ["cb-access-sign"]),
    (ccxt.bybit, True, ("v5/order/create", "private", "POST", {"symbol": "BTCUSDT", "side": "Buy"}),
     ["x-bapi-sign", "x-bapi-timestamp", "x-bapi-recv-window", "x-bapi-api-key"]),
    (ccxt.bybit, True, ("v5/order/realtime", "private", "GET", {"symbol": "BTCUSDT"}), ["x-bapi-sign"]),
    (ccxt.okx, True, ("trade/order", "private", "POST", {"instId": "BTC-USDT", "sz": "1"}), ["ok-access-sign", "ok-access-timestamp"]),
    (ccxt.okx, True, ("account/balance", "private", "GET", {"ccy": "BTC"}), ["ok-access-sign"]),
], ids=str)
def test_exchanges_as_ccxt_signs(proxy, kind, ms, call, compared):
    signed = exchange(kind, ms).sign(*call)
    config = re.sub(r"BINANCE_SECRET:-\w+", "BINANCE_SECRET:-example-secret", example("hmac-exchanges.yaml"))
    one = proxy(config)
    url = signed["url"]
    if kind is ccxt.binance:
        # The client sends what is its own; time and signature are ours, at the same places.
        url = re.sub(r"&?(timestamp|signature)=[^&]*", "", url).replace("?&", "?")
    ours = explain(one, signed["method"], url, data=signed["body"], at=AT,
                   headers=[("content-type", "application/json")] if signed["body"] else [])
    if kind is ccxt.binance:
        theirs = urllib.parse.parse_qs(urllib.parse.urlsplit(signed["url"]).query)
        mine = urllib.parse.parse_qs(urllib.parse.urlsplit(ours["target"]).query)
        assert mine["timestamp"] == theirs["timestamp"] == [str(AT_MS)]
        # ccxt puts the time first, which is another text to sign: it is signed anew over our order.
        text = ours["target"].split("?", 1)[1].rsplit("&signature=", 1)[0]
        again = ccxt.Exchange.hmac(text.encode(), b"example-secret", __import__("hashlib").sha256)
        assert mine["signature"] == [again]
    headers = dict(ours["headers"])
    theirs = {name.lower(): value for name, value in (signed["headers"] or {}).items()}
    for name in compared:
        assert headers[name] == str(theirs[name]), name


def test_kraken_as_ccxt_signs(proxy):
    one = proxy(example("hmac-exchanges.yaml", **{"KRAKEN_SECRET:-kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==":
                                                  "KRAKEN_SECRET:-ZXhhbXBsZS1rZXktb2YtY29pbmJhc2UtZXhjaGFuZ2U="}))
    # Without fields of its own the two bodies are the same: the nonce alone.
    signed = exchange(ccxt.kraken, True).sign("Balance", "private", "POST", {})
    ours = explain(one, "POST", signed["url"], nonce=str(AT_MS))
    assert dict(ours["headers"])["api-sign"] == signed["headers"]["API-Sign"]
    assert dict(ours["headers"])["content-type"] == "application/x-www-form-urlencoded"


def webhooks(origin):
    return example("hmac-webhooks.yaml").replace("http://127.0.0.1:9000", origin.base)


def header(seen, name):
    return next((value for key, value in seen["headers"] if key.lower() == name), None)


def test_stripe_accepts_its_webhooks(origins, proxy):
    origin, secret = origins(tls=False), canary("whsec")
    one = proxy(webhooks(origin).replace("STRIPE_WEBHOOK_SECRET:-whsec_example", f"STRIPE_WEBHOOK_SECRET:-{secret}"),
                canaries=[secret]).start("trace")
    body = '{"id": "evt_1", "object": "event", "text": "\u00fc"}'
    assert curl(one, "--data-binary", body, f"{origin.base}/hooks/stripe")[0] == 200
    seen = origin.seen[-1]
    signature = header(seen, "stripe-signature")
    event = stripe.Webhook.construct_event(seen["body"], signature, secret)
    assert event["id"] == "evt_1"
    for tampered in [(seen["body"] + b" ", signature, secret), (seen["body"], signature, "another"),
                     (seen["body"], signature.replace("t=1", "t=2"), secret)]:
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(*tampered)
    old = explain(one, "POST", f"{origin.base}/hooks/stripe", data=body, at="2020-01-01T00:00:00Z")
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.Webhook.construct_event(body.encode(), dict(old["headers"])["stripe-signature"], secret)


def test_standard_webhooks_are_verified(origins, proxy):
    origin = origins(tls=False)
    one = proxy(webhooks(origin)).start()
    judge = standardwebhooks.Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert curl(one, "--data-binary", '{"test": 1}', f"{origin.base}/hooks/standard")[0] == 200
    seen = origin.seen[-1]
    headers = {name: header(seen, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert judge.verify(seen["body"], headers) == {"test": 1}
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        judge.verify(b'{"test": 2}', headers)
    old = explain(one, "POST", f"{origin.base}/hooks/standard", data='{"test": 1}', at="2020-01-01T00:00:00Z")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        judge.verify(b'{"test": 1}', dict(old["headers"]))
