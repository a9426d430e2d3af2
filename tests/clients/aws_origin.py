"""An origin that checks AWS signatures as the services do, with botocore for everything that botocore can compute.

It keeps no body, so a gibibyte may pass; bodies in chunks are checked chunk by chunk, trailers included. It is stricter than
moto: it looks at the time, at the hash of the body, at session tokens, and at what must be signed.
"""

import base64
import datetime
import hashlib
import hmac
import re
import time
import urllib.parse
import zlib

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import Handler

EMPTY = hashlib.sha256(b"").hexdigest()
SKEW = 300


class Refused(Exception):
    def __init__(self, code, why=""):
        super().__init__(f"{code}: {why}")
        self.code = code


def pairs(query):
    """Decoded names and values; `+` is a plus."""
    return [tuple(urllib.parse.unquote(part) for part in (pair.split("=", 1) + [""])[:2]) for pair in query.split("&") if pair]


class Authority:
    """Knows keys, and says whether a request was signed with them."""

    def __init__(self, keys, region="eu-west-1"):
        self.keys, self.region, self.offset = dict(keys), region, 0

    def now(self):
        return time.time() + self.offset

    def judge(self, scheme, method, target, headers):
        """Checks head and scope; gives back what the body must be checked with."""
        path, _, query = target.partition("?")
        named = pairs(query)
        fields = {name.lower(): value for name, value in headers}
        in_query = dict(named).get("X-Amz-Algorithm")
        if in_query:
            claims = dict(named)
            credential, signed, given = claims["X-Amz-Credential"], claims["X-Amz-SignedHeaders"], claims["X-Amz-Signature"]
            stamp, token, algorithm = claims["X-Amz-Date"], claims.get("X-Amz-Security-Token"), in_query
        else:
            match = re.fullmatch(r"(\S+) Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})", fields.get("authorization", ""))
            if not match:
                raise Refused("AccessDenied", "no signature")
            algorithm, credential, signed, given = match.groups()
            stamp, token = fields.get("x-amz-date", ""), fields.get("x-amz-security-token")
        access, day, region, service, end = credential.split("/")
        if algorithm != "AWS4-HMAC-SHA256" or end != "aws4_request" or not stamp.startswith(day):
            raise Refused("AuthorizationHeaderMalformed", credential)
        if region != self.region:
            raise Refused("AuthorizationHeaderMalformed", region)
        if access not in self.keys:
            raise Refused("InvalidAccessKeyId", access)
        secret, expected_token = self.keys[access]
        if token != expected_token:
            raise Refused("InvalidToken", "session token")
        signed = signed.split(";")
        must = {"host"} | {name for name in fields if name.startswith("x-amz-")}
        if signed != sorted(signed) or not must <= set(signed) | {"x-amz-trailer-signature"}:
            raise Refused("AccessDenied", f"not signed: {must - set(signed)}")
        at = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
        if in_query:
            if not at - SKEW < self.now() < at + int(dict(named)["X-Amz-Expires"]):
                raise Refused("AccessDenied", "Request has expired")
        elif abs(at - self.now()) > SKEW:
            raise Refused("RequestTimeTooSkewed", stamp)
        s3 = service == "s3"
        payload = fields.get("x-amz-content-sha256") or ("UNSIGNED-PAYLOAD" if in_query and s3 else None)
        if s3 and payload is None:
            raise Refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
        if payload == "UNSIGNED-PAYLOAD" and scheme != "https" and not in_query:
            raise Refused("InvalidRequest", "unsigned payload over http")

        def canonical(payload_hash):
            # S3 signs the path encoded once; for others botocore encodes what is on the wire once more.
            url_path = urllib.parse.quote(urllib.parse.unquote_to_bytes(path), safe="/~") if s3 else path
            request = AWSRequest(method=method, url=f"{scheme}://{fields['host']}{url_path}", data=b"")
            for name, value in headers:
                if name.lower() in signed:
                    request.headers.add_header(name, value)
            request.params = [(name, value) for name, value in named if name != "X-Amz-Signature"]
            request.context["timestamp"] = stamp
            auth = (S3SigV4QueryAuth if in_query and s3 else S3SigV4Auth if s3 else SigV4Auth)(
                Credentials(access, secret), service, region)
            auth.payload = lambda request: payload_hash
            text = auth.canonical_request(request)
            return auth.string_to_sign(request, text), text

        def check(payload_hash):
            to_sign, text = canonical(payload_hash)
            key = signing_key(secret, day, region, service)
            if not hmac.compare_digest(sign(key, to_sign.encode()), given):
                raise Refused("SignatureDoesNotMatch", f"{text!r}")

        return Body(payload, check, signing_key(secret, day, region, service), stamp, f"{day}/{region}/{service}/{end}", given, fields)


def sign(key, text):
    return hmac.new(key, text, "sha256").hexdigest()


def signing_key(secret, day, region, service):
    key = b"AWS4" + secret.encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.new(key, step.encode(), "sha256").digest()
    return key


