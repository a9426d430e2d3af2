"""Headless Chromium: a page with its parts, and a page of another site that tries to use a rule."""

import base64
import hashlib
import json
import shutil
import subprocess

import pytest
from conftest import bearer, canary
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def spki(pem):
    key = x509.load_pem_x509_certificate(pem.read_bytes()).public_key()
    return base64.b64encode(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


def dump_dom(proxy, url, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("chromium is not installed")
    result = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
         f"--proxy-server={proxy.url}", "--proxy-bypass-list=<-loopback>",
         f"--ignore-certificate-errors-spki-list={spki(proxy.ca)}", "--virtual-time-budget=15000", "--dump-dom", url],
        env=proxy.env, capture_output=True, text=True, timeout=120)
    return result.stdout


PAGE = b"""<!doctype html><link rel=stylesheet href=/a.css><body><p id=out>waiting</p><img src=/a.svg id=pic>
<script src=/a.js></script></body>"""
SCRIPT = b"""Promise.all(['/one', '/two', '/three'].map(p => fetch(p).then(r => r.json())))
.then(all => { document.getElementById('out').textContent = 'loaded ' + all.length + ' ' +
getComputedStyle(document.body).color })"""


def test_a_page_with_its_parts(origins, proxy, tmp_path):
    origin, secret = origins(), canary()
    serve = lambda body, kind: lambda handler, seen: handler.answer(200, body, {"content-type": kind})
    origin.pages.update({
        "/": serve(PAGE, "text/html"), "/a.js": serve(SCRIPT, "text/javascript"),
        "/a.css": serve(b"body { color: rgb(1, 2, 3) }", "text/css"),
        "/a.svg": serve(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")})
    one = proxy(bearer(origin, secret), canaries=[secret]).start("trace")
    shown = dump_dom(one, origin.url("/"), tmp_path)
    assert "loaded 3 rgb(1, 2, 3)" in shown, shown
    paths = {seen["path"] for seen in origin.seen}
    assert {"/", "/a.css", "/a.js", "/a.svg", "/one", "/two", "/three"} <= paths
    assert set(origin.values("authorization")) == {f"Bearer {secret}"}


def test_an_evil_page_gets_nothing(origins, proxy, tmp_path):
    """The API answers any origin; the browser thinks the call is anonymous; so it must be."""
    api, evil, secret = origins(), origins(ip="127.0.0.2"), canary()
    api.pages["/me"] = lambda handler, seen: handler.answer(
        200, json.dumps(dict(seen["headers"])).encode(), {"access-control-allow-origin": "*", "content-type": "application/json"})
    evil.pages["/"] = lambda handler, seen: handler.answer(200, (
        "<!doctype html><p id=out>waiting</p><script>fetch('%s').then(r => r.text()).then("
        "t => out.textContent = 'got ' + t, e => out.textContent = 'failed ' + e)</script>" % api.url("/me")
    ).encode(), {"content-type": "text/html"})
    config = bearer(api, secret) + f"  - {{name: Evil, host: \"{evil.base}\", auth: none}}\n"
    one = proxy(config, canaries=[secret]).start("trace")
    shown = dump_dom(one, evil.url("/"), tmp_path)
    assert secret not in shown
    assert "failed" in shown or "cross-site" in shown or "got" in shown, shown
    assert not api.values("authorization")
