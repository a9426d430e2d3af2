"""Kerberos against MIT's KDC and Apache's mod_auth_gssapi. Needs a program built with `--features negotiate`; skipped without."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from conftest import BINARY, CLEAN, Handler, canary, free_port, wait_for_port
from test_ntlm import ask

SBIN = {**CLEAN, "PATH": CLEAN["PATH"] + ":/usr/sbin:/sbin"}
MODULES = pathlib.Path("/usr/lib/apache2/modules")


def program(name):
    return shutil.which(name, path=SBIN["PATH"])


needed = ["krb5kdc", "kdb5_util", "kadmin.local", "apache2", "kinit"]
has_kerberos = pathlib.Path(BINARY).exists() and subprocess.run(
    [BINARY, "kerberos-context"], input="", capture_output=True, text=True).returncode == 0
pytestmark = [
    pytest.mark.skipif(not all(map(program, needed)) or not (MODULES / "mod_auth_gssapi.so").exists(),
                       reason="a KDC or mod_auth_gssapi is not installed"),
    pytest.mark.skipif(not has_kerberos, reason="this program is built without Kerberos"),
]


class Realm:
    """A KDC for ACME.TEST on loopback."""

    def __init__(self, folder):
        self.folder, self.password = folder, canary("pw")
        self.port = free_port()
        (folder / "krb5.conf").write_text(f"""
[libdefaults]
 default_realm = ACME.TEST
 dns_lookup_kdc = false
 dns_lookup_realm = false
 rdns = false
 dns_canonicalize_hostname = true
 udp_preference_limit = 1
[realms]
 ACME.TEST = {{
  kdc = 127.0.0.1:{self.port}
 }}
[domain_realm]
 localhost = ACME.TEST
 127.0.0.1 = ACME.TEST
""")
        (folder / "kdc.conf").write_text(f"""
[kdcdefaults]
 kdc_listen = ""
 kdc_tcp_listen = 127.0.0.1:{self.port}
[realms]
 ACME.TEST = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
 }}
[logging]
 kdc = FILE:{folder}/kdc.log
""")
        self.env = {**SBIN, "KRB5_CONFIG": str(folder / "krb5.conf"), "KRB5_KDC_PROFILE": str(folder / "kdc.conf")}
        self.run("kdb5_util", "create", "-s", "-r", "ACME.TEST", "-P", "master")
        self.run("kadmin.local", "-q", f"addprinc -pw {self.password} ann")
        for service in ("HTTP/localhost", "HTTP/127.0.0.1"):
            self.run("kadmin.local", "-q", f"addprinc -randkey {service}")
            self.run("kadmin.local", "-q", f"ktadd -k {folder}/http.keytab {service}")
        self.run("kadmin.local", "-q", f"ktadd -norandkey -k {folder}/ann.keytab ann")
        self.process = subprocess.Popen([program("krb5kdc"), "-n"], env=self.env, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.process)

    def run(self, name, *args, **more):
        result = subprocess.run([program(name), *args], env={**self.env, **more.pop("env", {})}, capture_output=True,
                                text=True, timeout=60, **more)
        assert result.returncode == 0, (name, result.stdout, result.stderr)
        return result.stdout


@pytest.fixture(scope="module")
def realm():
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        one = Realm(pathlib.Path(folder))
        yield one
        one.process.terminate()
        one.process.wait()


@pytest.fixture
def apache(realm):
    """`apache(bound=True)`: the connection is authenticated; `False`: every request is."""
    started = []

    def start(bound):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="countersign-"))
        (folder / "cgi").mkdir()
        script = folder / "cgi/echo"
        script.write_text('#!/bin/sh\nbody=$(cat | wc -c)\nprintf "Content-Type: text/plain\\r\\n\\r\\n%s %s" "$REMOTE_USER" $body\n')
        script.chmod(0o755)
        folder.chmod(0o755)
        port = free_port()
        modules = ["mpm_prefork", "authn_core", "authz_core", "authz_user", "auth_gssapi", "alias", "cgi"]
        loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in modules)
        (folder / "httpd.conf").write_text(f"""{loads}
ServerName localhost
ServerRoot {folder}
PidFile {folder}/pid
Listen 127.0.0.1:{port}
ErrorLog {folder}/error.log
LogLevel auth_gssapi:debug
KeepAlive On
StartServers 2
ScriptAlias / {folder}/cgi/
<Location />
 AuthType GSSAPI
 AuthName acme
 GssapiCredStore keytab:{realm.folder}/http.keytab
 GssapiConnectionBound {'On' if bound else 'Off'}
 GssapiAllowedMech krb5
 Require valid-user
