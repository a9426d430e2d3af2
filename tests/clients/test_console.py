"""The console page in headless Chromium: every view, hostile traffic, narrow and dark, and what a checker of
accessibility says."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import canary, need

HERE = pathlib.Path(__file__).parent
HOSTILE = b"<script>alert(1)</script><img src=x onerror=alert(2)>\x1b]52;c;ZXZpbA==\x07"


def test_the_page(origins, proxy, tmp_path):
    need("node")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("chromium is not installed")
    origin, secret = origins(tls=False), canary()
    origin.pages["/hostile"] = lambda handler, seen: handler.answer(
        200, HOSTILE, {"content-type": "text/html", "x-evil": "<img src=x onerror=alert(3)>"})
    origin.pages["/token"] = lambda handler, seen: handler.answer(
        200, json.dumps({"access_token": secret, "token_type": "Bearer", "expires_in": 3600}).encode(),
        {"content-type": "application/json"})
    one = proxy(f"""version: 1
credentials:
  robot: {{type: oauth2, grant: client_credentials, token_url: "{origin.url('/token')}", client_id: c, client_secret: {canary()}}}
rules:
  - {{name: Lab, host: "{origin.base}", auth: robot}}
""", canaries=[secret]).start()
    for path in ["/orders?page=2", "/hostile"]:
        subprocess.run(["curl", "-sS", "-x", one.url, origin.url(path)], check=True, capture_output=True, env=one.env)
    address = one.command("open", "--print").stdout.strip()
    shots = pathlib.Path(os.environ.get("COUNTERSIGN_SCREENSHOTS", tmp_path / "shots"))
    shots.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(["node", HERE / "console_page.mjs", address, str(shots), browser], cwd=HERE, env=one.env,
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    seen = json.loads(result.stdout)
    # The browser itself reports the one refused filter.
    errors = [error for error in seen["errors"] if "status of 400" not in error]
    assert not errors and seen["dialogs"] == 0 and seen["markup"] == 0, errors
    assert seen["rows"] >= 2
    assert "<script>alert(1)</script>" in seen["hostile"]
    assert "robot went along" in seen["auth"] and "Lab" in seen["auth"] and "authorization" in seen["auth"]
    assert secret not in json.dumps(seen)
    assert "HTTP/1.1" in seen["raw"] and "wait" in seen["timing"] and "Lab" in seen["rules"] and "robot" in seen["tokens"]
    assert "/hostile" in seen["filtered"] and seen["replayed"] == 2
    assert "did you mean `host:`" in seen["wrong"]
    assert {name: found for name, found in seen["axe"].items() if found} == {}
