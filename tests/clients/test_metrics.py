"""`/metrics` read by implementations that we did not write: Prometheus' own parser and linter, and its Python client."""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest
from conftest import DEADLINE, canary, need
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def get(address, *args, user=None, path="/metrics"):
    """Status, media type and body."""
    result = subprocess.run(["curl", "-sS", "-w", "\\n%{http_code} %{content_type}", *args, f"{address}{path}"],
                            capture_output=True, text=True, check=True, timeout=30, user=user)
    body, _, last = result.stdout.rpartition("\n")
    status, _, kind = last.partition(" ")
    return int(status), kind, body


@pytest.fixture
def busy(origins, proxy):
    """A proxy that has seen traffic of most kinds, with names that need escaping."""
    origin, secret, scraper = origins(tls=False), canary(), canary("scraper")
    origin.pages["/token"] = lambda handler, seen: handler.answer(
        200, json.dumps({"access_token": secret, "token_type": "Bearer", "expires_in": 3600}).encode(),
        {"content-type": "application/json"})
    origin.pages["/500"] = lambda handler, seen: handler.answer(500, b"no")
    one = proxy(f"""version: 1
console: {{metrics_token: "${{file:scraper.token}}"}}
credentials:
  robot: {{type: oauth2, grant: client_credentials, token_url: "{origin.url('/token')}", client_id: c, client_secret: {canary()}}}
rules:
  - name: 'Läb "one" \\ two'
    host: "{origin.base}"
    auth: robot
    rules: [{{name: Bad, path: /500}}]
""", canaries=[secret, scraper])
    (one.folder / "scraper.token").write_text(scraper + "\n")
    one.start()
    for path in ["/a?token=hidden", "/b", "/500"]:
        subprocess.run(["curl", "-sS", "-x", one.url, origin.url(path)], check=True, capture_output=True, env=one.env)
    subprocess.run(["curl", "-sS", "-x", one.url, "http://127.0.0.1:1/"], check=True, capture_output=True, env=one.env)
    one.scraper, one.console = scraper, one.addresses["console"].rstrip("/")
    if not one.console.startswith("http"):
        one.console = f"http://{one.console}"
    return one


def samples(families):
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


# What changes from one look to the next.
VOLATILE = ("process_", "countersign_client_connections")


def steady(families):
    return {key: value for key, value in samples(families).items() if not key[0].startswith(VOLATILE)}


def at_rest(console):
    """Both formats, once they tell the same: what a client has read may be counted a moment later."""
    end = time.monotonic() + DEADLINE
    while True:
        strict = get(console, "-H", "accept: application/openmetrics-text; version=1.0.0")
        older = get(console)
        told = steady(openmetrics(strict[2]))
        ended = sum(value for (name, _), value in told.items() if name == "countersign_requests_total")
        if ended >= 4 and told == steady(text(older[2])) or time.monotonic() > end:
            return strict, older


def test_both_formats_say_the_same(busy):
    need("curl")
    (status, kind, body), old = at_rest(busy.console)
    assert (status, kind) == (200, OPENMETRICS)
    families = list(openmetrics(body))
    names = {family.name: family.type for family in families}
    assert names["countersign_requests"] == "counter" and names["countersign_build"] == "info"
    assert names["countersign_request_added_seconds"] == "histogram" and len(names) == len(families)
    strict = samples(families)
    rule = 'Läb "one" \\ two'
    assert strict["countersign_requests_total", (("outcome", "2xx"), ("rule", rule))] == 2
    assert strict["countersign_requests_total", (("outcome", "5xx"), ("rule", f"{rule} / Bad"))] == 1
    assert strict["countersign_requests_total", (("outcome", "upstream-connect"), ("rule", ""))] == 1
    assert strict["countersign_token_state", (("credential", "robot"), ("state", "good"))] == 1
    status, kind, older = old
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert steady(text(older)) == steady(families)
    for hidden in ["hidden", "127.0.0.1", "/token", *busy.canaries]:
        assert hidden not in body and hidden not in older


def test_promtool_has_no_objection(busy):
    need("promtool")
    _, _, body = get(busy.console)
    result = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stderr.strip(), result.stdout + result.stderr


def test_other_users_need_the_token(busy):
    if os.geteuid() != 0 or not shutil.which("curl"):
        pytest.skip("needs root, to become another user")
    bearer = lambda token: ("-H", f"authorization: Bearer {token}")  # noqa: E731
    assert get(busy.console, user="nobody")[0] == 401
    assert get(busy.console, *bearer("wrong"), user="nobody")[0] == 401
    assert get(busy.console, *bearer(busy.scraper), user="nobody")[0] == 200
    assert get(busy.console, *bearer(busy.scraper), user="nobody", path="/api/status")[0] == 403
    assert get(busy.console, user="nobody", path="/readyz")[0] == 200
    # A new token in the file is the one that counts.
    new = canary("scraper")
    busy.canaries.append(new)
    (busy.folder / "scraper.token").write_text(new)
    for _ in range(200):
        if get(busy.console, *bearer(new), user="nobody")[0] == 200:
            break
    assert get(busy.console, *bearer(busy.scraper), user="nobody")[0] == 401


def test_scrapes_beside_traffic_never_go_back(busy, origins):
    """Counters only grow and histograms stay consistent while requests run."""
    need("curl")
    origin = origins(tls=False)
    stop = threading.Event()

    def traffic():
        while not stop.is_set():
            subprocess.run(["curl", "-sS", "-x", busy.url, *[origin.url(f"/{n}") for n in range(20)]], capture_output=True,
                           env=busy.env)

    runner = threading.Thread(target=traffic)
    runner.start()
    try:
        before = {}
        for _ in range(20):
            families = list(openmetrics(get(busy.console, "-H", "accept: application/openmetrics-text")[2]))
            now = {}
            for family in families:
                if family.type in ("counter", "histogram"):
                    now |= samples([family])
            assert all(now.get(key, value) >= value for key, value in before.items())
            before = now
        assert before["countersign_requests_total", (("outcome", "2xx"), ("rule", ""))] > 0
    finally:
        stop.set()
        runner.join()
