"""OAuth 2.0 against authorization servers that we did not write: npm oidc-provider and @node-oauth/oauth2-server."""

import base64
import concurrent.futures
import json
import re
import subprocess

import pytest
import requests
from conftest import BINARY, DEADLINE, canary
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from oauth2_people import Chromium, Login, NodeServer, Person, until

NATIVE = {"token_endpoint_auth_method": "none", "application_type": "native",
          "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
          "redirect_uris": ["http://127.0.0.1/callback"], "scope": "openid offline_access email"}


@pytest.fixture
def server():
    made = []

    def start(clients, script="oidc_server.mjs", **options):
        options = clients if script != "oidc_server.mjs" else {"clients": clients, **options}
        made.append(NodeServer(script, options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def chromium(tmp_path):
    browser = Chromium(tmp_path)
    yield browser
    browser.close()


def config(server, credential, name="me"):
    return (f"version: 1\ntokens: {{store: file}}\ncredentials:\n  {name}:\n    type: oauth2\n    issuer: \"{server.issuer}\"\n"
            + "".join(f"    {line}\n" for line in credential.strip().splitlines())
            + f"rules:\n  - {{name: Api, host: \"{server.issuer}\", path: /me, auth: {name}}}\n")


PERSON = """
grant: authorization_code
client_id: cli
scope: [openid, offline_access, email]
auth_params: [{name: prompt, value: consent}]
"""


def get(proxy, url, **more):
    return requests.get(url, proxies={"http": proxy.url, "https": proxy.url}, timeout=DEADLINE, **more)


def told(proxy, *args, code=0):
    result = proxy.command(*args)
    assert result.returncode == code, (args, result.stdout, result.stderr)
    return result.stdout.strip() if code == 0 else result.stderr


def log_in(proxy, name="me", person=None):
    login = Login(proxy, name, "--no-browser")
    page = (person or Person()).visit(login.url)
    assert "You are logged in" in page.text, page.text
    return login.end()


def restart(proxy):
    proxy.stop()
    (proxy.folder / "addresses.json").unlink()
    proxy.start("trace")


def keep_secret(proxy, *tokens):
    """From here on none of these may show in the proxy's output."""
    proxy.canaries.extend(tokens)


def test_a_code_with_pkce_through_the_running_proxy(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    said = log_in(one)
    assert "logged in: me" in said
    answer = get(one, idp.issuer + "/me")
    assert (answer.status_code, answer.json()["sub"]) == (200, "ann"), answer.text
    shown = json.loads(told(one, "token", "show", "me", "--json"))
    assert shown["state"] == "good" and shown["id_claims"]["sub"] == "ann" and shown["expires"], shown
    tokens = [told(one, "token", "get", "me", *flag) for flag in ([], ["--id-token"], ["--refresh-token"])]
    assert len(set(tokens)) == 3 and tokens[1].count(".") == 2
    keep_secret(one, *tokens)
    # A script can use it.
    direct = requests.get(idp.issuer + "/me", headers={"authorization": f"Bearer {tokens[0]}"}, timeout=DEADLINE)
    assert direct.json()["sub"] == "ann"


def test_refresh_rotates_survives_a_restart_and_reuse_is_detected(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    log_in(one)
    seen = [told(one, "token", "get", "me", "--refresh-token")]
    for _ in range(3):
        told(one, "token", "refresh", "me")
        seen.append(told(one, "token", "get", "me", "--refresh-token"))
    assert len(set(seen)) == 4, "each refresh brought another refresh token"
    restart(one)
    assert get(one, idp.issuer + "/me").status_code == 200
    told(one, "token", "refresh", "me")
    keep_secret(one, *seen)
    # Somebody spends an old one: the server revokes the family, and says so to us from then on.
    stolen = requests.post(idp.issuer + "/token", timeout=DEADLINE, data={
        "grant_type": "refresh_token", "client_id": "cli", "refresh_token": seen[1]})
    assert stolen.json()["error"] == "invalid_grant"
    idp.wait_for("grant.revoked")
    error = told(one, "token", "refresh", "me", code=4)
    assert "needs a login" in error and "countersign login me" in error, error
    assert idp.names().count("grant.success") == 5, "one code, four refreshes, and no more after the refusal"
    # And it can be mended by logging in.
    log_in(one)
    assert get(one, idp.issuer + "/me").status_code == 200


def test_requests_begin_one_login_and_wait_for_it(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(get, one, idp.issuer + "/me") for _ in range(12)]
        pending = lambda: json.loads(told(one, "status", "--json"))["logins"]
        until(pending, "a pending login")
        assert len(pending()) == 1 and pending()[0]["credential"] == "me"
        url = pending()[0]["url"]
        assert url in one.output(), "the terminal shows where to go"
        assert "You are logged in" in Person().visit(url).text
        assert {one.result().status_code for one in waiting} == {200}
    assert idp.names().count("grant.success") == 1
    assert not pending()


def test_a_login_elsewhere_wakes_the_requests_that_wait(server, proxy):
    """A standalone `login` over the same store, as from another container: no word passes but the store's."""
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    run_file = one.folder / "data/run"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, one, idp.issuer + "/me")
        until(lambda: "needs a login" in one.output(), "the announcement")
        hidden = run_file.rename(one.folder / "hidden")
        log_in(one)
        assert waiting.result().status_code == 200
        if run_file.exists():
            run_file.rmdir()
        hidden.rename(run_file)


def test_nobody_logs_in_and_the_client_is_told_what_to_run(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON + "login_wait: 1s\n")).start("trace")
    answer = get(one, idp.issuer + "/me")
    assert answer.status_code == 511 and answer.headers["x-countersign-error"] == "login-needed"
    assert "countersign login me" in answer.json()["detail"]
    assert "state=" not in answer.text, "the address is for the terminal"


def test_the_final_address_can_be_pasted(server, proxy):
    """As in a container whose loopback the browser cannot reach."""
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON))
    login = Login(one, "me", "--no-browser")
    final = Person().visit(login.url, until_url="http://127.0.0.1:" + re.search(r"127\.0\.0\.1%3A(\d+)", login.url)[1])
    login.paste(final.replace("state=", "state=x"))
    login.paste(final)
    said = login.end()
    assert "logged in: me" in said and "another login" in said, said
    assert told(one, "token", "get", "me")


