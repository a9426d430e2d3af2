"""NTLM, bare and in Negotiate, against pyspnego: an implementation that is not ours judges every message."""

import collections
import concurrent.futures
import hashlib
import os
import ssl
import subprocess

import pytest
import trustme
from conftest import canary
from ntlm_server import How, NtlmHandler

USER, DOMAIN = "ann", "ACME"


@pytest.fixture
def password(tmp_path, monkeypatch):
    """The password of the only account."""
    secret = canary("pw")
    users = tmp_path / "users"
    users.write_text(f"{DOMAIN}:{USER}:{secret}\n:ann@acme.test:{secret}\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    return secret


@pytest.fixture
def ntlm(origins):
    def make(tls=False, **how):
        origin = origins(tls, handler=NtlmHandler)
        origin.ntlm, origin.accepted, origin.connections = How(**how), [], []
        return origin

    return make


def config(origin, password, type="ntlm", **more):
    name = more.pop("username", f"{DOMAIN}\\\\{USER}")
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    who = "principal" if type == "negotiate" else "username"
    return (f'version: 1\nrules:\n  - {{name: N, host: "{origin.base}", '
            f'auth: {{type: {type}, {who}: "{name}", password: {password}{keys}}}}}\n')


def ask(proxy, *args, post=None):
    """Status and body."""
    data = [] if post is None else ["--data-binary", "@-"]
    result = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", "-x", proxy.url, "--cacert", proxy.ca, *data, *args],
                            env=proxy.env, capture_output=True, text=True, timeout=60, input=post or "")
    assert result.returncode == 0, result.stderr
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body