class Body:
    """Checks a body while it passes. Its first bytes are kept."""

    def __init__(self, payload, check, key, stamp, scope, signature, fields):
        self.payload, self.check, self.key, self.stamp, self.scope = payload, check, key, stamp, scope
        self.previous, self.fields = signature, fields
        self.bytes, self.crc, self.start, self.chunks, self.trailers = 0, 0, b"", 0, {}

    def read(self, reader):
        mode = self.payload or ""
        if mode.startswith("STREAMING-"):
            self.check(mode)
            self.streaming(reader, signed="UNSIGNED" not in mode, trailer=mode.endswith("-TRAILER"))
            if self.bytes != int(self.fields["x-amz-decoded-content-length"]):
                raise Refused("IncompleteBody", f"{self.bytes}")
            return
        total = hashlib.sha256()
        for piece in reader.rest():
            total.update(piece)
            self.take(piece)
        if mode == "UNSIGNED-PAYLOAD":
            self.check(mode)
        else:
            if mode and mode != total.hexdigest():
                raise Refused("XAmzContentSHA256Mismatch")
            self.check(total.hexdigest())

    def take(self, piece):
        self.bytes += len(piece)
        self.crc = zlib.crc32(piece, self.crc)
        if len(self.start) < 1 << 16:
            self.start += piece

    def streaming(self, reader, signed, trailer):
        while True:
            line = reader.line()
            match = re.fullmatch(rb"([0-9a-fA-F]+)(?:;chunk-signature=([0-9a-f]{64}))?", line)
            if not match or bool(match[2]) != signed:
                raise Refused("InvalidChunk", repr(line[:80]))
            left = size = int(match[1], 16)
            self.chunks += 1
            digest = hashlib.sha256()
            while left:
                piece = reader.some(left)
                if signed:
                    digest.update(piece)
                self.take(piece)
                left -= len(piece)
            if signed:
                text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", self.stamp, self.scope, self.previous, EMPTY, digest.hexdigest()])
                self.follow(text, match[2])
            if size == 0:
                break
            if reader.line() != b"":
                raise Refused("InvalidChunk", "no line end after a chunk")
        if trailer:
            self.trailer(reader, signed)
        elif reader.line() != b"":
            raise Refused("InvalidChunk", "something after the last chunk")
        if reader.some(1):
            raise Refused("InvalidChunk", "bytes after the end")

    def follow(self, text, given):
        if sign(self.key, text.encode()) != given.decode():
            raise Refused("SignatureDoesNotMatch", f"chunk {self.chunks}")
        self.previous = given.decode()

    def trailer(self, reader, signed):
        lines = b""
        while line := reader.line():
            name, _, value = line.partition(b":")
            if name.lower() == b"x-amz-trailer-signature":
                text = "\n".join(["AWS4-HMAC-SHA256-TRAILER", self.stamp, self.scope, self.previous, hashlib.sha256(lines).hexdigest()])
                self.follow(text, value.strip())
                signed = False
                continue
            lines += name.strip().lower() + b":" + value.strip() + b"\n"
            self.trailers[name.strip().lower().decode()] = value.strip().decode()
        if signed:
            raise Refused("SignatureDoesNotMatch", "the trailer has no signature")
        promised = {name.strip().lower() for name in self.fields.get("x-amz-trailer", "").split(",") if name.strip()}
        if promised != set(self.trailers):
            raise Refused("InvalidRequest", f"trailers {self.trailers} of {promised}")
        crc = self.trailers.get("x-amz-checksum-crc32")
        if crc and crc != base64.b64encode(self.crc.to_bytes(4, "big")).decode():
            raise Refused("BadDigest", crc)


class Reader:
    """Lines and pieces of a body, whatever its framing."""

    def __init__(self, handler):
        self.source, self.kept = pieces(handler), b""

    def some(self, most):
        """Some bytes; none at the end."""
        if not self.kept:
            self.kept = next(self.source, b"")
        piece, self.kept = self.kept[:most], self.kept[most:]
        return piece

    def line(self):
        found = b""
        while not found.endswith(b"\r\n"):
            if len(found) > 8192 or not (piece := self.some(1)):
                raise Refused("IncompleteBody", repr(found[:80]))
            found += piece
        return found[:-2]

    def rest(self):
        while piece := self.some(1 << 20):
            yield piece


def pieces(handler):
    if handler.headers.get("transfer-encoding", "").lower().endswith("chunked"):
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            while size:
                piece = handler.rfile.read(min(size, 1 << 18))
                size -= len(piece)
                yield piece
            handler.rfile.readline()
        while handler.rfile.readline() not in (b"\r\n", b""):
            pass
        return
    left = int(handler.headers.get("content-length") or 0)
    while left and (piece := handler.rfile.read(min(left, 1 << 18))):
        left -= len(piece)
        yield piece


class AwsHandler(Handler):
    """Refuses in the words of S3; what it takes is listed in `origin.taken`."""

    def handle_any(self):
        origin = self.server.origin
        # As it stands on the wire: `self.path` has lost a second slash at its beginning.
        target = self.requestline.split(" ")[1]
        seen = {"method": self.command, "path": target, "headers": list(self.headers.items())}
        origin.seen.append(seen)
        reader = Reader(self)
        try:
            scheme = "https" if self.server.tls else "http"
            body = origin.authority.judge(scheme, self.command, target, seen["headers"])
            body.read(reader)
        except Refused as refused:
            seen["refused"] = str(refused)
            for _ in reader.rest():
                pass
            text = f"<Error><Code>{refused.code}</Code><Message>no</Message></Error>"
            return self.answer(403, text.encode(), {"content-type": "application/xml"})
        seen["body"] = body
        self.answer(200, b"", {"etag": '"0"'})

    def date_time_string(self, timestamp=None):
        return super().date_time_string(timestamp or self.server.origin.authority.now())

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = handle_any
