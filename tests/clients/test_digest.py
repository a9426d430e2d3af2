"""Digest against lighttpd: an implementation that is not ours judges every answer."""

import email.utils
import glob
import hashlib
import http.client
import shutil
import subprocess

import pytest
from conftest import CLEAN, DEADLINE, canary, free_port, need, wait_for_port


def digest(algorithm, text):
    name = {"SHA-256": "sha256", "SHA-512-256": "sha512_256", "MD5": "md5"}[algorithm]
    return hashlib.new(name, text.encode()).hexdigest()


@pytest.fixture
def lighttpd(tmp_path):
    need("lighttpd") if not shutil.which("/usr/sbin/lighttpd") else None
    started = []

    def start(algorithm, password, userhash=False, env=None):
        folder = tmp_path / f"lighttpd{len(started)}"
        (folder / "root").mkdir(parents=True)
        (folder / "root/index.html").write_text("welcome")
        a1 = digest(algorithm, f"user:realm:{password}")
        line = f"user:realm:{a1}" + (f":{digest(algorithm, 'user:realm')}" if userhash else "")
        (folder / "users").write_text(line + "\n")
        port = free_port()
        hashed = ', "userhash" => "enable"' if userhash else ""
        (folder / "lighttpd.conf").write_text(f'''
server.modules = ("mod_auth", "mod_authn_file", "mod_accesslog")
server.document-root = "{folder}/root"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
accesslog.filename = "{folder}/access.log"
accesslog.format = "%s %r"
index-file.names = ("index.html")
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{folder}/users"
auth.require = ("/" => ("method" => "digest", "realm" => "realm", "require" => "valid-user",
  "algorithm" => "{algorithm}"{hashed}))
''')
        binary = shutil.which("lighttpd") or "/usr/sbin/lighttpd"
        process = subprocess.Popen([binary, "-D", "-f", folder / "lighttpd.conf"], env={**CLEAN, **(env or {})})
        started.append(process)
        wait_for_port(port, process)
        return port, folder / "access.log"

    yield start
    for process in started:
        process.terminate()
        process.wait()


def ask(proxy, port):
    result = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", proxy.url, f"http://127.0.0.1:{port}/"],
                            env=proxy.env, capture_output=True, text=True, check=True)
    return result.stdout


def config(port, password):
    return (f"version: 1\nrules:\n  - {{name: D, host: \"http://127.0.0.1:{port}\", "
            f"auth: {{type: digest, username: user, password: {password}}}}}\n")


# lighttpd offers userhash with the newer algorithms.
@pytest.mark.parametrize(("algorithm", "userhash"), [
    ("MD5", False), ("SHA-256", False), ("SHA-256", True), ("SHA-512-256", False), ("SHA-512-256", True)])
def test_accepted(lighttpd, proxy, algorithm, userhash):
    password = canary("pw")
    port, log = lighttpd(algorithm, password, userhash)
    one = proxy(config(port, password), canaries=[password]).start("trace")
    assert [ask(one, port) for _ in range(4)] == ["200"] * 4


def test_wrong_password_is_refused_and_not_repeated(lighttpd, proxy):
    wrong = canary("wrong")
    port, log = lighttpd("SHA-256", "right")
    one = proxy(config(port, wrong), canaries=[wrong]).start("trace")
    assert ask(one, port) == "401"
    one.stop()
    one.process = None
    for process_log in [log]:
        subprocess.run(["sync"], check=True)
        lines = [line for line in process_log.read_text().splitlines() if line.startswith("401")]
        assert len(lines) <= 2, lines


def test_the_next_nonce_is_used(lighttpd, proxy):
    """A nonce of lighttpd lives for ten minutes and is replaced in the tenth by `nextnonce`. On a clock that runs thirty times
    as fast: who uses the replacement is challenged once, at the beginning, and never again."""
    fake = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not fake:
        pytest.skip("libfaketime is not installed")
    password = canary("pw")
    port, log = lighttpd("SHA-256", password, env={"LD_PRELOAD": fake[0], "FAKETIME": "+0 x30", "DONT_FAKE_MONOTONIC": "1"})
    one = proxy(config(port, password), canaries=[password]).start("trace")
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=DEADLINE)
    first, passed, requests = None, 0, 0
    while passed <= 700:
        connection.request("GET", f"http://127.0.0.1:{port}/")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"welcome")
        now = email.utils.parsedate_to_datetime(answer.headers["date"])
        first = first or now
        passed, requests = (now - first).total_seconds(), requests + 1
    one.stop()
    one.process = None
    lines = log.read_text().splitlines()
    assert requests > 100 and [line[:3] for line in lines].count("401") == 1, lines[:3]


def test_without_the_rule_it_is_refused(lighttpd, proxy):
    port, _ = lighttpd("SHA-256", "right")
    one = proxy("version: 1\nrules: []\n").start()
    assert ask(one, port) == "401"