@pytest.mark.parametrize("change, said", [
    (lambda url: re.sub(r"iss=[^&]+", "iss=https%3A%2F%2Fevil.test", url), "another server"),
    (lambda url: re.sub(r"[?&]iss=[^&]+", "", url), "names no issuer"),
    (lambda url: re.sub(r"code=[^&]+", "code=forged", url), "invalid_grant"),
    (lambda url: re.sub(r"code=[^&]+", "error=access_denied", url), "access_denied"),
])
def test_answers_that_were_tampered_with_are_refused(server, proxy, change, said):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON))
    login = Login(one, "me", "--no-browser")
    final = Person().visit(login.url, until_url="http://127.0.0.1:" + re.search(r"127\.0\.0\.1%3A(\d+)", login.url)[1])
    login.paste(change(final))
    _, err = login.process.communicate(timeout=DEADLINE)
    assert login.process.returncode in (1, 4) and said in err, err
    assert "state" in json.loads(told(one, "token", "show", "me", "--json"))
    assert json.loads(told(one, "token", "show", "me", "--json"))["state"] == "login-needed"


def test_a_code_is_typed_on_another_device(server, proxy):
    idp = server([{"client_id": "tv", "token_endpoint_auth_method": "none", "application_type": "native",
                   "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
                   "response_types": [], "redirect_uris": [], "scope": "openid offline_access"}])
    one = proxy(config(idp, "grant: device_code\nclient_id: tv\nscope: openid offline_access")).start("trace")
    login = Login(one, "me", "--no-browser")
    assert re.fullmatch(r"\w{4}-\w{4}", login.code) and login.code in login.url, login.said
    page = Person("bob").visit(login.url)
    assert page.status_code == 200, page.text
    assert "logged in: me" in login.end()
    assert get(one, idp.issuer + "/me").json()["sub"] == "bob"
    told(one, "token", "refresh", "me")
    assert get(one, idp.issuer + "/me").json()["sub"] == "bob"


