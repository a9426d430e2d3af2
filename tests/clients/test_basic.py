"""Basic against nginx and Apache: names and passwords that are easy to get wrong."""

import base64
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import CLEAN, canary, free_port, wait_for_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
APACHE = shutil.which("apache2") or "/usr/sbin/apache2"
MODULES = pathlib.Path("/usr/lib/apache2/modules")


def line(user, password):
    """Of a file of users. A password in the open could not hold a colon there."""
    return user + b":{SHA}" + base64.b64encode(hashlib.sha1(password).digest()) + b"\n"


@pytest.fixture
def servers(tmp_path):
    started = []

    def run(port, *command):
        process = subprocess.Popen([str(part) for part in command], env=CLEAN)
        started.append(process)
        wait_for_port(port, process)
        return port

    def nginx(user, password):
        if not os.path.exists(NGINX):
            pytest.skip("nginx is not installed")
        folder = tmp_path / f"nginx{len(started)}"
        folder.mkdir()
        (folder / "users").write_bytes(line(user, password))
        port = free_port()
        temporary = "".join(f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; events {{}}
http {{ access_log off; {temporary} large_client_header_buffers 4 32k;
  server {{ listen 127.0.0.1:{port}; auth_basic "r"; auth_basic_user_file {folder}/users;
           location / {{ root {folder}; }} }} }}
""")
        (folder / "index.html").write_text("welcome")
        return run(port, NGINX, "-c", folder / "conf", "-e", folder / "error.log")

    def apache(user, password):
        if not os.path.exists(APACHE):
            pytest.skip("apache2 is not installed")
        folder = tmp_path / f"apache{len(started)}"
        (folder / "root").mkdir(parents=True)
        (folder / "root/index.html").write_text("welcome")
        (folder / "users").write_bytes(line(user, password))
        port = free_port()
        modules = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dir"]
        loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules)
        (folder / "conf").write_text(f"""{loads}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
LimitRequestFieldSize 32768
DocumentRoot {folder}/root
DirectoryIndex index.html
<Location />
  AuthType Basic
  AuthName r
  AuthUserFile {folder}/users
  Require valid-user
</Location>
""")
        return run(port, APACHE, "-d", folder, "-f", folder / "conf", "-DFOREGROUND")

    yield {"nginx": nginx, "apache": apache}
    for process in started:
        process.terminate()
        process.wait()


def status(one, port):
    result = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", one.url, f"http://127.0.0.1:{port}/"],
                            env=one.env, capture_output=True, text=True, check=True)
    return result.stdout


def config(port, user, keys=""):
    return (f"version: 1\nrules:\n  - {{name: B, host: \"http://127.0.0.1:{port}\", "
            f"auth: {{type: basic, username: \"{user}\", password: \"${{file:password}}\"{keys}}}}}\n")


def start(proxy, text, password):
    one = proxy(text, canaries=[password])
    (one.folder / "password").write_text(password)
    return one.start("trace")


@pytest.mark.parametrize("server", ["nginx", "apache"])
@pytest.mark.parametrize(("user", "ending", "charset"), [
    ("user", ":with:colons", "utf-8"), ("jäs", "pässwörd-€", "utf-8"), ("jäs", "pässwörd", "iso-8859-1"),
    ("user", " blanks around ", "utf-8"), ("user", "x" * 5000, "utf-8"), ("", "nobody", "utf-8"), ("u\\\"s", "\"\\'%$", "utf-8"),
], ids=["colons", "utf-8", "latin-1", "blanks", "long", "no-name", "quotes"])
def test_accepted_and_refused(servers, proxy, server, user, ending, charset):
    if server == "nginx" and not user:
        pytest.skip("nginx takes an empty name for none at all")
    password = canary("pw") + ending
    name = user.replace("\\\"", "\"")
    port = servers[server](name.encode(charset), password.encode(charset))
    assert status(start(proxy, config(port, user, f", charset: {charset}"), password), port) == "200"
    assert status(start(proxy, config(port, user, f", charset: {charset}"), password + "!"), port) == "401"
    bare = proxy("version: 1\nrules: []\n").start()
    assert status(bare, port) == "401"


def test_the_wrong_charset_is_refused(servers, proxy):
    password = canary("pw") + "ä"
    port = servers["nginx"]("jäs".encode("latin-1"), password.encode("latin-1"))
    assert status(start(proxy, config(port, "jäs"), password), port) == "401"
    assert status(start(proxy, config(port, "jäs", ", charset: iso-8859-1"), password), port) == "200"
