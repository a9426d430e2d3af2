"""Tools of other languages, wired by `countersign run` alone."""

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import CLEAN, bearer, canary, free_port, need, wait_for_port

HERE = pathlib.Path(__file__).parent

PYTHON = {
    "urllib": "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1]).status)",
    "requests": "import requests, sys; print(requests.post(sys.argv[1], data=b'x' * 100000).status_code)",
    "httpx": "import httpx, sys; print(httpx.get(sys.argv[1]).status_code)",
    "httpx_h2": "import httpx, sys\nwith httpx.Client(http2=True) as c:\n"
                "    r = c.get(sys.argv[1]); assert r.http_version == 'HTTP/2', r.http_version; print(r.status_code)",
    "aiohttp": "import aiohttp, asyncio, sys\nasync def main():\n"
               "    async with aiohttp.ClientSession(trust_env=True) as s:\n"
               "        async with s.get(sys.argv[1]) as r:\n            print(r.status)\nasyncio.run(main())",
}

NODE = {
    "fetch": "fetch(process.argv[1]).then(async r => { await r.text(); console.log(r.status) })",
    "fetch_post": "fetch(process.argv[1], {method: 'POST', body: 'x'.repeat(100000)}).then(r => console.log(r.status))",
    "https": "require('node:https').get(process.argv[1], r => { r.resume(); console.log(r.statusCode) })",
}


@pytest.fixture
def scene(origins, proxy):
    """An origin, its secret, and a proxy that is not started: `run` brings its own."""
    origin, secret = origins(), canary()
    return origin, proxy(bearer(origin, secret), canaries=[secret]), f"Bearer {secret}"


@pytest.mark.parametrize("name", PYTHON)
def test_python(scene, name):
    origin, one, expected = scene
    assert one.run(sys.executable, "-c", PYTHON[name], origin.url()).strip() == "200"
    assert origin.values("authorization") == [expected]


@pytest.mark.parametrize("name", NODE)
def test_node(scene, name):
    need("node")
    origin, one, expected = scene
    assert one.run("node", "-e", NODE[name], origin.url()).strip() == "200"
    assert origin.values("authorization") == [expected]


def test_pip(scene, tmp_path):
    """pip finds a wheel in an index, downloads and installs it."""
    origin, one, expected = scene
    wheel, name = io.BytesIO(), "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing.py", "answer = 42\n")
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    origin.pages["/simple/thing/"] = lambda handler, seen: handler.answer(
        200, f"<a href='/files/{name}'>{name}</a>".encode(), {"content-type": "text/html"})
    origin.pages[f"/files/{name}"] = lambda handler, seen: handler.answer(200, wheel.getvalue())
    one.run(sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--retries", "0",
            "--no-cache-dir", "--index-url", origin.url("/simple"), "thing", "--target", tmp_path / "installed")
    assert (tmp_path / "installed/thing.py").read_text() == "answer = 42\n"
    assert origin.values("authorization") == [expected] * len(origin.seen)


def test_npm(scene, tmp_path):
    """npm reads a package document, downloads the archive that it names and unpacks it."""
    need("npm")
    origin, one, expected = scene
    # npm's agent gives TLS no name to check where the host is an address.
    (one.folder / "countersign.yaml").write_text(
        bearer(origin, expected.removeprefix("Bearer ")).replace("127.0.0.1", "localhost"))
    base, archive = f"https://localhost:{origin.port}", io.BytesIO()
    package = b'{"name": "thing", "version": "1.0.0"}'
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(package)
        tar.addfile(entry, io.BytesIO(package))
    document = {"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {
        "name": "thing", "version": "1.0.0", "dist": {"tarball": f"{base}/thing-1.0.0.tgz"}}}}
    origin.pages["/thing"] = lambda handler, seen: handler.answer(
        200, json.dumps(document).encode(), {"content-type": "application/json"})
    origin.pages["/thing-1.0.0.tgz"] = lambda handler, seen: handler.answer(200, archive.getvalue())
    project = tmp_path / "project"
    project.mkdir()
    one.run("npm", "install", "thing", "--registry", base, "--cache", tmp_path / "cache", "--no-update-notifier", "--no-audit",
            "--no-fund", "--fetch-retries", "0", cwd=project)
    assert (project / "node_modules/thing/package.json").read_bytes() == package
    assert origin.values("authorization") == [expected] * len(origin.seen)


def test_ruby(scene):
    need("ruby")
    origin, one, expected = scene
    # Ruby never asks a proxy for what begins with 127; this leads to the same place.
    (one.folder / "countersign.yaml").write_text(
        bearer(origin, expected.removeprefix("Bearer ")).replace("127.0.0.1", "0.0.0.0"))
    script = "require 'net/http'; require 'uri'; puts Net::HTTP.get_response(URI(ARGV[0])).code"
    assert one.run("ruby", "-e", script, f"https://0.0.0.0:{origin.port}/").strip() == "200"
    assert origin.values("authorization") == [expected]


