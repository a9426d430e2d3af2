"""The token store when the machine fails: killed or refused at each system call of a save, a full disk, files that others
could have written, clocks that step. The refresh tokens here can be spent once, and one that comes twice ends them all."""

import contextlib
import glob
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.parse

import pytest

from conftest import BINARY, canary, need

JSON = {"content-type": "application/json"}


class Strict:
    """An authorization server that rotates refresh tokens."""

    def __init__(self, origin, life=3600):
        self.lock, self.life = threading.Lock(), life
        self.calls = self.answers = 0
        self.good, self.dead, self.access = None, False, set()
        self.origin = origin
        origin.pages["/token"] = self.token
        origin.pages["/api"] = self.api

    def begin(self):
        """A new family."""
        with self.lock:
            self.good, self.dead = canary("seed"), False
            return self.good

    def token(self, handler, seen):
        form = dict(urllib.parse.parse_qsl(seen["body"].decode()))
        with self.lock:
            self.calls += 1
            if self.dead or form.get("refresh_token") != self.good:
                self.dead = True
                return handler.answer(400, b'{"error": "invalid_grant"}', JSON)
            self.answers += 1
            self.good, access = canary("refresh"), canary("access")
            self.access.add(access)
            answer = {"access_token": access, "refresh_token": self.good, "expires_in": self.life}
        handler.answer(200, json.dumps(answer).encode(), JSON)

    def api(self, handler, seen):
        sent = dict((name.lower(), value) for name, value in seen["headers"]).get("authorization", "")
        handler.answer(200 if sent.removeprefix("Bearer ") in self.access else 401, b"")

    def config(self):
        return (
            "version: 1\ntokens: {store: file}\ncredentials:\n  user: {type: oauth2, grant: refresh_token, "
            f"token_url: \"{self.origin.url('/token')}\", client_id: app, refresh_token: {self.begin()}}}\nrules:\n"
            f"  - {{name: Api, host: \"{self.origin.base}\", auth: user}}\n"
        )


