"""Parent proxies that others wrote: Squid behind plain HTTP and behind TLS, with a login; microsocks with one."""

import subprocess
import time

import pytest
from conftest import bearer, canary, free_port, need, wait_for_port

SQUID = """
http_port 127.0.0.1:{plain}
https_port 127.0.0.1:{tls} tls-cert={pem} tls-key={pem}
auth_param basic program {helper}
auth_param basic realm parent
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
coredump_dir {folder}
visible_hostname parent.test
shutdown_lifetime 0 seconds
{user}
"""

HELPER = """#!/bin/sh
while read -r line; do [ "$line" = "{name} {password}" ] && echo OK || echo ERR; done
"""


@pytest.fixture
def squid(tmp_path, authority):
    """Squid with one known user; `(plain port, TLS port, password, lines of its log)`."""
    need("squid")
    folder = tmp_path / "squid"
    folder.mkdir()
    folder.chmod(0o777)
    pem = folder / "parent.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    pem.chmod(0o644)
    password = canary("parent")
    helper = folder / "helper"
    helper.write_text(HELPER.format(name="corp", password=password))
    helper.chmod(0o755)
    for parent in [folder, *folder.parents]:
        if parent.stat().st_mode & 0o5 != 0o5 and parent.owner() == "root":
            parent.chmod(parent.stat().st_mode | 0o5)
    plain, tls = free_port(), free_port()
    conf = folder / "squid.conf"
    conf.write_text(SQUID.format(plain=plain, tls=tls, pem=pem, helper=helper, folder=folder, user=""))
    process = subprocess.Popen(["squid", "-N", "-f", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_port(tls, process)
    yield plain, tls, password, lambda: (folder / "access.log").read_text()
    process.terminate()
    process.wait(20)


def through(one, url, ca=None):
    """Status and body of a GET through the proxy."""
    command = ["curl", "-sS", "-x", one.url, "-w", "\n%{http_code}", *(["--cacert", str(one.ca)] if ca else []), url]
    done = subprocess.run(command, env=one.env, capture_output=True, text=True, timeout=60)
    return done.stdout.rsplit("\n", 1)[-1], done.stdout, done.stderr


def with_parent(origin, secret, parent, password, name="corp"):
    auth = f"credentials:\n  corp: {{type: basic, username: {name}, password: {password}}}\n"
    upstream = f"proxy: {{upstream: {{url: \"{parent}\", auth: corp}}, deny_addresses: []}}\n"
    return bearer(origin, secret).replace("version: 1\n", "version: 1\n" + upstream + auth)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("tls", [True, False])
def test_squid(origins, proxy, squid, scheme, tls):
    origin, secret = origins(tls=tls), canary()
    plain, secure, password, log = squid
    parent = f"{scheme}://127.0.0.1:{plain if scheme == 'http' else secure}"
    one = proxy(with_parent(origin, secret, parent, password), canaries=[secret, password]).start()
    for _ in range(2):
        status, text, errors = through(one, origin.url("/x"), ca=tls)
        assert status == "200", (text, errors, one.output())
    assert set(origin.values("authorization")) == {f"Bearer {secret}"}
    assert not origin.values("proxy-authorization"), "the parent's password went on to the origin"
    one.stop()  # Squid writes of a tunnel when it ends
    began = time.monotonic()
    while "corp" not in (seen := log()) and time.monotonic() - began < 20:
        time.sleep(0.05)
    assert ("CONNECT" in seen) == tls and "corp" in seen, seen


def test_squid_refuses_a_wrong_password(origins, proxy, squid):
    origin, secret, wrong = origins(), canary(), canary("wrong")
    one = proxy(with_parent(origin, secret, f"https://127.0.0.1:{squid[1]}", wrong), canaries=[secret, wrong]).start()
    # The tunnel of the client is ours, so the refusal is an answer inside it.
    status, text, _ = through(one, origin.url("/"), ca=True)
    assert status == "502" and "upstream-connect" in text, text
    assert not origin.seen


def test_a_parent_that_nobody_vouches_for_gets_nothing(origins, proxy, squid, tmp_path):
    """The parent's certificate is verified before its password leaves."""
    origin, secret = origins(tls=False), canary()
    _, secure, password, log = squid
    one = proxy(with_parent(origin, secret, f"https://127.0.0.1:{secure}", password), canaries=[secret, password])
    one.trust = []
    one.start()
    status, text, _ = through(one, origin.url("/"))
    assert status == "502" and "upstream" in text, text
    assert "corp" not in log() and not origin.seen


@pytest.mark.parametrize("tls", [True, False])
def test_microsocks(origins, proxy, tls):
    need("microsocks")
    origin, secret, password = origins(tls=tls), canary(), canary("socks")
    port = free_port()
    server = subprocess.Popen(["microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", "corp", "-P", password],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, server)
        good = proxy(with_parent(origin, secret, f"socks5://127.0.0.1:{port}", password), canaries=[secret, password]).start()
        status, text, errors = through(good, origin.url("/"), ca=tls)
        assert status == "200", (text, errors, good.output())
        assert origin.values("authorization") == [f"Bearer {secret}"]
        wrong = canary("wrong")
        bad = proxy(with_parent(origin, secret, f"socks5://127.0.0.1:{port}", wrong), canaries=[secret, wrong]).start()
        status, text, _ = through(bad, origin.url("/"), ca=tls)
        assert status == "502" and len(origin.seen) == 1, text
    finally:
        server.terminate()
        server.wait(20)
