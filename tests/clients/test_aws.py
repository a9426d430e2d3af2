"""aws_sigv4 before judges that are not ours: moto for services, botocore for signatures, the SDKs as clients.

Clients have keys that are good for nothing, or none; the proxy has the ones that count.
"""

import json
import pathlib
import random
import socket
import subprocess
import sys
import threading
import urllib.parse

import boto3
import botocore.config
import botocore.exceptions
import pytest
from aws_origin import AwsHandler, Authority
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import CLEAN, canary, free_port, need, wait_for_port

HERE = pathlib.Path(__file__).parent
REGION = "eu-west-1"
ACCOUNT = "123456789012"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
GIB = 1 << 30


class Moto:
    """moto as a server: after four requests that set it up, it lets in signed ones alone."""

    def __init__(self, folder, tls=None):
        self.port = free_port()
        self.base = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        if tls:
            command += ["-c", str(tls[0]), "-k", str(tls[1])]
        self.verify = str(tls[2]) if tls else None
        env = {name: value for name, value in CLEAN.items() if not name.startswith("AWS_")}
        self.log = open(folder / f"moto-{self.port}.log", "wb")
        self.process = subprocess.Popen(command, env={**env, "INITIAL_NO_AUTH_ACTION_COUNT": "4"}, stdout=self.log, stderr=self.log)
        wait_for_port(self.port, self.process)
        iam = self.client("iam", "x", "y")
        iam.create_user(UserName="user")
        key = iam.create_access_key(UserName="user")["AccessKey"]
        self.access, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(ALLOW))
        trust = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"]}]}
        iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(trust))
        self.role = f"arn:aws:iam::{ACCOUNT}:role/role"
        self.direct("iam").put_role_policy(RoleName="role", PolicyName="all", PolicyDocument=json.dumps(ALLOW))
        self.direct("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.queue = self.direct("sqs").create_queue(QueueName="queue")["QueueUrl"]

    def client(self, service, access, secret, **more):
        config = botocore.config.Config(retries={"max_attempts": 1, "mode": "standard"}, **more)
        return boto3.client(service, endpoint_url=self.base, region_name=REGION, aws_access_key_id=access,
                            aws_secret_access_key=secret, verify=self.verify, config=config)

    def direct(self, service):
        """With the right keys and without the proxy."""
        return self.client(service, self.access, self.secret)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def motos(tmp_path_factory, authority):
    folder = tmp_path_factory.mktemp("moto")
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    for n, pem in enumerate(leaf.cert_chain_pems):
        pem.write_to_path(str(folder / "cert.pem"), append=n > 0)
    made = {}

    def get(scheme):
        if scheme not in made:
            tls = (folder / "cert.pem", folder / "key.pem", folder / "ca.pem") if scheme == "https" else None
            made[scheme] = Moto(folder, tls)
        return made[scheme]

    yield get
    for moto in made.values():
        moto.stop()


@pytest.fixture(params=["http", "https"])
def moto(request, motos):
    return motos(request.param)


def config(base, keys, more="", rule=""):
    """One rule: whatever a client signs for is signed with our keys."""
    return (f"version: 1\nrules:\n  - {{name: AWS, host: \"{base}\"{rule}, auth: {{type: aws_sigv4, region: {REGION}{more}, "
            f"{keys}}}}}\n")


def static(access, secret):
    return f"access_key: {access}, secret_key: \"{secret}\""


@pytest.fixture
def through(moto, proxy):
    """A running proxy with moto's keys, at trace level."""
    return proxy(config(moto.base, static(moto.access, moto.secret)), canaries=[moto.secret]).start("trace")


def curl(one, *args, code=0):
    command = ["curl", "-sS", "-x", one.url, "--cacert", str(one.ca), "-w", "\n%{http_code}", *args]
    result = subprocess.run(command, env=one.env, capture_output=True, text=True, timeout=60)
    assert result.returncode == code, result.stderr
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body


def sdk(one, service, base, **more):
    """boto3 with keys that are good for nothing, through the proxy."""
    config = botocore.config.Config(proxies={"http": one.url, "https": one.url}, retries={"max_attempts": 1, "mode": "standard"}, **more)
    return boto3.client(service, endpoint_url=base, region_name=REGION, aws_access_key_id="AKIADUMMY", aws_secret_access_key="dummy",
                        aws_session_token="dummy-token", verify=str(one.ca), config=config)


# ---- clients without keys -----------------------------------------------------------------------------------------


def test_curl_without_keys(moto, proxy):
    """Three services on one host: the rules say which."""
    auth = f"{{type: aws_sigv4, region: {REGION}, {static(moto.access, moto.secret)}"
    rules = "".join(
        f"  - {{name: {service}, host: \"{moto.base}\", when: {{header: {{x-service: {service}}}}}, auth: {auth}, service: {service}}}}}\n"
        for service in ("s3", "sqs", "sts"))
    one = proxy("version: 1\nrules:\n" + rules, canaries=[moto.secret]).start("trace")
    s3, sqs, sts = (["-H", f"x-service: {name}"] for name in ("s3", "sqs", "sts"))
    key = "/bucket/curl/a%20b%2Bc%C3%BC~!%27()*%2525"
    assert curl(one, *s3, "-X", "PUT", "--data-binary", "hello", "-H", "content-type: text/plain",
                "-H", "x-amz-meta-note:  two   blanks ", moto.base + key)[0] == 200
    assert curl(one, *s3, moto.base + key) == (200, "hello")
    status, body = curl(one, *s3, moto.base + "/bucket?list-type=2&prefix=curl%2Fa%20b&delimiter=%2F&fetch-owner")
    assert status == 200 and "a b+c" in body, body
    assert curl(one, *s3, "-I", moto.base + key)[0] == 200
    assert curl(one, *s3, "-X", "DELETE", moto.base + key)[0] == 204
    form = {"Action": "SendMessage", "MessageBody": "ä & = +", "QueueUrl": moto.queue, "Version": "2012-11-05"}
    status, body = curl(one, *sqs, "-d", urllib.parse.urlencode(form), moto.base + "/")
    assert status == 200 and "<MessageId>" in body, body
    message = json.dumps({"QueueUrl": moto.queue, "MessageBody": "json"})
    status, body = curl(one, *sqs, "-H", "content-type: application/x-amz-json-1.0", "-H", "x-amz-target: AmazonSQS.SendMessage",
                        "-d", message, moto.base + "/")
    assert status == 200 and "MessageId" in body, body
    status, body = curl(one, *sts, "-d", "Action=GetCallerIdentity&Version=2011-06-15", moto.base + "/")
    assert status == 200 and ":user/user" in body, body
    status, body = curl(one, "-d", "Action=GetCallerIdentity&Version=2011-06-15", moto.base + "/")
    assert status != 200, "without a rule it is let in"


def test_a_wrong_secret_is_refused(motos, proxy):
    moto, wrong = motos("http"), canary("wrong")
    one = proxy(config(moto.base, static(moto.access, wrong)), canaries=[wrong]).start("trace")
    for service, call in (
        ("s3", lambda client: client.put_object(Bucket="bucket", Key="wrong", Body=b"x")),
        ("sqs", lambda client: client.send_message(QueueUrl=moto.queue, MessageBody="x")),
        ("sts", lambda client: client.get_caller_identity()),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
            call(sdk(one, service, moto.base))


class Tamperer:
    """A relay that puts one text in place of another of the same length."""

    def __init__(self, port, old, new):
        assert len(old) == len(new)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to, self.old, self.new, self.changed = self.listener.getsockname()[1], port, old, new, 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.copy, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, False), daemon=True).start()

    def copy(self, source, sink, change):
        try:
            while piece := source.recv(1 << 16):
                if change and self.old in piece:
                    self.changed += 1
                    piece = piece.replace(self.old, self.new)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()


