"""Digest against lighttpd and Apache, which judge every answer, and beside the client of aiohttp, whose proofs must be ours."""

import asyncio
import email.utils
import glob
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess

import aiohttp
import aiohttp.web
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


APACHE = shutil.which("apache2") or "/usr/sbin/apache2"
MODULES = pathlib.Path("/usr/lib/apache2/modules")


@pytest.fixture
def apache(tmp_path):
    if not os.path.exists(APACHE):
        pytest.skip("apache2 is not installed")
    started = []

    def start(user, password, more=""):
        folder = tmp_path / f"apache{len(started)}"
        (folder / "root").mkdir(parents=True)
        (folder / "root/index.html").write_text("welcome")
        (folder / "users").write_text(f"{user}:realm:{hashlib.md5(f'{user}:realm:{password}'.encode()).hexdigest()}\n")
        port = free_port()
        modules = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_digest", "dir", "log_config"]
        if not (MODULES / "mod_log_config.so").exists():
            modules.remove("log_config")  # built in
        loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules)
        (folder / "conf").write_text(f"""{loads}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
LogFormat "%s" status
CustomLog {folder}/access.log status
DocumentRoot {folder}/root
DirectoryIndex index.html
<Location />
  AuthType Digest
  AuthName realm
  AuthDigestDomain /
  AuthUserFile {folder}/users
  Require valid-user
  {more}
</Location>
""")
        process = subprocess.Popen([APACHE, "-d", folder, "-f", folder / "conf", "-DFOREGROUND"], env=CLEAN)
        started.append(process)
        wait_for_port(port, process)
        return port, folder / "access.log"

    yield start
    for process in started:
        process.terminate()
        process.wait()


def test_apache_accepts_and_proves_itself(apache, proxy):
    """Apache sends `rspauth`, so both sides are checked."""
    password = canary("pw")
    port, log = apache("user", password)
    text = config(port, password).replace("type: digest", "type: digest, verify_rspauth: require")
    one = proxy(text, canaries=[password]).start("trace")
    assert [ask(one, port) for _ in range(3)] == ["200"] * 3
    wrong = proxy(config(port, "wrong")).start()
    assert ask(wrong, port) == "401"
    assert log.read_text().split() == ["401", "200", "200", "200", "401", "401"]


def test_a_short_lived_nonce_of_apache_is_replaced(apache, proxy):
    """Each nonce is good for one request, and Apache tells the next in each answer."""
    password = canary("pw")
    port, log = apache("j\u00e4s", password, "AuthDigestNonceLifetime 0")
    text = config(port, password).replace("username: user", "username: \"j\u00e4s\", username_star: never")
    one = proxy(text, canaries=[password]).start("trace")
    assert [ask(one, port) for _ in range(4)] == ["200"] * 4
    assert log.read_text().split().count("401") <= 1, log.read_text()


# aiohttp does not send its nonce for sessions without `qop`, so nobody could check that.
@pytest.mark.parametrize(("algorithm", "qop"), [
    (algorithm, qop) for algorithm in ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"] for qop in ["auth", "auth-int", None]
    if qop or "sess" not in algorithm])
def test_proofs_are_those_of_aiohttp(proxy, algorithm, qop):
    """Its client answers a challenge; given the same nonces, our answer must be the same."""
    seen = []

    async def talk():
        async def answer(request):
            body = await request.read()
            if header := request.headers.get("authorization"):
                seen.append((header, request.path_qs, body))
                return aiohttp.web.Response(text="ok")
            terms = f'Digest realm="a realm", nonce="n0nce", opaque="o", algorithm={algorithm}' + (f', qop="{qop}"' if qop else "")
            return aiohttp.web.Response(status=401, headers={"www-authenticate": terms})

        app = aiohttp.web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        digest_auth = aiohttp.DigestAuthMiddleware(login="user", password="pass")
        async with aiohttp.ClientSession(middlewares=(digest_auth,)) as session:
            async with session.post(f"http://127.0.0.1:{port}/p/a%20b?q=1", data=b"some body") as response:
                assert response.status == 200
        await runner.cleanup()
        return port

    port = asyncio.run(talk())
    header, path, body = seen[0]
    theirs = {name.lower(): quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^", ]+))', header)}
    keys = [f"username: user, password: pass, realm: a realm, nonce: n0nce, opaque: o, algorithm: {algorithm}"]
    keys += [f"client_nonce: {theirs['cnonce']}"] if "cnonce" in theirs else []
    keys += [f"nonce_count: \"{theirs['nc']}\"", f"qop: {qop}"] if qop else []
    one = proxy(f"version: 1\nrules:\n  - {{name: D, host: \"http://127.0.0.1:{port}\", auth: {{type: digest, {', '.join(keys)}}}}}\n")
    shown = one.command("explain", "POST", f"http://127.0.0.1:{port}/p/a%20b?q=1", "--data", body.decode(), "--json", "--show-secrets")
    assert shown.returncode == 0, shown.stderr
    header = dict(json.loads(shown.stdout)["request"]["headers"])["authorization"]
    ours = {name.lower(): quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^", ]+))', header)}
    assert (ours["response"], ours["uri"]) == (theirs["response"], theirs["uri"]), (header, theirs)
