"""What tests of logins share: authorization servers of others, a person with a browser, and Chromium."""

import contextlib
import html
import json
import pathlib
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest
import requests
from conftest import CLEAN, DEADLINE

HERE = pathlib.Path(__file__).parent


class NodeServer:
    """A script beside this file that prints its issuer, then events, one JSON object a line."""

    def __init__(self, script, options):
        if not shutil.which("node") or not (HERE / "node_modules/oidc-provider").exists():
            pytest.skip("the Node packages are not installed")
        self.process = subprocess.Popen(["node", script, json.dumps(options)], cwd=HERE, env=CLEAN, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.issuer = json.loads(line)["issuer"]
        self.events = []
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                self.events.append(json.loads(line))

    def names(self):
        return [event["event"] for event in self.events]

    def wait_for(self, name):
        until(lambda: name in self.names(), f"{name} in {self.events}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE)


def until(condition, what):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < DEADLINE, what
        time.sleep(0.02)


class Person:
    """Fills in the forms of an authorization server as a browser would, without one."""

    def __init__(self, name="ann", trust=None):
        self.name, self.session = name, requests.Session()
        self.session.trust_env = False
        self.session.verify = trust or True

    def visit(self, url, until_url=None):
        """Follows forms and redirects to the end. Stops before an address that begins with `until_url`: gives it."""
        page = self.get("GET", url, None, until_url)
        for _ in range(8):
            if isinstance(page, str):
                return page
            form = re.search(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', page.text, re.S)
            if not form:
                return page
            fields = {}
            for tag in re.findall(r"<input[^>]*>", form[2]):
                attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
                if "name" in attributes:
                    fields[attributes["name"]] = html.unescape(attributes.get("value", ""))
            if "login" in fields or 'name="login"' in form[2]:
                fields |= {"login": self.name, "password": "any"}
            page = self.get("POST", urllib.parse.urljoin(page.url, html.unescape(form[1])), fields, until_url)
        raise AssertionError("too many forms")

    def get(self, method, url, data, until_url):
        for _ in range(12):
            answer = self.session.request(method, url, data=data, allow_redirects=False, timeout=DEADLINE)
            if answer.status_code not in (301, 302, 303, 307):
                return answer
            url, method, data = urllib.parse.urljoin(url, answer.headers["location"]), "GET", None
            if until_url and url.startswith(until_url):
                return url
        raise AssertionError("too many redirects")


class Login:
    """`countersign login`: its prompt, and what becomes of it."""

    def __init__(self, proxy, *args):
        from conftest import BINARY
        self.process = subprocess.Popen([BINARY, "login", *args, *proxy.common], env=proxy.env, cwd=proxy.folder,
                                        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said, self.code = [], None
        while True:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said.append(line)
            if found := re.search(r"https?://\S+", line):
                self.url = found[0]
                if code := re.search(r"type (\S+)", line):
                    self.code = code[1]
                else:
                    break

    def paste(self, address):
        self.process.stdin.write(address + "\n")
        self.process.stdin.flush()

    def end(self, code=0):
        _, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == code, (self.said, err)
        return "".join(self.said) + err


class Chromium:
    """A headless Chromium that is told what to do over its debugging port."""

    def __init__(self, folder):
        from websockets.sync.client import connect  # of no use to the other tests
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not browser:
            pytest.skip("chromium is not installed")
        profile = folder / "profile"
        self.process = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"],
            env={**CLEAN, "HOME": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = profile / "DevToolsActivePort"
        until(lambda: port_file.exists() and "\n" in port_file.read_text(), "Chromium's port")
        port = port_file.read_text().split()[0]
        found = []

        def page():
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                found[:] = [one for one in json.load(answer) if one["type"] == "page"]
            return found

        until(page, "a page")
        self.connection, self.count = connect(found[0]["webSocketDebuggerUrl"], max_size=None), 0
        self.socket = self.connection.__enter__()

    def call(self, method, **params):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(DEADLINE))
            if answer.get("id") == self.count:
                return answer.get("result", answer)

    def js(self, text):
        return self.call("Runtime.evaluate", expression=text, returnByValue=True)["result"].get("value")

    def log_in(self, url, name="ann"):
        """Visits the address, fills in forms until there are none; the text of the last page."""
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        seen = set()
        start = time.monotonic()
        while time.monotonic() - start < DEADLINE:
            at, text = self.js("location.href"), self.js("document.body ? document.body.innerText : ''") or ""
            if "Countersign" in (self.js("document.title") or "") and "One moment" not in text and text:
                return text
            ready = self.js("document.readyState") == "complete" and self.js("document.forms.length > 0")
            if ready and at not in seen:
                seen.add(at)
                self.js(f"(() => {{ const f = document.forms[0]; if (f.login) {{ f.login.value = '{name}'; "
                        "f.password.value = 'any' } f.submit() })()")
            time.sleep(0.05)
        raise AssertionError(f"Chromium is stuck at {at}: {text}")

    def close(self):
        self.connection.__exit__(None, None, None)
        self.process.kill()
        self.process.wait()