def binding_of(pem):
    """RFC 5929 by other means than ours: hashlib over what the ssl module reads."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    return b"tls-server-end-point:" + hashlib.sha256(der).digest()


@pytest.fixture(scope="session")
def bound_tls(authority):
    """A server certificate whose binding is known."""
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context, binding_of(leaf.cert_chain_pems[0].bytes())


@pytest.fixture
def bound(bound_tls, ntlm, monkeypatch):
    """An https origin that wants the channel binding."""
    def make(**how):
        origin = ntlm(True, binding=bound_tls[1], **how)
        origin.server.tls = bound_tls[0]
        return origin

    return make


SCHEMES = [("ntlm", ("NTLM",)), ("ntlm", ("Negotiate",)), ("negotiate", ("Negotiate", "NTLM"))]


@pytest.mark.parametrize("type,schemes", SCHEMES)
def test_accepted_and_then_the_connection_is(ntlm, proxy, password, type, schemes):
    origin = ntlm(schemes=schemes)
    more = {"mech": "ntlm"} if type == "negotiate" else {}
    one = proxy(config(origin, password, type, **more), canaries=[password]).start("trace")
    for n in range(3):
        status, body = ask(one, origin.url(f"/{n}"))
        assert (status, '"account": "ACME\\\\ann"' in body) == (200, True), (body, origin.ntlm.results)
    assert origin.ntlm.results == ["ACME\\ann"], "one handshake for all"
    assert len({connection for _, _, connection in origin.accepted}) == 1
    status, body = ask(one, origin.url("/post"), post="x" * 300_000)
    assert status == 200 and '"bytes": 300000' in body
    assert all("NTLM " not in str(seen["path"]) for seen in origin.seen)


@pytest.mark.parametrize("type,schemes", SCHEMES)
def test_a_body_leaves_once_and_whole(ntlm, proxy, password, type, schemes):
    origin = ntlm(schemes=schemes)
    more = {"mech": "ntlm"} if type == "negotiate" else {}
    one = proxy(config(origin, password, type, **more), canaries=[password]).start("trace")
    status, body = ask(one, origin.url("/post"), post="y" * 100_000)
    assert status == 200 and '"bytes": 100000' in body, (body, origin.ntlm.results)
    sizes = [seen["bytes"] for seen in origin.seen]
    assert sizes[:-1] == [0] * (len(sizes) - 1) and sizes[-1] == 100_000, sizes


def test_upn_and_hash(ntlm, proxy, password):
    import spnego._ntlm_raw.crypto as crypto
    origin = ntlm()
    one = proxy(config(origin, password, username="ann@acme.test"), canaries=[password]).start("trace")
    assert ask(one, origin.url("/"))[0] == 200
    assert origin.ntlm.results == ["ann@acme.test"]
    digits = crypto.ntowfv1(password).hex()
    text = config(origin, "x").replace("password: x", f'nt_hash: "{digits}"')
    one = proxy(text, canaries=[digits]).start("trace")
    assert ask(one, origin.url("/"))[0] == 200


@pytest.mark.parametrize("type,schemes", SCHEMES)
def test_a_wrong_password_is_refused_once(ntlm, proxy, password, type, schemes):
    wrong = canary("wrong")
    origin = ntlm(schemes=schemes)
    more = {"mech": "ntlm"} if type == "negotiate" else {}
    one = proxy(config(origin, wrong, type, **more), canaries=[wrong]).start("trace")
    status, body = ask(one, origin.url("/"))
    assert status == 401
    assert origin.ntlm.results == ["InvalidTokenError"] and not origin.accepted
    status, body = ask(one, origin.url("/"), post="body")
    assert status == 401 and len(origin.ntlm.results) == 2
    # The connection of a failed handshake is never used again.
    tried = [seen["connection"] for seen in origin.seen]
    assert len(set(tried[:len(tried) // 2]) & set(tried[len(tried) // 2:])) == 0


@pytest.mark.parametrize("type,schemes", SCHEMES)
def test_channel_binding(bound, proxy, password, type, schemes):
    origin = bound(schemes=schemes)
    more = {"mech": "ntlm"} if type == "negotiate" else {}
    one = proxy(config(origin, password, type, **more), canaries=[password]).start("trace")
    assert ask(one, origin.url("/"))[0] == 200, origin.ntlm.results
    two = proxy(config(origin, password, type, channel_binding="off", **more), canaries=[password]).start("trace")
    assert ask(two, origin.url("/"))[0] == 401
    assert origin.ntlm.results == ["ACME\\ann", "BadBindingsError"]


def test_the_binding_of_another_certificate_is_refused(bound, proxy, password):
    """Extended Protection: what a machine in the middle forwards is worth nothing."""
    origin = bound()
    origin.ntlm.binding = b"tls-server-end-point:" + bytes(32)
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    assert ask(one, origin.url("/"))[0] == 401
    assert origin.ntlm.results == ["BadBindingsError"]


def test_a_connection_that_closes_in_the_middle_is_replaced_once(ntlm, proxy, password):
    origin = ntlm(close_on_leg_2=1)
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    assert ask(one, origin.url("/"), post="body")[0] == 200
    assert len(origin.connections) == 2 and origin.ntlm.legs == 2
    origin = ntlm(close_on_leg_2=100)
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    status, body = ask(one, origin.url("/"))
    assert status == 502 and "in the middle of the handshake" in body
    assert len(origin.seen) == 2


def test_a_server_that_challenges_every_request(ntlm, proxy, password):
    origin = ntlm(every_request=True)
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    for n in range(4):
        status, body = ask(one, origin.url(f"/{n}"), post="z" * 50_000)
        assert status == 200 and '"bytes": 50000' in body, n
    assert origin.ntlm.results == ["ACME\\ann"] * 4
    # Once this is known, no body goes to a refusal.
    assert [seen["bytes"] for seen in origin.seen].count(50_000) <= 5


def test_a_path_without_authentication(ntlm, proxy, password):
    origin = ntlm()
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    assert ask(one, origin.url("/public"))[0] == 200
    status, body = ask(one, origin.url("/public"), post="body")
    assert status == 200 and '"bytes": 4' in body
    assert origin.ntlm.results == []


def test_no_two_requests_share_a_handshake(ntlm, proxy, password):
    """Fifty at once, two accounts of the same server by path: every answer has its own account's name."""
    origin = ntlm()
    with open(os.environ["NTLM_USER_FILE"], "a") as users:
        users.write(f"{DOMAIN}:bob:{password}\n")
    text = (f'version: 1\nrules:\n  - {{name: B, host: "{origin.base}", path: "/bob/**", '
            f'auth: {{type: ntlm, username: "ACME\\\\bob", password: {password}}}}}\n'
            f'  - {{name: A, host: "{origin.base}", auth: {{type: ntlm, username: "ACME\\\\ann", password: {password}}}}}\n')
    one = proxy(text, canaries=[password]).start()

    def send(n):
        who = ("bob", "ann")[n % 2]
        return who, ask(one, origin.url(f"/{who}/{n}"), post="b" * 5000 if n % 3 == 0 else None)

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        for _ in range(2):
            for who, (status, body) in pool.map(send, range(50)):
                assert status == 200 and f'ACME\\\\{who}"' in body, (who, status, body)
    accounts = collections.defaultdict(set)
    for _, account, connection in origin.accepted:
        accounts[connection].add(account)
    assert all(len(names) == 1 for names in accounts.values())
    assert set(origin.ntlm.results) == {"ACME\\ann", "ACME\\bob"}


