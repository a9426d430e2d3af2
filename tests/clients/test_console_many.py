"""The console page with five thousand rows, and with a proxy that goes away."""

import http.client
import json
import shutil
import subprocess

import pytest
from conftest import free_port, need
from test_console import HERE, drive
from test_console_hostile import kept


def test_five_thousand_rows_scroll(origins, proxy):
    origin = origins(tls=False)
    one = proxy("version: 1\nrules: []\n").start()
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
    for number in range(5000):
        connection.request("GET", f"{origin.base}/n{number}?page={number % 17}")
        connection.getresponse().read()
    connection.close()
    kept(one, 5000)
    seen = drive(one, "console_many.mjs")
    print(json.dumps(seen["scroll"]), "filter", seen["filterMs"], "ms")
    assert seen["errors"] == [] and seen["count"] >= 5000
    assert seen["drawn"] < 120, "only what is near the screen is drawn"
    scroll = seen["scroll"]
    assert scroll["blank"] == 0, "a hole in the list"
    # Two cores, no graphics card, a debug build beside it: generous, but a list that is drawn whole takes seconds.
    assert scroll["median"] < 50 and scroll["longestTask"] < 250, scroll
    assert "/n4242" in seen["filtered"] and seen["filterMs"] < 5000


def test_a_stream_that_breaks_is_taken_up_again(proxy):
    need("node")
    browser = shutil.which("chromium")
    if not browser:
        pytest.skip("chromium is not installed")
    ports = [free_port(), free_port()]
    args = ["--listen", f"127.0.0.1:{ports[0]}", "--console", f"127.0.0.1:{ports[1]}"]
    one = proxy("version: 1\nrules: []\n", args=args)
    one.start()

    def ask(path):
        subprocess.run(["curl", "-sS", "-o", "/dev/null", "-x", one.url, f"http://127.0.0.1:9{path}"], env=one.env)

    ask("/first")
    kept(one, 1)
    address = one.command("open", "--print").stdout.strip()
    page = subprocess.Popen(["node", HERE / "console_stream.mjs", address, one.url], cwd=HERE, text=True, env={**one.env, "CHROMIUM": browser},
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said = page.stderr.readline()
        assert said == "ready\n", said + page.communicate(timeout=60)[1]
        one.stop()
        one.start()
        page.stdin.write("gone\n")
        page.stdin.flush()
        said = page.stderr.readline()
        assert said == "waiting\n", said + page.communicate(timeout=60)[1]
        ask("/anew")
        page.stdin.write(one.command("open", "--print").stdout.strip() + "\n")
        page.stdin.flush()
        text, errors = page.communicate(timeout=90)
        assert page.returncode == 0, errors
    finally:
        page.kill()
    seen = json.loads(text)
    assert "trying again" in seen["lost"].lower() and seen["readable"] == 1, seen
    assert seen["once"] == 1, "what happened meanwhile came afterwards, once"
    assert seen["old"] == 0, "what the new proxy does not know is gone"
