"""HAR files judged by npm's har-validator."""

import json
import pathlib
import subprocess

from conftest import canary, need

HERE = pathlib.Path(__file__).parent


def validate(text):
    return subprocess.run(["node", HERE / "har_check.cjs"], input=text, capture_output=True, text=True, timeout=60, cwd=HERE)


def test_an_export_is_valid(origins, proxy):
    need("node", "curl")
    plain, tls, secret = origins(tls=False), origins(), canary()
    plain.pages["/token"] = lambda handler, seen: handler.answer(
        200, json.dumps({"access_token": secret, "token_type": "Bearer"}).encode(), {"content-type": "application/json"})
    plain.pages["/cookies"] = lambda handler, seen: handler.answer(
        200, b"\x00\xff", {"set-cookie": "a=1; Path=/; Expires=Wed, 21 Oct 2037 07:28:00 GMT; Secure", "content-type": "image/png"})
    plain.pages["/moved"] = lambda handler, seen: handler.answer(307, b"", {"location": "/elsewhere"})
    plain.pages["/empty"] = lambda handler, seen: handler.answer(204, b"")
    one = proxy(f"""version: 1
proxy: {{unmatched: inspect}}
credentials:
  robot: {{type: oauth2, grant: client_credentials, token_url: "{plain.url('/token')}", client_id: c, client_secret: {canary()}}}
rules: [{{name: TLS, host: "{tls.base}", auth: robot}}]
""", canaries=[secret]).start()
    urls = [plain.url(path) for path in ["/a?x=1&y", "/cookies", "/moved", "/empty"]] + [tls.url("/b"), "http://127.0.0.1:1/"]
    for url in urls:
        subprocess.run(["curl", "-sS", "-x", one.url, "--cacert", one.ca, "-b", "c=2", url], check=True, capture_output=True, env=one.env)
    subprocess.run(["curl", "-sS", "-x", one.url, "-F", "file=@" + str(one.ca), plain.url("/upload")], check=True, capture_output=True,
                   env=one.env)
    for _ in range(100):
        text = one.command("har", "export").stdout
        entries = json.loads(text)["log"]["entries"]
        if len(entries) >= len(urls) + 2:
            break
    assert len(entries) == len(urls) + 2 and secret not in text
    result = validate(text)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"entries": len(entries)}
    # The judge is awake.
    for broken in ["startedDateTime", "request", "timings"]:
        spoilt = json.loads(text)
        del spoilt["log"]["entries"][0][broken]
        assert validate(json.dumps(spoilt)).returncode == 1, broken
