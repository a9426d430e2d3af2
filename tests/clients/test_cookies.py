"""The jar takes the decisions of tough-cookie: the same requests and Set-Cookie lines go to both, and what they send must be
the same, byte for byte and in the same order.

Left out, because we follow the newer RFC 6265bis where tough-cookie follows RFC 6265: `Secure` cookies set over plain http,
and over ones that are there (we refuse), names like `__secure-` in other cases (we hold them to their promise), ends more than
400 days away, a public suffix that sets a cookie for itself (we keep it for that host alone), and one cookie with `Domain` beside one of
the same name without (we keep both). A cookie that was deleted and is set again is a new one for us and takes its old place
for tough-cookie, so where cookies are deleted the order is not compared."""

import http.client
import http.server
import json
import random
import ssl
import subprocess
import threading
import urllib.parse

import pytest
from conftest import CLEAN, DEADLINE, ROOT, canary, need

HOSTS = ["example.com", "app.example.com", "x.app.example.com", "other.example.com", "badexample.com", "a.co.uk", "b.co.uk",
         "one.github.io", "two.github.io", "deep.one.github.io", "intra"]


class Everything(http.server.BaseHTTPRequestHandler):
    """A parent proxy that is every origin itself: tells the cookies that came, and sets those it is asked to."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.connection = self.request = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self):
        cookies = self.headers.get_all("cookie") or []
        assert len(cookies) <= 1, "one field"
        self.send_response(200)
        for line in json.loads(self.headers.get("x-set", "[]")):
            self.send_header("set-cookie", line)
        body = "".join(cookies).encode("latin-1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def everything(authority):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Everything)
    server.daemon_threads = True
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(server.context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def ours(one, steps):
    """What arrives, step by step."""
    trust = ssl.create_default_context(cafile=str(one.ca))
    connections = {}
    sent = []
    for url, lines in steps:
        parts = urllib.parse.urlsplit(url)
        place = (parts.scheme, parts.netloc)
        if place not in connections:
            if parts.scheme == "http":
                connections[place] = http.client.HTTPConnection("127.0.0.1", one.port, timeout=DEADLINE)
            else:
                connections[place] = http.client.HTTPSConnection("127.0.0.1", one.port, timeout=DEADLINE, context=trust)
                connections[place].set_tunnel(parts.netloc, 443)
        target = url if parts.scheme == "http" else parts.path
        connections[place].request("GET", target, headers={"x-set": json.dumps(lines)})
        answer = connections[place].getresponse()
        body = answer.read()
        assert answer.status == 200, body
        sent.append(body.decode("latin-1"))
    return sent


def theirs(steps):
    result = subprocess.run(["node", "cookie_oracle.mjs"], input=json.dumps(steps), env=CLEAN, cwd=ROOT / "tests/clients",
                            capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def config(parent):
    return f"""version: 1