def test_our_messages_have_the_fields_of_another_client(ntlm, proxy, password, tmp_path):
    """curl's NTLM beside ours, taken apart by pyspnego."""
    import base64

    from spnego._ntlm_raw.messages import Authenticate, AvId, NTClientChallengeV2
    features = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout
    if "NTLM" not in features:
        pytest.skip("this curl has no NTLM")

    def last(origin):
        values = [value for value in origin.values("authorization")]
        return Authenticate.unpack(base64.b64decode(values[-1].split()[1]))

    origin = ntlm()
    subprocess.run(["curl", "-sS", "-o", "/dev/null", "--ntlm", "-u", f"{DOMAIN}\\{USER}:{password}", origin.url("/")],
                   check=True, env={"PATH": os.environ["PATH"]})
    theirs = last(origin)
    one = proxy(config(origin, password), canaries=[password]).start("trace")
    assert ask(one, origin.url("/"))[0] == 200
    ours = last(origin)
    assert (ours.user_name, ours.domain_name) == (theirs.user_name, theirs.domain_name) == (USER, DOMAIN)
    assert len(origin.ntlm.results) == 2
    # curl knows neither MIC nor service name; ours are there.
    info = NTClientChallengeV2.unpack(ours.nt_challenge_response[16:]).av_pairs
    assert info[AvId.target_name] == "HTTP/127.0.0.1" and ours.mic and any(ours.mic)
    assert info[AvId.channel_bindings] == bytes(16), "plain http binds to nothing"


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_logs_in_by_itself(ntlm, proxy, password, tls):
    """No rule is for this host: curl's own NTLM passes, and its connection upstream is nobody else's."""
    origin = ntlm(tls)
    one = proxy("version: 1\nproxy: {unmatched: inspect}\nrules: []\n", canaries=[password]).start()
    own = ["--ntlm", "-u", f"{DOMAIN}\\{USER}:{password}"]
    status, body = ask(one, *own, origin.url("/a"), origin.url("/b"))
    assert status == 200 and body.count("ACME") == 2, body
    assert origin.ntlm.results == ["ACME\\ann"]
    assert len({connection for _, _, connection in origin.accepted}) == 1
    status, body = ask(one, origin.url("/c"))
    assert status == 401
    status, body = ask(one, *own, origin.url("/post"), post="p" * 70_000)
    assert status == 200 and '"bytes": 70000' in body


@pytest.mark.parametrize("schemes", [("NTLM",), ("Negotiate",)])
def test_a_parent_proxy(ntlm, proxy, password, schemes):
    """The origin here plays a parent proxy that wants a login of the connection."""
    parent = ntlm(is_proxy=True, schemes=schemes)
    text = (f'version: 1\nproxy: {{upstream: {{url: "{parent.base}", auth: corp}}}}\ncredentials:\n'
            f'  corp: {{type: ntlm, username: "{DOMAIN}\\\\{USER}", password: {password}}}\nrules: []\n')
    one = proxy(text, canaries=[password]).start("trace")
    for n in range(3):
        status, body = ask(one, f"http://plain.test/{n}", post="q" * 60_000)
        assert status == 200 and '"bytes": 60000' in body, (body, parent.ntlm.results)
    assert parent.ntlm.results == ["ACME\\ann"]
    wrong = canary("wrong")
    one = proxy(text.replace(password, wrong), canaries=[wrong]).start("trace")
    status, body = ask(one, "http://plain.test/")
    assert status == 502 and "proxy.upstream.auth" in body
    assert parent.ntlm.results == ["ACME\\ann", "InvalidTokenError"]
