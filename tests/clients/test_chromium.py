"""Headless Chromium: a page with its parts, and a page of another site that tries to use a rule."""

import shutil
import subprocess

import pytest
from conftest import bearer, canary, need


def dump_dom(proxy, url):
    """What the page looks like in the end, in a browser whose user has imported our authority."""
    need("certutil")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("chromium is not installed")
    trusted = proxy.folder / ".pki/nssdb"
    trusted.mkdir(parents=True)
    for command in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "countersign", "-i", proxy.ca]):
        subprocess.run(["certutil", "-d", f"sql:{trusted}", *command], env=proxy.env, check=True)
    result = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={proxy.folder / 'profile'}",
         f"--proxy-server={proxy.url}", "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=15000", "--dump-dom", url],
        env=proxy.env, capture_output=True, text=True, timeout=120)
    assert result.stdout, result.stderr
    return result.stdout


PAGE = b"""<!doctype html><link rel=stylesheet href=/a.css><body><p id=out>waiting</p><img src=/a.svg id=pic>
<script src=/a.js></script></body>"""
SCRIPT = b"""Promise.all(['/one', '/two', '/three'].map(p => fetch(p).then(r => r.json())))
.then(all => { document.getElementById('out').textContent = 'loaded ' + all.length + ' ' +
getComputedStyle(document.body).color })"""


def test_a_page_with_its_parts(origins, proxy):
    origin, secret = origins(), canary()
    serve = lambda body, kind: lambda handler, seen: handler.answer(200, body, {"content-type": kind})
    origin.pages.update({
        "/": serve(PAGE, "text/html"), "/a.js": serve(SCRIPT, "text/javascript"),
        "/a.css": serve(b"body { color: rgb(1, 2, 3) }", "text/css"),
        "/a.svg": serve(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")})
    one = proxy(bearer(origin, secret), canaries=[secret]).start("trace")
    shown = dump_dom(one, origin.url("/"))
    assert "loaded 3 rgb(1, 2, 3)" in shown, shown
    paths = {seen["path"] for seen in origin.seen}
    assert {"/", "/a.css", "/a.js", "/a.svg", "/one", "/two", "/three"} <= paths
    assert set(origin.values("authorization")) == {f"Bearer {secret}"}


def evil_page(handler, url):
    handler.answer(200, (
        "<!doctype html><p id=out>waiting</p><img src='%s?image'><script>fetch('%s').then(r => r.text()).then("
        "t => out.textContent = 'got ' + t, e => out.textContent = 'failed ' + e)</script>" % (url, url)
    ).encode(), {"content-type": "text/html"})


@pytest.mark.parametrize("listed", [False, True])
def test_a_page_of_another_site(origins, proxy, listed):
    """The API answers any origin, since its calls are thought to be anonymous; only `origins` of the rule may allow it."""
    api, evil, secret = origins(), origins(ip="127.0.0.2"), canary()
    api.pages["/me"] = lambda handler, seen: handler.answer(
        200, b"the account", {"access-control-allow-origin": "*", "content-type": "text/plain"})
    evil.pages["/"] = lambda handler, seen: evil_page(handler, api.url("/me"))
    config = bearer(api, secret, f", origins: [\"{evil.base}\"]" if listed else "")
    config += f"  - {{name: Evil, host: \"{evil.base}\", auth: none}}\n"
    one = proxy(config, canaries=[secret]).start("trace")
    shown = dump_dom(one, evil.url("/"))
    if listed:
        assert "got the account" in shown, shown
        assert f"Bearer {secret}" in api.values("authorization")
    else:
        assert "failed" in shown, shown
        assert not api.seen
        refused = [line for line in one.output().splitlines() if "/me" in line and "403" in line]
        assert any("?image" in line for line in refused) and any("?image" not in line for line in refused), one.output()
        assert "cross-site" in one.output()