class Place:
    """A data folder, and one command on it: the one that refreshes."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TOKIO_WORKER_THREADS": "1"}
        self.begin_anew()
        assert self.refresh().returncode == 0

    def begin_anew(self):
        (self.folder / "countersign.yaml").write_text(self.server.config())

    def refresh(self, *before):
        command = [*before, BINARY, "token", "refresh", "user", "--config", str(self.folder / "countersign.yaml"),
                   "--data-dir", str(self.folder / "data")]
        return subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL)

    def trace(self, *more):
        """Runs it under strace: what it said, and the calls as (thread, name, rest)."""
        log = self.folder / "trace"
        result = self.refresh("strace", "-f", "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}", *more)
        lines = re.findall(r"^(\d+) +(\w+)\((.*)$", log.read_text(errors="replace"), re.M)
        return result, lines, log.read_text(errors="replace")


RENAMES = ["rename", "renameat", "renameat2"]
# What a save can consist of.
CALLS = [*RENAMES, "openat", "read", "write", "fchmod", "fstat", "statx", "fsync", "fdatasync", "flock",
         "unlink", "unlinkat", "getdents64", "lseek", "close"]


def traced(place):
    result, lines, text = place.trace()
    if result.returncode != 0 and "ptrace" in result.stderr + text:
        pytest.skip("this system lets nobody be traced")
    assert result.returncode == 0, result.stderr
    return lines


def saves(place):
    """The calls of both saves of one refresh, each as its name and which one of that name it is in its thread."""
    lines = traced(place)
    data = str(place.folder / "data")
    first = next(at for at, (_, name, rest) in enumerate(lines) if name == "flock" and f"{data}/locks/" in rest)
    last = max(at for at, (_, name, rest) in enumerate(lines) if name == "fsync")
    counts, steps = {}, []
    for at, (thread, name, rest) in enumerate(lines):
        counts[thread, name] = counts.get((thread, name), 0) + 1
        if first <= at <= last and data in rest:
            steps.append((name, counts[thread, name], rest.replace(str(place.folder), "")))
    return steps


def test_a_save_is_written_flushed_renamed_and_flushed(tmp_path, origins):
    """The order that a power cut asks for."""
    need("strace")
    steps = saves(Place(tmp_path, Strict(origins(tls=False))))
    order = []
    for name, _, rest in steps:
        if "/.countersign-" in rest and name in ("write", "fsync") or name.startswith("rename"):
            order.append(name)
        elif name == "fsync" and re.match(r"\d+</data>", rest):
            order.append("fsync folder")
    order = [name for at, name in enumerate(order) if order[at - 1 : at] != [name]]
    one = ["write", "fsync", next(name for name in order if name.startswith("rename")), "fsync folder"]
    assert order == one * 2, order


def sweep(place, inject, judge, names=CALLS):
    """Runs a refresh once for each call of these names in its saves, with that call hit."""
    met = set()
    steps = [step for step in saves(place) if step[0] in names]
    for name, number, _ in dict.fromkeys((name, number, "") for name, number, _ in steps):
        before = place.server.answers
        result, lines, text = place.trace("-e", f"inject={name}:{inject}:when={number}")
        hit = [rest for _, called, rest in lines if called == name and ("INJECTED" in rest or rest == lines[-1][2])]
        if hit and ("INJECTED" in text or "killed by SIGKILL" in text):
            met.add((name, re.sub(r"-\w{6}\b|0x\w+|\d+", "", hit[-1].replace(str(place.folder), ""))[:60]))
        judge(result, before, f"{name} {number}: {hit[-1:]}")
    print(f"{inject}: {len(steps)} calls in both saves, {len(met)} different ones met")
    assert len(met) >= 4, met


def test_killed_at_each_call_of_a_save(tmp_path, origins):
    """Whatever call it is, the next process goes on, or says that the answer was lost on its way to the disk."""
    need("strace")
    place = Place(tmp_path, Strict(origins(tls=False)))
    told = []

    def judge(result, before, where):
        given = place.server.answers - before
        again = place.refresh()
        if again.returncode == 0:
            return
        assert given == 1 and result.returncode != 0, f"lost outside of the window at {where}: {again.stderr}"
        assert "cut off before its answer could be stored" in again.stderr, f"{where}: {again.stderr}"
        told.append(where)
        place.begin_anew()
        assert place.refresh().returncode == 0

    sweep(place, "signal=KILL", judge)
    print(f"{len(told)} times the answer was lost before it was on disk, and the next process said so")


def test_an_error_at_each_call_of_a_save(tmp_path, origins):
    """One error loses nothing: the refresh fails before anything is spent, or goes on."""
    need("strace")
    place = Place(tmp_path, Strict(origins(tls=False)))

    def judge(result, before, where):
        assert "panicked" not in result.stderr, result.stderr
        if result.returncode != 0:
            assert result.stderr.strip(), where
        again = place.refresh()
        assert again.returncode == 0, f"{where}: {result.stderr}\nthen: {again.stderr}"
        assert not place.server.dead, f"{where}: a refresh token was spent twice"

    # Not `write`: threads wake each other with it, too. A full disk, below, is what makes it fail.
    for error, names in (("ENOSPC", RENAMES + ["openat"]), ("EIO", RENAMES + ["fchmod", "fsync", "flock"])):
        sweep(place, f"error={error}", judge, names)


@contextlib.contextmanager
def small_disk(folder):
    """A file system of 64 KiB."""
    folder.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with open(folder / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 512):
            pass


def spoil_mode(data):
    (data / "tokens.enc").chmod(0o644)


def spoil_owner(data):
    os.chown(data / "tokens.enc", 12345, 12345)


def mend(data):
    (data / "ballast").unlink(missing_ok=True)
    (data / "tokens.enc").chmod(0o600)
    if os.geteuid() == 0:
        os.chown(data / "tokens.enc", 0, 0)


def remount(how):
    return lambda data: subprocess.run(["mount", "-o", f"remount,{how}", data], check=True)


FAULTS = {
    "full": (fill, mend, "No space left"),
    "read-only": (remount("ro"), remount("rw"), "Read-only"),
    "mode": (spoil_mode, mend, "it must be 600"),
    "owner": (spoil_owner, mend, "belongs to user 12345"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_while_the_proxy_runs(tmp_path, origins, proxy, fault):
    """The token at hand is used as long as it is good. Then requests are told what is wrong, nothing is spent, and all
    goes on when the store is mended; also for the next process."""
    if fault == "owner" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    spoil, repair, said = FAULTS[fault]
    server = Strict(origins(tls=False), life=3)
    one = proxy(server.config())
    with small_disk(one.folder / "data") as data:
        one.start()
        ask = lambda: one_request(one, server)
        assert ask()[0] == 200 and server.calls == 1
        got = time.monotonic()
        spoil(data)
        try:
            while time.monotonic() < got + 1.8:
                assert ask()[0] == 200, "the token at hand is good"
                time.sleep(0.1)
            while time.monotonic() < got + 3.2:
                time.sleep(0.05)
            status, body = ask()
            assert status in (502, 503) and said in body, body
            assert server.calls == 1, "nothing was spent"
        finally:
            repair(data)
        begun = time.monotonic()
        while (status := ask()[0]) != 200:
            assert time.monotonic() < begun + 20, body
            time.sleep(0.1)
        assert server.calls == 2 and not server.dead
        one.stop()
        one.start()
        assert ask()[0] == 200 and not server.dead
        one.stop()
        one.process = None


def one_request(one, server):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
    connection.request("GET", server.origin.url("/api"))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_clock_that_steps(tmp_path, origins, proxy):
    """Ahead: a token that has ended by then is not sent. Back: one that has lived its time is not either."""
    fake = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not fake:
        pytest.skip("libfaketime is not installed")
    server = Strict(origins(tls=False), life=3600)
    moved = tmp_path / "moved"
    moved.write_text("+0\n")
    env = {"LD_PRELOAD": fake[0], "FAKETIME_TIMESTAMP_FILE": str(moved), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    one = proxy(server.config(), env=env).start()
    assert one_request(one, server)[0] == 200 and server.calls == 1
    old = set(server.access)
    moved.write_text("+2h\n")
    server.access -= old
    assert one_request(one, server)[0] == 200 and server.calls == 2, "asked for before it was sent"
    assert sum(seen["path"] == "/api" for seen in server.origin.seen) == 2, "the old token was not tried"
    # Two seconds of life by a clock that is then set back by a day.
    server.life = 2
    moved.write_text("+4h\n")
    assert one_request(one, server)[0] == 200 and server.calls == 3
    moved.write_text("-20h\n")
    time.sleep(2.2)
    assert one_request(one, server)[0] == 200
    assert server.calls == 4, "it had lived its two seconds"
    assert sum(seen["path"] == "/api" for seen in server.origin.seen) == 4 and not server.dead