@pytest.mark.parametrize(("old", "new", "service"), [
    (b"an honest text", b"a forged text!", "sqs"),
    (b"prefix=honest", b"prefix=forged", "s3"),
    (b"/bucket/honest", b"/bucket/forged", "s3"),
    (b"x-amz-meta-a: 1", b"x-amz-meta-a: 2", "s3"),
    (b"nothing to see", b"nothing to see", "sts"),
])
def test_what_is_tampered_with_on_the_way_is_refused(motos, proxy, old, new, service):
    moto = motos("http")
    relay = Tamperer(moto.port, old, new)
    base = f"http://127.0.0.1:{relay.port}"
    one = proxy(config(base, static(moto.access, moto.secret)), canaries=[moto.secret]).start("trace")
    client = sdk(one, service, base)
    calls = {
        b"an honest text": lambda: client.send_message(QueueUrl=f"{base}/{ACCOUNT}/queue", MessageBody="an honest text"),
        b"prefix=honest": lambda: client.list_objects_v2(Bucket="bucket", Prefix="honest"),
        b"/bucket/honest": lambda: client.put_object(Bucket="bucket", Key="honest", Body=b"x"),
        b"x-amz-meta-a: 1": lambda: client.put_object(Bucket="bucket", Key="meta", Body=b"x", Metadata={"a": "1"}),
    }
    try:
        if old == new:
            assert client.get_caller_identity()["Arn"].endswith(":user/user"), "the relay itself does no harm"
            return
        with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
            calls[old]()
        assert relay.changed
    finally:
        relay.close()