</Location>
""")
        if os.getuid() == 0:
            # Apache becomes another user, who has to get at its files.
            with (folder / "httpd.conf").open("a") as text:
                text.write("User www-data\nGroup www-data\n")
            (realm.folder / "http.keytab").chmod(0o644)
            realm.folder.chmod(0o755)
        process = subprocess.Popen([program("apache2"), "-DFOREGROUND", "-f", folder / "httpd.conf"], env=realm.env,
                                   start_new_session=True)  # it ends its whole process group
        started.append((process, folder))
        wait_for_port(port, process)
        return f"http://localhost:{port}", folder

    yield start
    for process, folder in started:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def config(base, **keys):
    text = "".join(f", {key}: {value}" for key, value in keys.items())
    return f'version: 1\nrules:\n  - {{name: K, host: "{base}", auth: {{type: negotiate{text}}}}}\n'


def start(proxy, realm, base, canaries=(), env=None, **keys):
    env = {"KRB5_CONFIG": str(realm.folder / "krb5.conf"), **(env or {})}
    return proxy(config(base, **keys), canaries=list(canaries), env=env).start("trace")


@pytest.mark.parametrize("bound", [True, False])
def test_password_keytab_and_ticket(realm, apache, proxy, bound, tmp_path):
    base, _ = apache(bound)
    cache = f"FILE:{tmp_path}/cc"
    realm.run("kinit", "ann", input=realm.password, env={"KRB5CCNAME": cache})
    for keys in (
        {"mech": "kerberos", "principal": "ann@ACME.TEST", "password": realm.password},
        {"mech": "kerberos", "principal": "ann@ACME.TEST", "keytab": f"{realm.folder}/ann.keytab"},
        {"mech": "kerberos", "ccache": f'"{cache}"'},
        {"principal": "ann@ACME.TEST", "password": realm.password, "canonicalize": "forward"},
    ):
        one = start(proxy, realm, base, [realm.password], **keys)
        for n in range(3):
            assert ask(one, f"{base}/echo?{n}") == (200, "ann@ACME.TEST 0"), (keys, n)
            assert ask(one, f"{base}/echo?{n}", post="b" * 5000) == (200, "ann@ACME.TEST 5000"), (keys, n)


def test_the_users_own_tickets(realm, apache, proxy, tmp_path):
    base, _ = apache(True)
    cache = f"FILE:{tmp_path}/cc"
    realm.run("kinit", "ann", input=realm.password, env={"KRB5CCNAME": cache})
    one = start(proxy, realm, base, env={"KRB5CCNAME": cache}, mech="kerberos")
    assert ask(one, f"{base}/echo") == (200, "ann@ACME.TEST 0")


def test_what_goes_wrong_is_explained(realm, apache, proxy, tmp_path):
    base, _ = apache(True)
    wrong = canary("wrong")
    for said, keys in (
        ("Kerberos", {"mech": "kerberos", "principal": "ann@ACME.TEST", "password": wrong}),
        ("No", {"mech": "kerberos", "ccache": f'"FILE:{tmp_path}/none"'}),
        ("HTTP/elsewhere", {"mech": "kerberos", "principal": "ann@ACME.TEST", "password": realm.password,
                            "spn": "HTTP/elsewhere@ACME.TEST"}),
    ):
        one = start(proxy, realm, base, [wrong, realm.password], **keys)
        status, body = ask(one, f"{base}/echo")
        assert status == 502 and said in body, body


def test_a_ticket_for_another_service_is_refused(realm, apache, proxy):
    base, folder = apache(True)
    realm.run("kadmin.local", "-q", "addprinc -randkey HTTP/other")
    one = start(proxy, realm, base, mech="kerberos", principal="ann@ACME.TEST", password=realm.password,
                spn="HTTP/other@ACME.TEST")
    status, body = ask(one, f"{base}/echo")
    assert status == 502 and "service HTTP/other@ACME.TEST" in body, body
    assert "not found in keytab" in (folder / "error.log").read_text()


class Polite(Handler):
    """Takes any ticket unread, and answers with a proof of its own that the test chooses."""

    def handle_any(self):
        sent = self.headers.get("authorization", "")
        self.server.origin.seen.append(sent)
        if not sent.startswith("Negotiate YI"):
            return self.answer(401, b"who", {"www-authenticate": "Negotiate"})
        proof = self.server.origin.proof
        self.answer(200, b"welcome", {"www-authenticate": f"Negotiate {proof}"} if proof else {})

    do_GET = handle_any


@pytest.mark.parametrize("tls", [False, True])
def test_the_servers_own_proof_is_checked(realm, origins, proxy, tls):
    origin = origins(tls, handler=Polite)
    keys = {"mech": "kerberos", "principal": "ann@ACME.TEST", "password": realm.password}
    # "Accepted", without the mechanism's proof; nonsense; nothing at all.
    for proof, mutual, expected in (
        ("oQcwBaADCgEA", "true", 502), ("AAAA", "true", 502), ("", "true", 200), ("oQcwBaADCgEA", "false", 200)):
        origin.proof, origin.seen = proof, []
        one = start(proxy, realm, origin.base, [realm.password], mutual=mutual, **keys)
        status, body = ask(one, "-D", "-", origin.url("/"))
        assert status == expected, (proof, mutual, body)
        assert ("own proof" in body) == (expected == 502), body
        assert "negotiate" not in body.lower() or status == 502, body
        assert len(origin.seen) == 2
