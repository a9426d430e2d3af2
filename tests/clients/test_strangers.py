"""Another user of the machine is no client: neither of the proxy, nor of the console."""

import os
import subprocess

import pytest
from conftest import bearer, canary

NOBODY = 65534


def as_nobody(*args):
    return subprocess.run(["curl", "-sS", "-o", "-", "-w", " %{http_code}", *args], user=NOBODY, group=NOBODY,
                          extra_groups=[], env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, timeout=30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_turned_away(origins, proxy):
    origin, secret = origins(tls=False), canary()
    one = proxy(bearer(origin, secret), canaries=[secret]).start()
    console = one.addresses["console"].removeprefix("http://").rstrip("/")
    refused = as_nobody("-x", one.url, origin.url("/"))
    assert refused.stdout.endswith(" 407"), refused.stdout
    assert not origin.seen
    invited = one.command("open", "--print").stdout.strip()
    stolen = as_nobody(invited)
    assert stolen.stdout.endswith(" 403") and "once" not in stolen.stdout, stolen.stdout
    assert as_nobody(f"http://{console}/healthz").stdout.endswith(" 200")
    # The address was not used up by the attempt.
    mine = subprocess.run(["curl", "-sS", "-i", invited], capture_output=True, text=True, timeout=30)
    assert "set-cookie" in mine.stdout.lower(), mine.stdout