def test_pushed_authorization_requests_where_they_are_demanded(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}], par=True)
    one = proxy(config(idp, PERSON)).start("trace")
    login = Login(one, "me", "--no-browser")
    assert "request_uri=" in login.url and "code_challenge" not in login.url, login.url
    assert "You are logged in" in Person().visit(login.url).text
    login.end()
    assert "pushed_authorization_request.success" in idp.names()
    assert get(one, idp.issuer + "/me").status_code == 200


def test_tokens_bound_to_a_key_with_nonces_demanded_everywhere(server, proxy):
    idp = server([{"client_id": "cli", "dpop_bound_access_tokens": True, **NATIVE}], nonce=True)
    one = proxy(config(idp, PERSON + "dpop: true\n")).start("trace")
    log_in(one)
    for _ in range(3):
        assert get(one, idp.issuer + "/me").json()["sub"] == "ann"
    shown = json.loads(told(one, "token", "show", "me", "--json"))
    assert shown["token_type"] == "dpop" and len(shown["bound_to"]) == 43
    # The refresh token of a public client is bound to the key, which has to survive a restart.
    restart(one)
    told(one, "token", "refresh", "me")
    assert json.loads(told(one, "token", "show", "me", "--json"))["bound_to"] == shown["bound_to"]
    assert get(one, idp.issuer + "/me").status_code == 200
    # The token alone is worth nothing.
    token = told(one, "token", "get", "me")
    keep_secret(one, token)
    for scheme in ("DPoP", "Bearer"):
        direct = requests.get(idp.issuer + "/me", headers={"authorization": f"{scheme} {token}"}, timeout=DEADLINE)
        assert direct.status_code in (400, 401), direct.text


def jwk(key, **more):
    point = key.public_key().public_numbers()
    b64 = lambda number: base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
    return {"kty": "EC", "crv": "P-256", "x": b64(point.x), "y": b64(point.y), **more}


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()


ROBOT = {"client_id": "robot", "grant_types": ["client_credentials"], "response_types": [], "redirect_uris": [],
         "scope": "orders.read"}


@pytest.mark.parametrize("aud", ["issuer", "auto"])
def test_private_key_jwt(server, proxy, aud):
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    idp = server([{**ROBOT, "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
                   "jwks": {"keys": [jwk(key, kid="k1", alg="ES256", use="sig")]}}])
    text = ("grant: client_credentials\nclient_id: robot\nscope: orders.read\nclient_auth: private_key_jwt\n"
            f"client_assertion_aud: {aud}\nclient_key: {{key: key.pem, alg: ES256, kid: k1}}")
    one = proxy(config(idp, text))
    (one.folder / "key.pem").write_text(pem(key))
    assert told(one, "token", "get", "me")
    (one.folder / "key.pem").write_text(pem(other))
    error = told(one, "token", "refresh", "me", code=1)
    assert "invalid_client" in error and "client_assertion_aud" in error, error


def test_client_secret_jwt_and_basic_and_body(server, proxy):
    secret = canary("a-long-client-secret-for-hs256")
    ways = {"client_secret_jwt": "client_secret_jwt", "client_secret_basic": "basic", "client_secret_post": "body"}
    for theirs, ours in ways.items():
        idp = server([{**ROBOT, "client_secret": secret, "token_endpoint_auth_method": theirs}])
        text = f"grant: client_credentials\nclient_id: robot\nscope: orders.read\nclient_auth: {ours}\nclient_secret: "
        assert told(proxy(config(idp, text + secret), canaries=[secret]), "token", "get", "me")
        wrong = told(proxy(config(idp, text + "wrong-" + secret)), "token", "get", "me", code=1)
        assert "invalid_client" in wrong and "client_auth" in wrong and secret not in wrong, wrong


