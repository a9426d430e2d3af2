"""Client certificates against nginx, made by OpenSSL in every form that people have them in."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import CLEAN, canary, free_port, need, wait_for_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def openssl(*args, text=None):
    need("openssl")
    result = subprocess.run(["openssl", *map(str, args)], input=text, env=CLEAN, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


class Pki:
    """A root, an authority in between, and identities from it; another root that nobody knows."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("root", "stranger"):
            self.key(name)
            openssl("req", "-x509", "-new", "-key", self / f"{name}.key", "-subj", f"/CN={name}", "-days", 30, "-out", self / f"{name}.pem",
                    "-addext", "basicConstraints=critical,CA:TRUE")
        self.issue("middle", "root", "basicConstraints=critical,CA:TRUE\n")
        self.issue("server", "root", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.issue("alice", "middle", "extendedKeyUsage=clientAuth\n", rsa=True)
        self.issue("bob", "middle", "extendedKeyUsage=clientAuth\n")
        self.issue("mallory", "stranger", "extendedKeyUsage=clientAuth\n")
        for name in ("alice", "bob"):
            (self / f"{name}.chain").write_text((self / f"{name}.pem").read_text() + (self / "middle.pem").read_text())

    def __truediv__(self, name):
        return self.folder / name

    def key(self, name, rsa=False):
        kind = ["rsa", "-pkeyopt", "rsa_keygen_bits:2048"] if rsa else ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("genpkey", "-algorithm", *kind, "-out", self / f"{name}.key")

    def issue(self, name, issuer, extensions, rsa=False):
        self.key(name, rsa)
        openssl("req", "-new", "-key", self / f"{name}.key", "-subj", f"/CN={name}", "-out", self / f"{name}.csr")
        (self / "extensions").write_text(extensions)
        openssl("x509", "-req", "-in", self / f"{name}.csr", "-CA", self / f"{issuer}.pem", "-CAkey", self / f"{issuer}.key", "-days", 30,
                "-CAcreateserial", "-extfile", self / "extensions", "-out", self / f"{name}.pem")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def nginx(pki, tmp_path_factory):
    if not os.path.exists(NGINX):
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {pki / 'server.pem'}; ssl_certificate_key {pki / 'server.key'};
    ssl_client_certificate {pki / 'root.pem'}; ssl_verify_client on; ssl_verify_depth 3;
    location / {{ default_type text/plain; return 200 "$ssl_client_s_dn|$connection|$http_authorization"; }}
  }}
}}
""")
    process = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-e", folder / "error.log"], env=CLEAN)
    wait_for_port(port, process)
    yield port
    process.terminate()
    process.wait()


def config(port, keys, more="", auth="me"):
    return (f"version: 1\ncredentials:\n  me: {{type: mtls, {keys}}}\n{more}"
            f"rules:\n  - {{name: Bank, host: \"https://127.0.0.1:{port}\", auth: {auth}}}\n")


def ask(one, port, path="/"):
    result = subprocess.run(["curl", "-sS", "-x", one.url, "--cacert", one.ca, "-w", "\n%{http_code}", f"https://127.0.0.1:{port}{path}"],
                            env=one.env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    body, status = result.stdout.rsplit("\n", 1)
    return int(status), body


FORMS = {
    "pem": lambda pki, out, secret: f"cert: {pki / 'alice.chain'}, key: {pki / 'alice.key'}",
    "pem-in-one": lambda pki, out, secret: (
        out.write_text((pki / "alice.chain").read_text() + (pki / "alice.key").read_text()), f"cert: {out}")[1],
    "pkcs8-aes": lambda pki, out, secret: (
        openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", pki / "alice.key", "-passout", f"pass:{secret}", "-out", out),
        f"cert: {pki / 'alice.chain'}, key: {out}")[1],
    "pkcs8-3des": lambda pki, out, secret: (
        openssl("pkcs8", "-topk8", "-v2", "des3", "-in", pki / "alice.key", "-passout", f"pass:{secret}", "-out", out),
        f"cert: {pki / 'alice.chain'}, key: {out}")[1],
    "pkcs8-sha1": lambda pki, out, secret: (
        openssl("pkcs8", "-topk8", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1", "-in", pki / "alice.key", "-passout", f"pass:{secret}",
                "-out", out), f"cert: {pki / 'alice.chain'}, key: {out}")[1],
    "pkcs8-scrypt": lambda pki, out, secret: (
        openssl("pkcs8", "-topk8", "-scrypt", "-scrypt_N", "1024", "-in", pki / "alice.key", "-passout", f"pass:{secret}", "-out", out),
        f"cert: {pki / 'alice.chain'}, key: {out}")[1],
    **{f"old-pem-{cipher}": lambda pki, out, secret, cipher=cipher: (
        openssl("rsa", "-traditional", f"-{cipher}", "-in", pki / "alice.key", "-passout", f"pass:{secret}", "-out", out),
        f"cert: {pki / 'alice.chain'}, key: {out}")[1] for cipher in ("aes128", "aes192", "aes256", "des3")},
    "pfx": lambda pki, out, secret: (
        openssl("pkcs12", "-export", "-in", pki / "alice.pem", "-inkey", pki / "alice.key", "-certfile", pki / "middle.pem", "-passout",
                f"pass:{secret}", "-out", out), f"pfx: {out}")[1],
    "pfx-old": lambda pki, out, secret: (
        openssl("pkcs12", "-export", "-legacy", "-in", pki / "alice.pem", "-inkey", pki / "alice.key", "-certfile", pki / "middle.pem",
                "-passout", f"pass:{secret}", "-out", out), f"pfx: {out}")[1],
    "pfx-3des": lambda pki, out, secret: (
        openssl("pkcs12", "-export", "-legacy", "-descert", "-in", pki / "alice.pem", "-inkey", pki / "alice.key", "-certfile",
                pki / "middle.pem", "-passout", f"pass:{secret}", "-out", out), f"pfx: {out}")[1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_accepted(nginx, pki, proxy, tmp_path, form):
    secret = canary("pass")
    keys = FORMS[form](pki, tmp_path / "made", secret) + f", ca: {pki / 'root.pem'}, passphrase: \"${{env:PASS}}\""
    one = proxy(config(nginx, keys), canaries=[secret], env={"PASS": secret}).start("trace")
    status, body = ask(one, nginx)
    assert status == 200 and body.startswith("CN=alice|"), body


@pytest.mark.parametrize("form", [name for name in FORMS if not name.startswith("pem")])
def test_a_wrong_passphrase_is_named_when_the_file_is_read(nginx, pki, proxy, tmp_path, form):
    secret, wrong = canary("pass"), canary("wrong")
    keys = FORMS[form](pki, tmp_path / "made", secret)
    for given, said in [(wrong, "`passphrase` does not open"), ("", "add its `passphrase`")]:
        checked = proxy(config(nginx, keys + f", passphrase: \"{given}\"")).command("check", "--color", "never")
        assert checked.returncode == 3 and said in checked.stderr, checked.stderr
        assert secret not in checked.stderr and wrong not in checked.stderr


def test_what_nginx_refuses(nginx, pki, proxy):
    ca = f"ca: {pki / 'root.pem'}, ca_only: true"
    stranger = proxy(config(nginx, f"cert: {pki / 'mallory.pem'}, key: {pki / 'mallory.key'}, {ca}")).start()
    status, body = ask(stranger, nginx)
    assert status == 400 and "SSL certificate error" in body, "from another authority"
    chainless = proxy(config(nginx, f"cert: {pki / 'alice.pem'}, key: {pki / 'alice.key'}, {ca}")).start()
    assert ask(chainless, nginx)[0] == 400, "without the authority in between"
    bare = proxy(f"version: 1\nrules:\n  - {{name: Bare, host: \"https://127.0.0.1:{nginx}\", auth: none, "
                 f"tls: {{extra_ca: {pki / 'root.pem'}}}}}\n").start()
    status, body = ask(bare, nginx)
    assert status == 400 and "No required SSL certificate" in body


def test_a_server_of_another_authority_is_502(nginx, pki, proxy):
    keys = f"cert: {pki / 'alice.chain'}, key: {pki / 'alice.key'}, ca: {pki / 'stranger.pem'}"
    one = proxy(config(nginx, keys)).start()
    status, body = ask(one, nginx)
    problem = json.loads(body)
    assert status == 502 and problem["type"].endswith("upstream-tls"), problem
    assert "tls.extra_ca" in problem["detail"] or "ca" in problem["detail"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_alerts_are_explained(pki, proxy, version):
    """openssl refuses with an alert, in TLS 1.3 only after the handshake."""
    port = free_port()
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki / "server.pem", "-key", pki / "server.key",
                               "-CAfile", pki / "root.pem", "-Verify", "3", "-verify_return_error", version, "-quiet", "-www"], env=CLEAN,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, server)
        ca = f"ca: {pki / 'root.pem'}"
        for keys, said in [(f"cert: {pki / 'mallory.pem'}, key: {pki / 'mallory.key'}, {ca}", "does not accept our client certificate")]:
            one = proxy(config(port, keys)).start()
            status, body = ask(one, port)
            problem = json.loads(body)
            assert (status, problem["type"]) == (502, "urn:countersign:error:upstream-tls"), problem
            assert said in problem["detail"], problem
        bare = proxy(f"version: 1\nrules:\n  - {{name: Bare, host: \"https://127.0.0.1:{port}\", auth: none, "
                     f"tls: {{extra_ca: {pki / 'root.pem'}}}}}\n").start()
        status, body = ask(bare, port)
        assert status == 502 and "`mtls`" in json.loads(body)["detail"], body
    finally:
        server.terminate()
        server.wait()


def test_two_identities_never_share_a_connection(nginx, pki, proxy):
    token = canary("token")
    ca = f"ca: {pki / 'root.pem'}"
    text = f"""version: 1