def test_php_curl(scene):
    need("php")
    origin, one, expected = scene
    if "curl" not in one.run("php", "-m"):
        pytest.skip("php-curl is not installed")
    script = ("$c = curl_init($argv[1]); curl_setopt($c, CURLOPT_RETURNTRANSFER, 1); "
              "if (curl_exec($c) === false) die(curl_error($c)); echo curl_getinfo($c, CURLINFO_HTTP_CODE);")
    assert one.run("php", "-r", script, origin.url()).strip() == "200"
    assert origin.values("authorization") == [expected]


def test_perl(scene):
    need("perl")
    origin, one, expected = scene
    try:
        one.run("perl", "-MLWP::UserAgent", "-MLWP::Protocol::https", "-e", "1")
    except AssertionError:
        pytest.skip("LWP with https is not installed")
    script = "my $r = LWP::UserAgent->new->get($ARGV[0]); print $r->is_success ? 200 : $r->status_line"
    assert one.run("perl", "-MLWP::UserAgent", "-e", script, origin.url()) == "200"
    assert origin.values("authorization") == [expected]


def test_go(scene, tmp_path):
    need("go")
    origin, one, expected = scene
    (tmp_path / "main.go").write_text(
        'package main\nimport ("fmt"; "net/http"; "os")\nfunc main() { r, err := http.Get(os.Args[1])\n'
        'if err != nil { fmt.Println(err); os.Exit(1) }\nfmt.Println(r.StatusCode) }\n')
    # Go leaves out `localhost` and loopback addresses, but compares the name as it is written.
    config = bearer(origin, expected.removeprefix("Bearer ")).replace("https://127.0.0.1", "https://localhost")
    (one.folder / "countersign.yaml").write_text(config)
    env = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path"), "GO111MODULE": "off"}
    url = f"https://LOCALHOST:{origin.port}/"
    assert one.run("go", "run", tmp_path / "main.go", url, env=env, timeout=300).strip() == "200"
    assert origin.values("authorization") == [expected]


def test_java(scene, tmp_path):
    need("java")
    origin, one, expected = scene
    (tmp_path / "Get.java").write_text(
        "import java.net.*; public class Get { public static void main(String[] a) throws Exception {\n"
        "System.out.println(((HttpURLConnection) new URL(a[0]).openConnection()).getResponseCode()); } }\n")
    assert "200" in one.run("java", tmp_path / "Get.java", origin.url(), timeout=120)
    assert origin.values("authorization") == [expected]


def test_cargo(scene, tmp_path):
    need("cargo")
    origin, one, expected = scene
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lib.rs").touch()
    (tmp_path / "Cargo.toml").write_text(
        '[package]\nname = "x"\nversion = "0.1.0"\n[dependencies]\nthing = {version = "1", registry = "mine"}\n')
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    env = {"CARGO_REGISTRIES_MINE_INDEX": f"sparse+{origin.url('/index/')}", "CARGO_HOME": str(tmp_path / "home"),
           "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home.parent / ".rustup")), "CARGO_NET_RETRY": "0"}
    origin.pages["/index/config.json"] = lambda handler, seen: handler.answer(200, b'{"dl": "https://127.0.0.1:1/"}')
    origin.pages["/index/th/in/thing"] = lambda handler, seen: handler.answer(404, b"")
    one.run("cargo", "generate-lockfile", cwd=tmp_path, env=env, code=101)
    assert origin.values("authorization") and set(origin.values("authorization")) == {expected}


def test_websocket_clients(proxy, authority, server_tls, tmp_path):
    need("node")
    secret = canary()
    server = HERE / "ws_server.py"
    port = free_port()
    cert = tmp_path / "server.pem"
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(cert))
    process = subprocess.Popen([sys.executable, server, str(port), cert, secret], env=CLEAN)
    try:
        wait_for_port(port, process)
        one = proxy(f"version: 1\nrules:\n  - {{name: W, host: [\"https://127.0.0.1:{port}\", \"https://localhost:{port}\"], "
                    f"auth: {{type: bearer, token: {secret}}}}}\n", canaries=[secret])
        python = ("import asyncio, sys, websockets\nasync def main():\n"
                  "    async with websockets.connect(sys.argv[1], proxy=True, max_size=None) as ws:\n"
                  "        big = 'x' * 1000000\n        await ws.send(big); assert await ws.recv() == big\n"
                  "        await ws.send(b'bytes'); print((await ws.recv()).decode())\nasyncio.run(main())")
        assert one.run(sys.executable, "-c", python, f"wss://127.0.0.1:{port}/").strip() == "bytes"
        node = ("const { HttpsProxyAgent } = require('https-proxy-agent');const WebSocket = require('ws');"
                "const ws = new WebSocket(process.argv[1], {agent: new HttpsProxyAgent(process.env.HTTPS_PROXY)});"
                "ws.on('open', () => ws.send('hello')); ws.on('message', m => { console.log(String(m)); ws.close() })")
        # This agent gives TLS no name to check where the host is an address.
        assert one.run("node", "-e", node, f"wss://localhost:{port}/", cwd=HERE).strip() == "hello"
    finally:
        process.terminate()
        process.wait()
