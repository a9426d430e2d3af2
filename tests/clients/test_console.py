"""The console page in headless Chromium: every view, everything that it can do, and many rows."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import need
from stage import play, stage

HERE = pathlib.Path(__file__).parent


def shots(tmp_path):
    """Pictures are kept where `COUNTERSIGN_SCREENSHOTS` says."""
    folder = pathlib.Path(os.environ.get("COUNTERSIGN_SCREENSHOTS", tmp_path / "shots")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drive(one, script, *args, timeout=300):
    """Runs a script with the page's one-time address; gives what it saw."""
    need("node")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("chromium is not installed")
    address = one.command("open", "--print").stdout.strip()
    result = subprocess.run(["node", HERE / script, address, *map(str, args)], cwd=HERE, env={**one.env, "CHROMIUM": browser},
                            capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    seen = json.loads(result.stdout)
    assert seen["dialogs"] == 0 and seen["foreign"] == [] and seen["opened"] == 0, seen
    return seen


def test_every_view_narrow_and_wide_light_and_dark(origins, proxy, tmp_path):
    one, _ = stage(origins, proxy)
    play(one)
    seen = drive(one, "console_views.mjs", shots(tmp_path))
    assert seen["errors"] == [] and seen["violations"] == []
    assert {name: found for name, found in seen["axe"].items() if found} == {}
    assert seen["overflow"] == [], "something is wider than the screen"
    aria = seen["aria"]
    for words in ["- tab \"Traffic\" [selected]", "- treegrid \"Exchanges, newest last\":", "- row ", "200 200 fine", "404 404 client error",
                  "502 answered by Countersign, token-endpoint", "- textbox \"Filter\"", "- button \"Pause\""]:
        assert words in aria["traffic"], f"{words}\n{aria['traffic']}"
    for words in ["- radiogroup \"Which send the tabs show\":", "- radio \"200 sent again", "- tab \"Auth\" [selected]", "- heading \"Why 401\"",
                  "Orders decides", "img \"masked\"", "changed: authorization", "removed: "]:
        assert words in aria["auth"], f"{words}\n{aria['auth']}"
    assert "- heading \"Needs you\"" in aria["tokens"] and "- button \"Log in\"" in aria["tokens"], aria["tokens"]
    assert "- tree \"Rules in file order\":" in aria["rules"] and "- textbox \"Method and URL\"" in aria["rules"], aria["rules"]
    assert "- tablist \"Tools\":" in aria["setup"] and "Proxy listens" in aria["setup"] and ": yes" in aria["setup"], aria["setup"]
    assert "svg" not in "".join(aria.values())


def test_everything_that_it_can_do(origins, proxy, tmp_path):
    one, world = stage(origins, proxy)
    play(one)
    seen = drive(one, "console_features.mjs", one.folder / "countersign.yaml", one.url, shots(tmp_path))
    # The browser itself reports answers that are errors, like the one to the wrong filter.
    assert [error for error in seen["errors"] if "status of" not in error] == []
    assert seen["axeEdit"] == [] and seen["axeAlarm"] == []
    assert seen["live"] == 1 and seen["sends"] == 3 and seen["unfolded"] == 3
    for secret in one.canaries:
        assert secret not in json.dumps(seen), "the page never gets a secret, not even in the line of a refused file"
    tabs = seen["tabs"]
    assert "Accepted on send 2" in tabs["overview"] and "countersign.yaml:" in tabs["overview"]
    assert "authorization" in tabs["request"] and "A-1" in tabs["request"] and "8841" in tabs["response"]
    why = "The API refused the first token as expired. Countersign fetched a new one and sent the request again."
    assert why in tabs["auth"] and "invalid_token" in tabs["auth"] and "orders.read orders.write" in tabs["auth"]
    assert "u_7f3a19" in tabs["auth"] and "signature not checked" in tabs["auth"] and "client_credentials at" in tabs["auth"]
    assert "send 1" in seen["firstSend"].lower() and "wait" in tabs["timing"] and "token, 200" in tabs["timing"]
    assert "POST http://api.dev.acme.example/v2/orders?notify=true HTTP/1.1" in tabs["raw"]
    assert '"id": 8841,' in seen["pretty"] and '"id": 8841, ' in seen["raw"] and seen["hex"].startswith("00000000  7b 22")
    assert seen["curl"].startswith("curl") and '"$AUTHORIZATION"' in seen["curl"] and seen["har"] == 3
    assert seen["sent"].startswith("POST http://api.dev.acme.example/v2/orders")
    assert 'host: "http://api.dev.acme.example"' in seen["draft"] and "auth: acme-user" in seen["draft"]
    assert seen["picture"] == "" and seen["pictureHex"].startswith("00000000  89 50 4e 47")
    assert "since=8842" in seen["diff"] and "notify=true" in seen["diff"]
    assert "PUT" in seen["edited"] and "hub" in seen["edited"]
    [edited] = [request for request in world.seen if request["path"].endswith("/edited")]
    assert (edited["method"], edited["body"]) == ("PUT", b"an edited body") and ("x-edited", "yes") in edited["headers"]
    assert any(name == "authorization" for name, _ in edited["headers"]), "the rule adds its credential to what is edited, too"
    assert seen["filtered"] and all("api.hub.example" in text and "/edited" not in text for text in seen["filtered"])
    assert seen["chips"] == 2 and "filter=cred" in seen["place"] and "did you mean `host:`" in seen["wrong"]
    assert seen["whilePaused"] == 0 and "copy as curl" in seen["help"]
    assert "fetched" in seen["fetched"] and "time" in seen["fetched"]
    assert "left" in seen["countdown"] and "Revoke?" in seen["asked"] and seen["loginLink"] == "https://idp.dev.acme.example/activate"
    assert "tokken" in seen["alarm"] and "did you mean" in seen["alarm"] and "refused" in seen["banner"]
    assert "No traffic yet" in seen["cleared"]