credentials:
  alice: {{type: mtls, cert: {pki / 'alice.chain'}, key: {pki / 'alice.key'}, {ca}}}
  bob: {{type: mtls, cert: {pki / 'bob.chain'}, key: {pki / 'bob.key'}, {ca}}}
  robot: {{type: bearer, token: "${{env:TOKEN}}"}}
rules:
  - {{name: Alice, host: "https://127.0.0.1:{nginx}", path: "/alice/*", auth: [alice, robot]}}
  - {{name: Bob, host: "https://127.0.0.1:{nginx}", path: "/bob/*", auth: bob}}
"""
    one = proxy(text, env={"TOKEN": token}, canaries=[token]).start("trace")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: (n % 2, ask(one, nginx, f"/{'bob' if n % 2 else 'alice'}/{n}")), range(24)))
    owners = {}
    for is_bob, (status, body) in answers:
        name, connection, authorization = body.split("|")
        assert status == 200 and name == ("CN=bob" if is_bob else "CN=alice")
        assert authorization == ("" if is_bob else f"Bearer {token}")
        assert owners.setdefault(connection, name) == name


def test_a_trust_store_for_java(proxy):
    """`ca export --format p12` is read by OpenSSL and by keytool."""
    one = proxy("version: 1\nrules: []\n")
    file = pathlib.Path(one.folder) / "ca.p12"
    assert one.command("ca", "export", "--format", "p12", "-o", str(file)).returncode == 0
    shown = openssl("pkcs12", "-in", file, "-passin", "pass:changeit", "-nokeys")
    assert "BEGIN CERTIFICATE" in shown and "Countersign" in shown
    if shutil.which("keytool"):
        listed = subprocess.run(["keytool", "-list", "-keystore", file, "-storepass", "changeit"], capture_output=True, text=True)
        assert "countersign" in listed.stdout and "trustedCertEntry" in listed.stdout, listed.stdout + listed.stderr