def test_tokens_bound_to_a_certificate(server, proxy, authority, tmp_path):
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "robot")])
    import datetime
    now = datetime.datetime.now(datetime.UTC)
    own = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
           .serial_number(7).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
           .sign(key, hashes.SHA256()))
    der = own.public_bytes(serialization.Encoding.DER)
    client = {**NATIVE, "client_id": "cli", "token_endpoint_auth_method": "self_signed_tls_client_auth",
              "tls_client_certificate_bound_access_tokens": True,
              "jwks": {"keys": [jwk(key, x5c=[base64.b64encode(der).decode()])]}}
    idp = server([client], tls={"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")})
    text = PERSON + "client_auth: tls\nclient_cert: {cert: own.pem, key: own.key}\n"
    one = proxy(config(idp, text))
    (one.folder / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (one.folder / "own.key").write_text(pem(key))
    one.start("trace")
    log_in(one, person=Person(trust=str(tmp_path / "ca.pem")))
    answer = get(one, idp.issuer + "/me", verify=str(one.ca))
    assert answer.status_code == 200 and answer.json()["sub"] == "ann", answer.text
    told(one, "token", "refresh", "me")
    # Without the certificate the token is worth nothing.
    token = told(one, "token", "get", "me")
    direct = requests.get(idp.issuer + "/me", headers={"authorization": f"Bearer {token}"}, timeout=DEADLINE,
                          verify=str(tmp_path / "ca.pem"))
    assert direct.status_code == 401, direct.text


def test_logout_revokes_at_the_server(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    log_in(one)
    access, refresh = told(one, "token", "get", "me"), told(one, "token", "get", "me", "--refresh-token")
    result = one.command("logout", "me")
    assert result.returncode == 0 and "revoked at the server" in result.stderr, result.stderr
    idp.wait_for("refresh_token.destroyed")
    spent = requests.post(idp.issuer + "/token", timeout=DEADLINE, data={
        "grant_type": "refresh_token", "client_id": "cli", "refresh_token": refresh})
    assert spent.json()["error"] == "invalid_grant"
    direct = requests.get(idp.issuer + "/me", headers={"authorization": f"Bearer {access}"}, timeout=DEADLINE)
    assert direct.status_code == 401
    told(one, "token", "get", "me", code=4)


def test_tokens_travel_encrypted(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one, two = proxy(config(idp, PERSON)), proxy(config(idp, PERSON))
    log_in(one)
    token = told(one, "token", "get", "me")
    for folder in (one.folder, two.folder):
        (folder / "pass").write_text("correct horse\n")
    (two.folder / "wrong").write_text("battery\n")
    told(one, "token", "export", "me", "--out", "out.json", "--passphrase-file", "pass")
    exported = (one.folder / "out.json").read_text()
    assert token not in exported and (one.folder / "out.json").stat().st_mode & 0o077 == 0
    (two.folder / "in.json").write_text(exported)
    assert "passphrase is wrong" in told(two, "token", "import", "in.json", "--passphrase-file", "wrong", code=1)
    told(two, "token", "get", "me", code=4)
    told(two, "token", "import", "in.json", "--passphrase-file", "pass")
    assert told(two, "token", "get", "me") == token
    opened = json.loads(told(one, "token", "export", "me", "--unencrypted"))
    assert token in opened["tokens"]["me"]


def test_a_token_inside_another_credential(server, proxy, origins):
    idp, origin = server([{"client_id": "cli", **NATIVE}]), origins(tls=False)
    text = config(idp, PERSON).replace("rules:\n", (
        "  both: {type: api_key, name: X-Both, value: \"${token:me} ${token:me.id_token}\"}\nrules:\n"
        f"  - {{name: Origin, host: \"{origin.base}\", auth: both}}\n"))
    one = proxy(text).start("trace")
    log_in(one)
    assert get(one, origin.url("/")).status_code == 200
    access, identity = origin.values("x-both")[0].split(" ")
    assert access == told(one, "token", "get", "me") and identity == told(one, "token", "get", "me", "--id-token")


def test_a_code_in_chromium(server, proxy, chromium):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON)).start("trace")
    login = Login(one, "me", "--no-browser")
    assert "You are logged in" in chromium.log_in(login.url)
    login.end()
    assert get(one, idp.issuer + "/me").json()["sub"] == "ann"


def test_an_implicit_login_in_chromium(server, proxy, chromium, origins):
    idp, origin = server([{
        "client_id": "spa", "token_endpoint_auth_method": "none", "application_type": "native",
        "grant_types": ["implicit"], "response_types": ["id_token token"],
        "redirect_uris": ["http://127.0.0.1/callback"], "scope": "openid email"}]), origins(tls=False)
    text = config(idp, "grant: implicit\nclient_id: spa\nscope: openid email\nresponse_type: id_token token")
    one = proxy(text).start("trace")
    login = Login(one, "me", "--no-browser")
    shown = chromium.log_in(login.url)
    said = login.end()
    assert "You are logged in" in shown, (shown, said)
    assert get(one, idp.issuer + "/me").json()["sub"] == "ann"
    assert chromium.js("location.hash") == "", "the token does not stay in the address"
    keep_secret(one, told(one, "token", "get", "me"), told(one, "token", "get", "me", "--id-token"))


def test_the_browser_is_opened_with_the_address_alone(server, proxy):
    idp = server([{"client_id": "cli", **NATIVE}])
    one = proxy(config(idp, PERSON))
    browser = one.folder / "browser"
    browser.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$#\" \"$1\" > {one.folder}/opened.new\n"
                       f"mv {one.folder}/opened.new {one.folder}/opened\n")
    browser.chmod(0o755)
    one.env["BROWSER"] = str(browser)
    login = Login(one, "me")
    opened = one.folder / "opened"
    until(opened.exists, "the browser")
    assert opened.read_text().splitlines() == ["1", login.url]
    assert "You are logged in" in Person().visit(login.url).text
    login.end()