# ---- SDKs with keys that are good for nothing -----------------------------------------------------------------------


def test_boto3(moto, through):
    s3 = sdk(through, "s3", moto.base)
    for key, body in (("boto/a b+ü%2F'~*.txt", b"hello" * 1000), ("boto/empty", b""), ("boto//double/./slash", b"1")):
        s3.put_object(Bucket="bucket", Key=key, Body=body, Metadata={"note": "two  blanks"})
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
        assert s3.head_object(Bucket="bucket", Key=key)["ContentLength"] == len(body)
    assert s3.list_objects_v2(Bucket="bucket", Prefix="boto/a b+ü", Delimiter="/")["KeyCount"] == 1
    sqs = sdk(through, "sqs", moto.base)
    sqs.send_message(QueueUrl=moto.queue, MessageBody="boto ü")
    received = sqs.receive_message(QueueUrl=moto.queue, MaxNumberOfMessages=10)["Messages"]
    assert "boto ü" in [message["Body"] for message in received]
    assert sdk(through, "sts", moto.base).get_caller_identity()["Arn"].endswith(":user/user")


def test_boto3_multipart(moto, through, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(random.Random(1).randbytes(11 << 20))
    s3 = sdk(through, "s3", moto.base)
    s3.upload_file(str(path), "bucket", "boto/big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    assert s3.head_object(Bucket="bucket", Key="boto/big")["ETag"].endswith('-3"')
    s3.download_file("bucket", "boto/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_aws_cli(motos, proxy, tmp_path):
    """The command line, wired by `countersign run` alone."""
    moto = motos("https")
    one = proxy(config(moto.base, static(moto.access, moto.secret)), canaries=[moto.secret],
                env={"AWS_ACCESS_KEY_ID": "AKIADUMMY", "AWS_SECRET_ACCESS_KEY": "dummy", "AWS_DEFAULT_REGION": REGION,
                     "AWS_ENDPOINT_URL": moto.base, "AWS_MAX_ATTEMPTS": "1"})
    # 9 MiB: the CLI sends it in parts.
    path = tmp_path / "a file"
    path.write_bytes(random.Random(2).randbytes(9 << 20))
    script = tmp_path / "script"
    script.write_text(f'''set -e
aws() {{ "{sys.executable}" -m awscli "$@"; }}
aws s3 cp --no-progress "{path}" "s3://bucket/cli/a file+ü"
aws s3 ls s3://bucket/cli/
aws s3 cp --no-progress "s3://bucket/cli/a file+ü" "{tmp_path}/back"
aws sqs send-message --endpoint-url {moto.base} --queue-url {moto.queue} --message-body "from the cli" --query MD5OfMessageBody
aws sts get-caller-identity --endpoint-url {moto.base} --query Arn
''')
    printed = one.run("sh", script)
    assert "a file+ü" in printed and ":user/user" in printed, printed
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_javascript_sdk(moto, proxy):
    need("node")
    # The agent gives TLS no name to check where the host is an address.
    base = moto.base.replace("127.0.0.1", "localhost")
    one = proxy(config(base, static(moto.access, moto.secret)), canaries=[moto.secret]).start("trace")
    result = subprocess.run(["node", "aws_client.mjs", base, one.url, "bucket"], cwd=HERE, capture_output=True, text=True,
                            env={**one.env, "NODE_EXTRA_CA_CERTS": str(one.ca)}, timeout=60)
    assert result.returncode == 0, result.stderr
    listed = dict(json.loads(result.stdout))
    assert listed == {"js/a b+ü(1)'~*.txt": 300_003, "js/stream": 40 * 65_536, "js/parts": (5 << 20) + 1000}
    for key, body in (("js/stream", b"".join(bytes([n]) * 65_536 for n in range(40))), ("js/parts", b"\1" * (5 << 20) + b"\2" * 1000)):
        assert moto.direct("s3").get_object(Bucket="bucket", Key=key)["Body"].read() == body


# ---- where keys come from -------------------------------------------------------------------------------------------


def role(moto, source):
    return (f"credentials: {{assume_role: {{role_arn: \"{moto.role}\", session_name: my-session, sts_endpoint: \"{moto.base}\", "
            f"region: {REGION}, source: {source}}}}}")


def test_a_role_is_taken_on_end_to_end(moto, proxy, tmp_path):
    """moto gives out the keys of the role, and knows them again by secret and session token."""
    keys = f"{{keys: {{{static(moto.access, moto.secret)}}}}}"
    profile = tmp_path / "credentials"
    profile.write_text(f"[default]\naws_access_key_id = {moto.access}\naws_secret_access_key = {moto.secret}\n")
    for source in (keys, f"{{profile: {{file: \"{profile}\"}}}}"):
        one = proxy(config(moto.base, role(moto, source)), canaries=[moto.secret]).start("trace")
        sts = sdk(one, "sts", moto.base)
        assert sts.get_caller_identity()["Arn"].endswith(":assumed-role/role/my-session")
        s3 = sdk(one, "s3", moto.base)
        s3.put_object(Bucket="bucket", Key="role", Body=b"by role")
        assert s3.get_object(Bucket="bucket", Key="role")["Body"].read() == b"by role"


def test_a_role_is_refused_to_wrong_keys(motos, proxy):
    moto, wrong = motos("http"), canary("wrong")
    one = proxy(config(moto.base, role(moto, f"{{keys: {{{static(moto.access, wrong)}}}}}")), canaries=[wrong]).start("trace")
    status, body = curl(one, moto.base + "/bucket/x")
    assert status == 502, body
    problem = json.loads(body)
    assert problem["type"] == "urn:countersign:error:credential-rejected" and "SignatureDoesNotMatch" in problem["detail"], body


def test_the_profile_files_of_the_sdk_lead_to_the_same_keys(motos, proxy, tmp_path):
    """botocore reads the same files as we do and finds the same keys."""
    import botocore.session

    (tmp_path / "printed").write_text(json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "from/process"}))
    (tmp_path / "config").write_text(f'''
[default]
region = eu-west-1   # a comment
[profile "two words"]
aws_access_key_id = AKIAWORDS
aws_secret_access_key = a#b=c
s3 =
    max_queue_size = 5
[profile cmd]
credential_process = cat "{tmp_path}/printed"
''')
    (tmp_path / "credentials").write_text('''
; the other file
[default]
aws_access_key_id=AKIADEFAULT
aws_secret_access_key = /+=default
[two words]
aws_secret_access_key = from/the+credentials
''')
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    at, stamp = "2026-01-31T12:00:00Z", "20260131T120000Z"
    for name in ("default", "two words", "cmd"):
        if name == "two words":
            # botocore takes a pair from one file alone; SDKs that follow the reference guide merge setting by setting.
            expected = Credentials("AKIAWORDS", "from/the+credentials")
        else:
            session = botocore.session.Session(profile=name)
            session.set_config_variable("config_file", env["AWS_CONFIG_FILE"])
            session.set_config_variable("credentials_file", env["AWS_SHARED_CREDENTIALS_FILE"])
            expected = session.get_credentials().get_frozen_credentials()
        one = proxy(config("https://api.test", f"service: execute-api, credentials: {{profile: \"{name}\"}}"), env=env)
        result = one.command("explain", "GET", "https://api.test/x?a=b", "--at", at, "--json", "--show-secrets")
        assert result.returncode == 0, result.stderr
        sent = dict(json.loads(result.stdout)["request"]["headers"])
        assert "authorization" in sent, result.stdout
        request = AWSRequest("GET", "https://api.test/x?a=b", headers={"X-Amz-Date": stamp})
        assert sent["authorization"] == authorization(SigV4Auth, expected, "execute-api", request, stamp)


# ---- a judge that looks at everything -------------------------------------------------------------------------------


@pytest.fixture
def judged(origins, proxy):
    """`judged(tls, more)`: an origin that checks as the services do, and a proxy with its keys."""

    def make(tls=True, more="", service="s3", canaries=()):
        secret, token = canary("secret"), canary("token")
        origin = origins(tls=tls, handler=AwsHandler)
        origin.authority = Authority({"AKIAREAL": (secret, token)})
        keys = static("AKIAREAL", secret) + f", session_token: {token}"
        one = proxy(config(origin.base, keys, f", service: {service}{more}"), canaries=[secret, token, *canaries]).start()
        return origin, one

    return make


def authorization(auth, keys, service, request, stamp):
    """What botocore would write."""
    auth = auth(keys, service, REGION)
    request.context["timestamp"] = stamp
    text = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, text), request)
    signed = auth.signed_headers(auth.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={signed}, Signature={signature}"


ODD = ["a", "B", "0", " ", "%", "/", "+", "~", "*", "'", "(", "!", "=", "&", "?", ":", "@", "$", ",", ";", "[", "ü", "日", "\u00ad", ".", "-", "_"]


def generated(seed):
    """A request of odd characters: method, path and query as they stand on the wire, header lines, body."""
    dice = random.Random(seed)
    word = lambda most: "".join(dice.choice(ODD) for _ in range(dice.randint(0, most)))
    path = "/" + "/".join(urllib.parse.quote(word(6), safe="~") for _ in range(dice.randint(0, 3)))
    # At a final `.` or `..` botocore drops the slash before it, RFC 3986 and other SDKs keep it: no judge for that.
    path += "x" if path.endswith(("/.", "/..")) else ""
    query = "&".join(urllib.parse.quote(word(5) or "k", safe="~") + dice.choice(["", "="]) + urllib.parse.quote(word(5), safe=dice.choice(["~", "~/:"]))
                     for _ in range(dice.randint(0, 4)))
    headers = [("x-amz-meta-a", dice.choice(["1", "two  blanks", " around ", "a,b"])) for _ in range(dice.randint(0, 3))]
    headers += [("x-amz-target", "Service.Call")] * dice.randint(0, 1) + [("x-other", word(3).encode("ascii", "ignore").decode())]
    body = dice.randbytes(dice.randint(0, 200)) if dice.random() < 0.5 else b""
    return dice.choice(["GET", "POST", "PUT", "DELETE"]), path + ("?" + query if query else ""), headers, body


def send(one, base, method, target, headers, body):
    """One request in absolute form, byte for byte."""
    host = base.split("//")[1]
    lines = [f"{method} {base}{target} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    with socket.create_connection(("127.0.0.1", one.port), 60) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize("service", ["s3", "execute-api"])
def test_signatures_are_those_of_botocore(judged, service):
    """Requests of odd paths, queries and repeated fields, checked by a verifier made of botocore."""
    origin, one = judged(tls=False, service=service)
    for seed in range(120):
        method, target, headers, body = generated(seed)
        status, answer = send(one, origin.base, method, target, headers, body)
        seen = origin.seen[-1]
        assert status == 200, f"{seed}: {method} {target} {headers}: {seen.get('refused', answer)}"
        assert seen["path"] == target, "not a byte of the target changes"


def test_a_request_that_the_client_signed_too_is_signed_anew(judged):
    origin, one = judged()
    for dummy in (
        ["-H", "authorization: AWS4-HMAC-SHA256 Credential=AKIADUMMY/20200101/us-east-1/sqs/aws4_request, SignedHeaders=host, "
               f"Signature={'0' * 64}", "-H", "x-amz-date: 20200101T000000Z", "-H", "x-amz-security-token: dummy",
         "-H", f"x-amz-content-sha256: {'0' * 64}"],
        ["-G", "-d", "X-Amz-Algorithm=AWS4-HMAC-SHA256", "-d", "X-Amz-Credential=AKIADUMMY%2F20200101%2Fus-east-1%2Fs3%2Faws4_request",
         "-d", "X-Amz-Date=20200101T000000Z", "-d", "X-Amz-SignedHeaders=host", "-d", f"X-Amz-Signature={'0' * 64}",
         "-d", "X-Amz-Security-Token=dummy", "-X", "GET"],
    ):
        status, body = curl(one, *dummy, origin.url("/bucket/key"))
        assert status == 200, origin.seen[-1]["refused"]
    assert "dummy" not in str(origin.seen).lower()


def test_an_old_signature_is_refused_and_clocks_are_corrected(judged):
    origin, one = judged(tls=False)
    assert curl(one, origin.url("/bucket/key"))[0] == 200
    first = origin.seen[-1]
    # What was recorded on the way is good for some minutes and no longer.
    lines = [f"{first['method']} {first['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in first["headers"]), "Connection: close"]
    replay = ("\r\n".join(lines) + "\r\n\r\n").encode()

    def again():
        with socket.create_connection(("127.0.0.1", origin.port), 60) as connection:
            connection.sendall(replay)
            return int(connection.recv(4096).split(b" ", 2)[1])

    assert again() == 200
    origin.authority.offset = 3600
    assert again() == 403 and "RequestTimeTooSkewed" in origin.seen[-1]["refused"]
    # The proxy learns the time of the server from its refusal and sends once more; then it knows.
    before = len(origin.seen)
    assert curl(one, origin.url("/bucket/key"))[0] == 200
    assert len(origin.seen) == before + 2
    assert curl(one, origin.url("/bucket/key"))[0] == 200
    assert len(origin.seen) == before + 3


def test_a_presigned_url(judged):
    origin, one = judged(more=", add_to: query, expires: 60")
    assert curl(one, origin.url("/bucket/a%20b?versionId=1%2F2"))[0] == 200, origin.seen[-1].get("refused")
    assert "X-Amz-Signature" in origin.seen[-1]["path"] and "X-Amz-Expires=60" in origin.seen[-1]["path"]
    origin.authority.offset = 120
    path = origin.seen[-1]["path"]
    result = subprocess.run(["curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", origin.url(path)], env=CLEAN, capture_output=True, text=True)
    assert result.stdout == "403" and "expired" in origin.seen[-1]["refused"]


def dummy_chunks(size, chunk, signed=True, trailer=None):
    """A body as an SDK sends it, its chunks signed with keys that are good for nothing. Yields bytes."""
    data = bytes(range(256)) * (chunk // 256)
    mark = b";chunk-signature=" + b"0" * 64 if signed else b""
    head = b"%x" % chunk + mark + b"\r\n"
    block = head + data + b"\r\n"
    for _ in range(size // chunk):
        yield block
    rest = size % chunk
    if rest:
        yield b"%x" % rest + mark + b"\r\n" + data[:rest] + b"\r\n"
    yield b"0" + mark + b"\r\n"
    for name, value in (trailer or {}).items():
        yield f"{name}:{value}\r\n".encode()
        if signed:
            yield b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n"
    yield b"\r\n"


def upload(one, base, path, pieces, length, headers):
    """A streaming upload through the proxy; over https inside a tunnel."""
    import ssl

    host = base.split("//")[1]
    with socket.create_connection(("127.0.0.1", one.port), 120) as connection:
        target = base + path
        if base.startswith("https"):
            connection.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            connection = ssl.create_default_context(cafile=one.ca).wrap_socket(connection, server_hostname="127.0.0.1")
            target = path
        lines = [f"PUT {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {length}", "Connection: close"]
        connection.sendall("\r\n".join(lines + [f"{name}: {value}" for name, value in headers]).encode() + b"\r\n\r\n")
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
        return int(answer.split(b" ", 2)[1]), answer


def sdk_headers(size, mode, trailer=None):
    headers = [
        ("authorization", f"AWS4-HMAC-SHA256 Credential=AKIADUMMY/20200101/{REGION}/s3/aws4_request, "
                          f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"),
        ("x-amz-date", "20200101T000000Z"), ("x-amz-content-sha256", mode), ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", size)]
    return headers + ([("x-amz-trailer", ",".join(trailer))] if trailer else [])


@pytest.mark.parametrize("mode", ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
                                  "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
@pytest.mark.parametrize("tls", [False, True])
def test_chunks_of_an_sdk_are_signed_anew(judged, mode, tls):
    import base64
    import zlib

    size, chunk = 300_000, 65_536
    data = (bytes(range(256)) * 256 * 5)[:size]
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    trailer = {"x-amz-checksum-crc32": crc} if mode.endswith("TRAILER") else None
    body = b"".join(dummy_chunks(size, chunk, "UNSIGNED" not in mode, trailer))
    origin, one = judged(tls)
    status, answer = upload(one, origin.base, "/bucket/chunks", [body], len(body), sdk_headers(size, mode, trailer))
    assert status == 200, origin.seen[-1].get("refused", answer) if origin.seen else answer
    taken = origin.seen[-1]["body"]
    assert taken.start == data[: len(taken.start)] and taken.crc == zlib.crc32(data)
    assert "0" * 64 not in str(origin.seen[-1]["headers"])


@pytest.mark.parametrize(("payload", "why"), [("streaming", "chunk"), ("signed", "XAmzContentSHA256Mismatch")])
def test_a_forged_body_is_refused(origins, proxy, payload, why):
    """The judge itself: some bytes of a body that was signed by the proxy are changed on the way."""
    secret = canary("secret")
    origin = origins(tls=False, handler=AwsHandler)
    origin.authority = Authority({"AKIAREAL": (secret, None)})
    relay = Tamperer(origin.port, b"an honest body", b"a forged body!")
    base = f"http://127.0.0.1:{relay.port}"
    one = proxy(config(base, static("AKIAREAL", secret), f", service: s3, payload: {payload}"), canaries=[secret]).start()
    for text, expected in ((b"an honest body", 403), (b"another body", 200)):
        status, _ = upload(one, base, "/bucket/x", [text * 3], len(text) * 3, [])
        assert status == expected, origin.seen[-1].get("refused")
    assert relay.changed and why in origin.seen[0]["refused"]
    relay.close()


def test_boto3_before_the_judge(judged):
    """Over https the SDK leaves its body unsigned and puts a checksum into a trailer; that passes as it is."""
    origin, one = judged(tls=True)
    sdk(one, "s3", origin.base).put_object(Bucket="bucket", Key="a b/ü", Body=b"hello" * 50_000, Metadata={"note": "two  blanks"})
    taken = origin.seen[-1]
    assert "body" in taken, taken["refused"]
    assert taken["body"].payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER" and taken["body"].bytes == 250_000
    assert "x-amz-checksum-crc32" in taken["body"].trailers


def test_a_gibibyte_from_curl_over_https_in_64_mib(judged, tmp_path):
    """Over https a large body of S3 is left out of the signature, and streams. (Chunks over http: test_aws_upload.)"""
    origin, one = judged(tls=True)
    path = tmp_path / "zeros"
    with open(path, "wb") as file:
        file.truncate(GIB)
    status, body = curl(one, "--http1.1", "-T", str(path), "-H", "Expect:", origin.url("/bucket/gib"))
    assert status == 200, origin.seen[-1].get("refused", body)
    assert origin.seen[-1]["body"].bytes == GIB and origin.seen[-1]["body"].payload == "UNSIGNED-PAYLOAD"
    peak = one.memory("VmHWM")
    print(f"peak {peak} KiB")
    assert peak < 64 << 10, f"{peak} KiB"