proxy: {{upstream: {{url: "http://127.0.0.1:{parent}"}}}}
credentials: {{jar: {{type: cookies, cookie_jar: per_rule}}}}
rules: [{{name: All, host: ["http://*", "https://*"], auth: jar}}]
"""


def compare(one, steps):
    mine, other = ours(one, steps), theirs(steps)
    if any(line in DELETING for _, lines in steps for line in lines):
        mine, other = ([sorted(text.split("; ")) for text in side] for side in (mine, other))
    for number, (step, a, b) in enumerate(zip(steps, mine, other)):
        assert a == b, f"step {number}: {step}\nbefore: {[s for s in steps[:number] if s[1]][-6:]}"
    return mine


LINES = [
    "a=1", "a=1; Path=/", "a=2; Path=/x", "a=3; Path=/x/", "a=4; path=/x/y; HttpOnly", "b = spaced out ; Path=/", "c=; Path=/",
    "d=\"quoted\"; Path=/", "e=a=b=c; Path=/", "f=1; Path=relative", "g=1; Path=", "novalue", "=noname", "", ";", "h=1;;; Path=/",
    "i=1; Domain=example.com", "i=2; Domain=.example.com; Path=/", "i=3; DOMAIN=EXAMPLE.COM; Path=/x", "i=4; Domain=com",
    "i=5; Domain=other.example.com", "i=6; Domain=app.example.com; Path=/", "i=7; Domain=badexample.com", "i=8; Domain=co.uk",
    "i=9; Domain=github.io", "i=10; Domain=one.github.io; Path=/", "o=11; Domain=; Path=/", "i=12; Domain=xample.com",
    "j=1; Max-Age=0", "j=2; Max-Age=3600; Path=/", "j=3; Max-Age=-1; Path=/", "j=4; Max-Age=x; Path=/", "j=5; Max-Age=; Path=/",
    "k=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Path=/", "k=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT; Path=/",
    "k=3; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Max-Age=60; Path=/", "k=4; Max-Age=0; Expires=Wed, 21 Oct 2099 07:28:00 GMT; Path=/",
    "l=1; Expires=Wednesday, 21-Oct-15 07:28:00 GMT; Path=/", "l=2; Expires=Wed Oct 21 07:28:00 2099; Path=/",
    "l=3; Expires=soon; Path=/", "l=4; Expires=21 Oct 99 07:28:00; Path=/", "m=1; SameSite=Strict; Path=/", "m=2; Unknown=x; Path=/",
    "n=1; Path=/; Path=/x", "n=2; Domain=app.example.com; Domain=example.com; Path=/",
]
SECURE = ["s=1; Secure; Path=/", "s=2; Path=/; SECURE=yes", "__Secure-p=1; Secure; Path=/", "__Secure-p=2; Path=/",
          "__Host-q=1; Secure; Path=/", "__Host-q=2; Secure; Path=/x", "__Host-q=3; Path=/",
          "__Host-q=4; Secure; Path=/; Domain=example.com", "__Host-q=5; Secure"]
DELETING = [line for line in LINES if "Max-Age=0" in line or "Max-Age=-" in line
            or ("2015" in line and "Max-Age" not in line) or "21-Oct-15" in line or "Oct 99" in line]
PATHS = ["/", "/x", "/x/", "/x/y", "/x/y/z", "/xy", "/X", "/x%2Fy"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_line_on_every_host(everything, proxy, scheme):
    need("node")
    one = proxy(config(everything)).start()
    steps = []
    for line in LINES + (SECURE if scheme == "https" else []):
        steps.append([f"{scheme}://app.example.com/x/y", [line]])
        steps += [[f"{scheme}://{host}{path}", []] for host in ["app.example.com", "example.com", "x.app.example.com"]
                  for path in ["/", "/x/y/z"]]
    sent = compare(one, steps)
    assert len({str(text) for text in sent}) > 20, "the jar is not empty"


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_long_stories(everything, proxy, scheme, deleting):
    need("node")
    one = proxy(config(everything)).start()
    chance = random.Random(f"{scheme}{deleting}")
    lines = [line for line in LINES if deleting or line not in DELETING] + (SECURE if scheme == "https" else [])
    steps = [[f"{scheme}://{chance.choice(HOSTS)}{chance.choice(PATHS)}",
              chance.sample(lines, chance.choice([0, 0, 1, 2, 4]))] for _ in range(250)]
    compare(one, steps)


def test_a_file_that_curl_wrote(everything, proxy):
    """curl logs in, its cookie file is imported, and the session goes on."""
    session = canary("sid")
    source = proxy(f"version: 1\nproxy: {{upstream: {{url: \"http://127.0.0.1:{everything}\"}}}}\nrules: []\n").start()
    file = source.folder / "cookies.txt"
    set_cookies = json.dumps([f"sid={session}; Path=/; HttpOnly; Domain=example.com", "lang=de; Path=/x; Max-Age=3600"])
    subprocess.run(["curl", "-sS", "-o", "/dev/null", "-x", source.url, "-c", file, "-H", f"x-set: {set_cookies}",
                    "http://app.example.com/x/y"], env=source.env, check=True)
    assert "#HttpOnly_" in file.read_text()
    text = config(everything).replace("cookie_jar: per_rule", f"cookie_jar: per_rule, import: \"{file}\"")
    one = proxy(text, canaries=[session]).start("trace")
    assert ours(one, [["http://app.example.com/x/z", []], ["http://other.example.com/", []], ["http://badexample.com/", []]]) == [
        f"lang=de; sid={session}", f"sid={session}", ""]