def test_user_name_and_password(server, proxy):
    secret, password = canary("client"), canary("password")
    idp = server(["legacy", secret, "ann", password], script="password_server.mjs")
    text = (f"version: 1\ntokens: {{store: file}}\ncredentials:\n  me:\n    type: oauth2\n    grant: password_credentials\n"
            f"    token_url: {idp.issuer}/token\n    client_id: legacy\n    client_secret: {secret}\n    username: ann\n"
            f"    password: \"${{env:PASSWORD}}\"\nrules:\n  - {{name: Api, host: \"{idp.issuer}\", path: /me, auth: me}}\n")
    one = proxy(text, env={"PASSWORD": password}, canaries=[secret, password]).start("trace")
    assert get(one, idp.issuer + "/me").json() == {"user": "ann"}
    told(one, "token", "refresh", "me")
    assert [event.get("grant") for event in idp.events if event["event"] == "token"] == ["password", "refresh_token"]
    wrong = proxy(text, env={"PASSWORD": "wrong"}).start()
    answer = get(wrong, idp.issuer + "/me")
    assert answer.status_code == 502 and "`password`" in answer.json()["detail"], answer.text


def test_a_login_that_nobody_needs_says_so(server, proxy):
    idp = server([{**ROBOT, "client_secret": "s"}])
    one = proxy(config(idp, "grant: client_credentials\nclient_id: robot\nclient_secret: s"))
    result = subprocess.run([BINARY, "login", "me", *one.common], env=one.env, cwd=one.folder, capture_output=True,
                            text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert result.returncode == 1 and "needs no login" in result.stderr, result.stderr
    assert "did you mean `me`" in told(one, "token", "show", "ne", code=1)
