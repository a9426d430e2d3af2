"""Redis servers, Sentinels and clusters on free ports; a relay that stops at a chosen command; a strict token endpoint."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

from conftest import CLEAN, DEADLINE, Handler, Origin, canary, free_port

# Commands of the store by the number of their parts: see `records.rs`.
ACQUIRE, EXTEND, RELEASE, WRITE = 7, 8, 9, 14


class Gone(Exception):
    """The server answered with an error."""


class Wire:
    """A client of Redis of a few lines: `ask("GET", "x")`."""

    def __init__(self, port, user=None, password=None, timeout=DEADLINE):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")
        if password:
            self.ask("AUTH", *filter(None, [user, password]))

    def ask(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        packed = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n%s" % (len(parts), packed))
        return self.answer()

    def answer(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Gone(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(max(int(rest), 0))]
        return rest.decode()

    def close(self):
        self.file.close()
        self.socket.close()


class Redis:
    """One redis-server (or Sentinel)."""

    def __init__(self, folder, *options, port=None, program="redis-server", password=None, user=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.program = folder, port or free_port(), program
        self.user, self.password, self.process = user, password, None
        self.options = [str(option) for option in options]
        if program == "redis-server":
            self.options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder),
                            "--repl-diskless-sync-delay", "0", *self.options]
        self.start()

    def start(self, loading=False):
        """Waits until it answers; if it may be `loading`, until it says so."""
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen([self.program, *self.options], env=CLEAN, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log)
        log.close()
        start = time.monotonic()
        while True:
            try:
                self.ask("PING")
                return self
            except OSError:
                pass
            except Gone as error:
                if loading and "LOADING" in str(error):
                    return self
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() - start < DEADLINE, "redis does not start"
            time.sleep(0.02)

    def ask(self, *words, timeout=DEADLINE):
        wire = Wire(self.port, self.user, self.password, timeout)
        try:
            return wire.ask(*words)
        finally:
            wire.close()

    def info(self, field):
        found = re.search(rf"^{field}:(.*?)\r?$", self.ask("INFO").decode(), re.M)
        return found and found[1]

    def keys(self):
        return self.ask("KEYS", "*")

    def everything(self):
        """Every byte of every key, in one string."""
        parts = []
        for key in self.keys():
            kind = self.ask("TYPE", key)
            parts.append(key)
            parts += self.ask("HGETALL", key) if kind == "hash" else [self.ask("GET", key) or b""]
        return b"\n".join(parts)

    def lease(self):
        """Who has the lease of the only entry."""
        names = [key for key in self.keys() if key.endswith(b":lease")]
        return self.ask("GET", names[0]) if names else None

    def generation(self):
        names = [key for key in self.keys() if key.endswith(b":record")]
        return int(self.ask("HGET", names[0], "g") or 0) if names else 0

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.go_on()
            self.kill()


class Relay:
    """Between a proxy and Redis: can stop at a command, before it is passed on or before its answer is."""

    def __init__(self, port):
        self.to, self.connections, self.lock = port, [], threading.Lock()
        self.stop_at, self.before = None, True
        self.reached, self.go, self.lost = threading.Event(), threading.Event(), False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.counts = {}
        threading.Thread(target=self.accept, daemon=True).start()

    def hold(self, size, nth=1, before=True):
        """Stops at the nth command of this size from now on."""
        self.reached.clear()
        self.go.clear()
        with self.lock:
            self.stop_at, self.before = (size, self.counts.get(size, 0) + nth), before

    def release(self):
        with self.lock:
            self.stop_at = None
        self.go.set()

    def lose(self):
        """What is held never arrives, as if it had not been sent."""
        self.lost = True
        self.release()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    server = socket.create_connection(("127.0.0.1", self.to), 5)
                except OSError:
                    client.close()
                    continue
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.settimeout(None)
                self.connections += [client, server]
                held = threading.Event()
                threading.Thread(target=self.up, args=(client, server, held), daemon=True).start()
                threading.Thread(target=self.down, args=(server, client, held), daemon=True).start()

    def up(self, client, server, held):
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                stop = False
                for size in re.findall(rb"\*(\d+)\r\n\$7\r\nEVALSHA\r\n", data):
                    with self.lock:
                        self.counts[int(size)] = self.counts.get(int(size), 0) + 1
                        stop = stop or self.stop_at == (int(size), self.counts[int(size)])
                if stop and self.before:
                    self.reached.set()
                    self.go.wait(DEADLINE)
                    if self.lost:
                        break
                if stop and not self.before:
                    held.set()
                server.sendall(data)
        self.end(client, server)

    def down(self, server, client, held):
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if held.is_set():
                    held.clear()
                    self.reached.set()
                    self.go.wait(DEADLINE)
                client.sendall(data)
        self.end(client, server)

    @staticmethod
    def end(*sockets):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self):
        self.go.set()
        self.listener.close()
        self.end(*self.connections)


class Idp(Origin):
    """A token endpoint whose refresh tokens can be spent once; a second use ends the whole family. And an API behind it."""

    def __init__(self, expires_in=3600):
        super().__init__(None, Handler)
        self.expires_in, self.calls, self.reused, self.lock = expires_in, 0, 0, threading.Lock()
        self.revoked, self.issued, self.good = False, [], set()
        self.seed = self.newest = canary("seed")
        self.hold = None
        self.held, self.go = threading.Event(), threading.Event()
        self.pages = {"/token": self.token, "/api": self.api}

    def stop_at(self, when):
        """`before` or `after` the refresh token is spent, the next request waits."""
        self.held.clear()
        self.go.clear()
        self.hold = when

    def release(self):
        self.hold = None
        self.go.set()

    def wait(self, when):
        if self.hold == when:
            self.hold = None
            self.held.set()
            self.go.wait(DEADLINE)

    def token(self, handler, seen):
        given = dict(urllib.parse.parse_qsl(seen["body"].decode())).get("refresh_token")
        self.wait("before")
        with self.lock:
            self.calls += 1
            if given != self.newest or self.revoked:
                self.reused += 1
                self.revoked = True
                self.good.clear()
                answer = 400, {"error": "invalid_grant"}
            else:
                self.newest, access = canary("refresh"), canary("access")
                self.issued += [self.newest, access]
                self.good.add(f"Bearer {access}")
                answer = 200, {"access_token": access, "refresh_token": self.newest, "token_type": "Bearer",
                               "expires_in": self.expires_in}
        self.wait("after")
        with contextlib.suppress(OSError):
            handler.answer(answer[0], json.dumps(answer[1]).encode(), {"content-type": "application/json"})

    def api(self, handler, seen):
        with self.lock:
            good = dict(seen["headers"]).get("authorization") in self.good
        handler.answer(200 if good else 401, b"ok" if good else b"no")

    @property
    def secrets(self):
        return [self.seed, *self.issued]


def key():
    """A key for sealing, as `COUNTERSIGN_TOKEN_KEY` wants it."""
    return secrets.token_hex(32)
