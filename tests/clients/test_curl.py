"""curl and wget, with explicit options and wired by `countersign run`."""

import json
import subprocess
import threading

from conftest import DEADLINE, bearer, canary, need


def curl(proxy, *args, code=0):
    result = subprocess.run(["curl", "-sS", "--max-time", "50", "-x", proxy.url, "--cacert", proxy.ca, *args],
                            env=proxy.env, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result.stdout


def test_http1_and_http2(origins, proxy):
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start("trace")
    for version, name in (("--http1.1", "1.1"), ("--http2", "2")):
        assert curl(one, version, "-w", "%{http_version}", "-o", "/dev/null", origin.url()) == name
    assert origin.values("authorization") == [f"Bearer {secret}"] * 2


def test_plain_http(origins, proxy):
    origin, secret = origins(tls=False), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start("trace")
    curl(one, origin.url("/a?b=%20c"))
    curl(one, "--proxytunnel", origin.url("/d"))
    assert [seen["path"] for seen in origin.seen] == ["/a?b=%20c", "/d"]
    assert origin.values("authorization") == [f"Bearer {secret}"] * 2


def test_upload_and_expect(origins, proxy, tmp_path):
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    big = tmp_path / "big"
    big.write_bytes(b"0123456789" * 300_000)
    for version in ("--http1.1", "--http2"):
        answer = curl(one, version, "-T", str(big), "--expect100-timeout", "20", "-H", "Expect: 100-continue", origin.url("/up"))
        assert json.loads(answer)["bytes"] == 3_000_000
    chunked = curl(one, "--http1.1", "-H", "Transfer-Encoding: chunked", "-T", str(big), origin.url("/up"))
    assert json.loads(chunked)["bytes"] == 3_000_000


def test_early_refusal_of_an_upload(origins, proxy, tmp_path):
    origin, secret = origins(), canary()
    origin.refuse_expect = True
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 2_000_000)
    status = curl(one, "--http1.1", "-T", str(big), "-H", "Expect: 100-continue", "--expect100-timeout", "20", "-o",
                  "/dev/null", "-w", "%{http_code}", origin.url("/up"))
    assert status in ("417", "200"), status


def test_server_sent_events_arrive_one_by_one(origins, proxy):
    """The origin sends an event only after the client has shown the one before."""
    origin, secret = origins(), canary()
    turn = threading.Semaphore(1)

    def events(handler, seen):
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for n in range(5):
            if not turn.acquire(timeout=DEADLINE):
                return
            handler.wfile.write(b"9\r\ndata: %d\n\n\r\n" % n)
        handler.wfile.write(b"0\r\n\r\n")

    origin.pages["/events"] = events
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    for version in ("--http1.1", "--http2"):
        client = subprocess.Popen(["curl", "-sSN", version, "--max-time", "50", "-x", one.url, "--cacert", one.ca,
                                   origin.url("/events")], env=one.env, stdout=subprocess.PIPE, text=True)
        for n in range(5):
            assert client.stdout.readline() == f"data: {n}\n"
            assert client.stdout.readline() == "\n"
            turn.release()
        assert client.wait(DEADLINE) == 0
    assert origin.values("authorization") == [f"Bearer {secret}"] * 2


def test_redirects_are_the_clients(origins, proxy):
    first, second, secret = origins(), origins(), canary()
    first.pages["/go"] = lambda handler, seen: handler.answer(302, b"", {"location": second.url("/there")})
    one = proxy(bearer(first, secret), canaries=[secret]).start()
    subprocess.run(["curl", "-sSL", "-k", "-x", one.url, first.url("/go")], env=one.env, check=True, capture_output=True)
    assert first.values("authorization") == [f"Bearer {secret}"]
    assert [seen["path"] for seen in second.seen] == ["/there"] and not second.values("authorization")


def test_proxy_authentication(origins, proxy):
    origin, secret, password = origins(), canary(), canary("password")
    config = bearer(origin, secret).replace("rules:", f"proxy: {{clients: {{ci: {password}}}}}\nrules:", 1)
    one = proxy(config, canaries=[secret, password]).start("trace")
    curl(one, "-U", f"ci:{password}", origin.url())
    curl(one, "-U", "ci:wrong", origin.url(), code=56)
    assert origin.values("authorization") == [f"Bearer {secret}"]
    assert not origin.values("proxy-authorization")


def test_run_wires_curl_and_wget(origins, proxy):
    need("wget")
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret])
    one.run("curl", "-sSf", origin.url("/curl"))
    one.run("wget", "-qO", "-", origin.url("/wget"))
    assert origin.values("authorization") == [f"Bearer {secret}"] * 2


def test_exit_codes_pass_through(proxy):
    one = proxy("version: 1\nrules: []\n")
    one.run("sh", "-c", "exit 42", code=42)
    one.run("sh", "-c", "kill -TERM $$", code=143)


def test_children_do_not_inherit_secrets(origins, proxy):
    origin, secret = origins(), canary()
    one = proxy(bearer(origin, secret), canaries=[secret])
    assert secret not in one.run("env")


def test_the_setup_page(proxy):
    one = proxy("version: 1\nrules: []\n").start()
    page = subprocess.run(["curl", "-sSf", one.url + "/ca.pem"], env=one.env, capture_output=True, text=True, check=True)
    assert page.stdout.strip() == one.ca.read_text().strip()
