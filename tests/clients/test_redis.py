"""The token store in Redis: real servers, several proxies as if on several hosts, and one refresh token that can be spent
once. Every fault is made to happen at a chosen point of a refresh, and every test looks at what is left in Redis."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests
from conftest import BINARY, DEADLINE, canary, free_port, need
from oauth2_people import until
from redis_servers import ACQUIRE, RELEASE, WRITE, Idp, Redis, Relay, Wire, key

pytestmark = pytest.mark.usefixtures("_installed")

# A lease lasts 10 s, its heir waits 4 s more; a failing store is given up on after some 5 s.
HEIR, GIVEN_UP = 25, 15


@pytest.fixture
def _installed():
    need("redis-server")


@pytest.fixture
def closing():
    """What is added is closed at the end, the last first."""
    made = []

    def add(one):
        made.append(one)
        return one

    yield add
    for one in reversed(made):
        one.close()


def config(idp, store, extra=""):
    return (f"version: 1\ntokens: {{store: {{redis: {{url: \"{store}\"{extra}}}}}}}\ncredentials:\n"
            f"  user: {{type: oauth2, grant: refresh_token, token_url: \"{idp.url('/token')}\", client_id: app, "
            f"refresh_token: {idp.seed}}}\nrules:\n  - {{name: Api, host: \"{idp.base}\", auth: user}}\n")


class Host:
    """A proxy with a data folder of its own, as on another machine."""

    def __init__(self, proxy, idp, store, shared, extra="", canaries=()):
        self.proxy = proxy(config(idp, store, extra), env={"COUNTERSIGN_TOKEN_KEY": shared}, canaries=list(canaries))
        self.url = idp.url("/api")

    def start(self, log="debug"):
        self.proxy.start(log=log)
        return self

    def ask(self):
        """Status and text of one request."""
        answer = requests.get(self.url, proxies={"http": self.proxy.url}, timeout=DEADLINE)
        return answer.status_code, answer.text

    def works(self, within=DEADLINE):
        """Asks until it works; what was said meanwhile."""
        said, start = [], time.monotonic()
        while True:
            status, text = self.ask()
            if status == 200:
                return said
            said.append(text)
            assert status in (502, 503), (status, text)
            assert time.monotonic() - start < within, said[-3:]
            time.sleep(0.1)

    def kill(self):
        self.proxy.process.kill()
        self.proxy.process.wait()
        self.proxy.process = None

    def signal(self, number):
        os.kill(self.proxy.process.pid, number)


@pytest.fixture
def hosts(proxy):
    shared = key()

    def make(idp, *stores, extra="", canaries=()):
        return [Host(proxy, idp, store, shared, extra, canaries).start() for store in stores]

    make.key = shared
    return make


def keeps_secrets(redis, idp):
    everything = redis.everything()
    assert b"countersign vault 1" in everything, "nothing of ours is there"
    for secret in [*idp.secrets, "oauth2/user"]:
        assert secret.encode() not in everything


def warm(idp, *hosts):
    """All have the same token, which soon ends; the next one will last. Gives the number of calls so far."""
    idp.expires_in = 2
    for host in hosts:
        host.works()
    idp.expires_in = 3600
    with idp.lock:
        idp.good.clear()  # what lasts from here on is the next token alone
    time.sleep(2.1)  # until the token ends: nothing tells
    return idp.calls


def test_two_hosts_share_one_token_and_redis_never_sees_it(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    one, two = hosts(idp, *[f"redis://127.0.0.1:{redis.port}"] * 2, canaries=[idp.seed])
    base = warm(idp, one, two)
    assert redis.ask("PUBSUB", "NUMSUB", "countersign:changed")[1] == 2, "both hear the news"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: (one, two)[n % 2].ask(), range(32)))
    assert {status for status, _ in answers} == {200}, answers
    assert (idp.calls, idp.reused) == (base + 1, 0)
    keeps_secrets(redis, idp)
    # Another start reads what is there.
    again, = hosts(idp, f"redis://127.0.0.1:{redis.port}")
    again.works()
    assert idp.calls == base + 1
    status = json.loads(again.proxy.command("status", "--json").stdout)
    assert status["token_store"] == {"kind": "redis", "trouble": None}
    until(lambda: redis.lease() is None, "the lease is given back")


def test_commands_work_on_redis_alone(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    one, = hosts(idp, f"redis://127.0.0.1:{redis.port}")
    one.works()
    one.proxy.stop()
    one.proxy.process = None
    command = one.proxy.command

    def done(*args, code=0, **more):
        result = command(*map(str, args), **more)
        assert result.returncode == code, (args, result.stderr)
        return result.stdout + (result.stderr if code else "")

    assert idp.issued[1] == done("token", "get", "user").strip()
    assert "good" in done("token", "list")
    assert idp.calls == 1
    done("token", "refresh", "user")
    assert idp.calls == 2 and idp.issued[-1] == done("token", "get", "user").strip()
    kept = done("token", "export", "user", "--unencrypted")
    assert idp.newest in kept
    done("token", "delete", "user")
    assert idp.newest not in done("token", "show", "user")
    (tmp_path / "kept.json").write_text(kept)
    (tmp_path / "kept.json").chmod(0o600)
    done("token", "import", tmp_path / "kept.json")
    done("token", "refresh", "user")
    assert (idp.calls, idp.reused) == (3, 0)
    assert redis.lease() is None, "a command leaves no lease behind"
    keeps_secrets(redis, idp)
    redis.kill()
    start = time.monotonic()
    said = done("token", "delete", "user", code=1)
    assert "Redis at 127.0.0.1" in said and time.monotonic() - start < GIVEN_UP, said


class Fault:
    """Something bad that happens to Redis, how it is known to have happened, and its end."""

    def __init__(self, redis):
        self.redis = redis

    def end(self):
        pass


class Kill(Fault):
    """It loses everything: nothing is on disk."""

    def begin(self):
        before = self.redis.info("run_id")
        self.redis.kill()
        self.redis.start()
        assert self.redis.info("run_id") != before and self.redis.info("rdb_last_load_keys_loaded") == "0", "it lost everything"


class KillKeeping(Fault):
    """It is killed, is away for a second, and has everything again."""

    options = ["--appendonly", "yes", "--appendfsync", "always"]

    def begin(self):
        self.redis.kill()
        time.sleep(1)
        self.redis.start()
        assert self.redis.keys()


class Stopped(Fault):
    def begin(self):
        self.redis.pause()
        with pytest.raises(OSError):
            self.redis.ask("PING", timeout=0.5)

    def end(self):
        time.sleep(4)
        self.redis.go_on()


class Paused(Fault):
    def begin(self):
        self.redis.ask("CLIENT", "PAUSE", "5000", "ALL")
        with pytest.raises(OSError):
            self.redis.ask("PING", timeout=0.5)


class ReadOnly(Fault):
    text = "replica"

    def begin(self):
        self.redis.ask("REPLICAOF", "127.0.0.1", free_port())
        assert self.redis.info("role") == "slave"

    def end(self):
        self.redis.ask("REPLICAOF", "NO", "ONE")


class Full(Fault):
    text = "full"

    def begin(self):
        self.redis.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Exception, match="OOM"):
            self.redis.ask("SET", "x", "y")

    def end(self):
        self.redis.ask("CONFIG", "SET", "maxmemory", "0")


class Evicting(Fault):
    text = "allkeys-lru"

    def begin(self):
        self.redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert self.redis.info("maxmemory_policy") == "allkeys-lru"

    def end(self):
        self.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


class Loading(Fault):
    text = "loading"
    options = ["--appendonly", "no", "--enable-debug-command", "yes", "--key-load-delay", "30000",
               "--loading-process-events-interval-bytes", "1024"]

    def begin(self):
        self.redis.ask("DEBUG", "POPULATE", "120", "filler", "100")
        self.redis.ask("SAVE")
        self.redis.kill()
        self.redis.start(loading=True)
        with pytest.raises(Exception, match="LOADING"):
            self.redis.ask("GET", "x")


# Where a refresh is stopped: the command, and whether it is stopped before it reaches Redis or before its answer is back.
POINTS = {
    "before the lease": (ACQUIRE, 1, True),
    "after the lease": (WRITE, 1, True),
    "after the answer of the server": (WRITE, 2, True),
    "after the write": (WRITE, 2, False),
    "before the release": (RELEASE, 1, True),
}


class Stage:
    """Two hosts, of which one is stopped at a point of its refresh."""

    def __init__(self, folder, closing, hosts, options=()):
        self.redis, self.idp = closing(Redis(folder, *options)), closing(Idp())
        self.relay = closing(Relay(self.redis.port))
        self.one, self.two = hosts(self.idp, *[f"redis://127.0.0.1:{port}" for port in (self.relay.port, self.redis.port)])

    def stop_at(self, point, pool):
        """The refresh of the first host, stopped."""
        self.base = warm(self.idp, self.one, self.two)
        self.relay.hold(POINTS[point][0], POINTS[point][1], POINTS[point][2])
        asking = pool.submit(self.one.ask)
        assert self.relay.reached.wait(DEADLINE), f"it never came to {point}"
        return asking


def survives(stage, fault, point):
    """The refresh goes through or fails honestly; once the fault is over all is well, with one refresh in all."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asking = stage.stop_at(point, pool)
        fault.begin()
        stage.relay.release()
        start = time.monotonic()
        ends = pool.submit(fault.end) if isinstance(fault, (Stopped, Paused)) else None
        status, text = asking.result(DEADLINE)
        took = time.monotonic() - start
        assert status in (200, 502, 503), text
        assert took < GIVEN_UP, f"a request hung for {took} s"
        if status != 200:
            assert "Redis at 127.0.0.1" in text, text
            if hasattr(fault, "text"):
                assert fault.text in text, text
        if ends:
            ends.result(DEADLINE)
        else:
            if isinstance(fault, (ReadOnly, Full, Evicting)):
                # The other host cannot refresh, and says why. If the write was first, it need not.
                other, said = stage.two.ask()
                # Or the other one keeps the lock, because it could not store what it got.
                told = fault.text in said or "was not free in time" in said
                assert other == 200 or other in (502, 503) and told, said
            fault.end()
        stage.one.works()
        stage.two.works()
    assert (stage.idp.calls, stage.idp.reused) == (stage.base + 1, 0), "more than one refresh"
    until(lambda: stage.redis.lease() is None, "the lease is given back")
    keeps_secrets(stage.redis, stage.idp)


@pytest.mark.parametrize("kind", [Kill, KillKeeping, Stopped, Paused, ReadOnly, Full, Evicting, Loading])
def test_a_fault_of_redis_at_each_point_of_a_refresh(tmp_path, closing, hosts, kind):
    options = getattr(kind, "options", [])
    stages = {point: Stage(tmp_path / f"redis{at}", closing, hosts, options) for at, point in enumerate(POINTS)}
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(len(stages)) as pool:
        running = {point: pool.submit(survives, stage, kind(stage.redis), point) for point, stage in stages.items()}
        for point, one in running.items():
            try:
                one.result()
            except Exception as error:
                failed[point] = error
    if failed:
        logs = "\n".join(f"--- {point}\n{stages[point].one.proxy.output()[-3000:]}" for point in failed)
        raise AssertionError(f"{failed}\n{logs}") from next(iter(failed.values()))


def heir(stage, point):
    """The host that refreshes dies; the other one goes on, or says honestly that it cannot."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = stage.stop_at(point, pool)
        if point == "before the release":
            # A request does not wait until the lease is given back.
            assert asking.result(DEADLINE)[0] == 200
        stage.one.kill()
        if point != "before the release":
            with pytest.raises(requests.RequestException):
                asking.result(DEADLINE)
        stage.relay.lose()
    if point == "after the answer of the server":
        # The only window: the server has given what nobody has stored.
        status, text = stage.two.ask()
        assert status == 502 and "cut off" in text, (status, text)
        assert stage.idp.calls == stage.base + 2, "it is tried once more"
        for _ in range(3):
            assert stage.two.ask()[0] == 502
        assert stage.idp.calls == stage.base + 2, "and only once"
    else:
        said = stage.two.works(HEIR)
        assert said == [], said
        assert (stage.idp.calls, stage.idp.reused) == (stage.base + 1, 0)
    keeps_secrets(stage.redis, stage.idp)


def test_a_host_that_dies_in_a_refresh_loses_nothing_silently(tmp_path, closing, hosts):
    stages = {point: Stage(tmp_path / f"redis{at}", closing, hosts) for at, point in enumerate(POINTS)}
    with concurrent.futures.ThreadPoolExecutor(len(stages)) as pool:
        for one in [pool.submit(heir, stage, point) for point, stage in stages.items()]:
            one.result()


def test_a_host_that_is_late_stores_what_it_got_and_its_heir_takes_that(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    one, two = hosts(idp, *[f"redis://127.0.0.1:{redis.port}"] * 2)
    base = warm(idp, one, two)
    idp.stop_at("after")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        late = pool.submit(one.ask)
        assert idp.held.wait(DEADLINE)
        first = redis.lease()
        one.signal(signal.SIGSTOP)
        idp.release()
        other = pool.submit(two.ask)
        until(lambda: redis.lease() not in (None, first), "the lease passes on")
        one.signal(signal.SIGCONT)
        assert late.result(DEADLINE)[0] == 200
        assert other.result(DEADLINE)[0] == 200
    assert (idp.calls, idp.reused) == (base + 1, 0)


def test_a_stale_generation_is_never_written_back(tmp_path, closing, hosts):
    stage = Stage(tmp_path / "redis", closing, hosts)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        late = stage.stop_at("after the lease", pool)
        # It hangs before it says that it will spend the token; its lease ends.
        stage.one.signal(signal.SIGSTOP)
        assert stage.two.works(HEIR) == []
        newest, generation = stage.idp.newest, stage.redis.generation()
        stage.relay.release()
        stage.one.signal(signal.SIGCONT)
        status, text = late.result(DEADLINE)
    assert status == 200 or status == 503 and "did not answer in time" in text, text
    assert stage.one.works(GIVEN_UP) == [] or status == 503
    assert (stage.idp.calls, stage.idp.reused, stage.idp.newest) == (stage.base + 1, 0, newest)
    assert stage.redis.generation() == generation


def test_tokens_in_memory_are_used_while_redis_is_away_and_a_rotation_is_stored_later(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")), closing(Idp())
    one, two = hosts(idp, *[f"redis://127.0.0.1:{redis.port}"] * 2)
    base = warm(idp, one, two)
    idp.stop_at("after")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(one.ask)
        assert idp.held.wait(DEADLINE)
        redis.kill()
        idp.release()
        assert asking.result(DEADLINE)[0] == 200, "the token that could not be stored is used"
    start = time.monotonic()
    for _ in range(20):
        assert one.ask()[0] == 200
    assert time.monotonic() - start < 5, "a good token needs no store"
    assert "not stored yet" in one.proxy.output()
    status, text = two.ask()
    assert status == 503 and "no connection" in text, text
    trouble = json.loads(two.proxy.command("status", "--json").stdout)["token_store"]["trouble"]
    assert "no connection" in trouble
    redis.start()
    until(lambda: "stored now" in one.proxy.output(), "it is stored when Redis is back")
    two.works()
    assert (idp.calls, idp.reused) == (base + 1, 0)


def test_a_start_without_redis_serves_and_recovers(tmp_path, closing, hosts):
    idp, port = closing(Idp()), free_port()
    one, = hosts(idp, f"redis://127.0.0.1:{port}")
    until(lambda: "tokens cannot be stored" in one.proxy.output(), "it is said at the start")
    assert one.ask()[0] == 503
    assert idp.calls == 0, "what cannot be stored is not spent"
    redis = closing(Redis(tmp_path / "redis", port=port))
    one.works()
    until(lambda: redis.ask("PUBSUB", "NUMSUB", "countersign:changed")[1] == 1, "the news are heard again")


def test_an_evicting_server_and_another_key_are_refused(tmp_path, closing, hosts, proxy):
    redis, idp = closing(Redis(tmp_path / "redis", "--maxmemory-policy", "allkeys-lfu")), closing(Idp())
    store = f"redis://127.0.0.1:{redis.port}"
    one, = hosts(idp, store)
    until(lambda: "maxmemory-policy allkeys-lfu" in one.proxy.output(), "it is said at the start")
    status, text = one.ask()
    assert status == 502 and "noeviction" in text, text
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    one.works()
    before = redis.everything()
    other = Host(proxy, idp, store, key()).start()
    status, text = other.ask()
    assert status == 502 and "another key" in text and "COUNTERSIGN_TOKEN_KEY" in text, text
    assert (idp.calls, redis.everything()) == (1, before)


def test_changed_values_are_refused(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    one, = hosts(idp, f"redis://127.0.0.1:{redis.port}")
    one.works()
    record = next(name for name in redis.keys() if name.endswith(b":record"))
    value = redis.ask("HGET", record, "v")
    # Another value under a name, another generation: what was sealed fits one place alone.
    for field, forged in [("v", value[:-1] + bytes([value[-1] ^ 1])), ("v", b"x"), ("g", b"9")]:
        kept = redis.ask("HGET", record, field)
        redis.ask("HSET", record, field, forged)
        two, = hosts(idp, f"redis://127.0.0.1:{redis.port}")
        status, text = two.ask()
        assert status == 502 and "refused" in text, text
        redis.ask("HSET", record, field, kept)
    assert idp.calls == 1


def test_users_databases_and_passwords_from_references(tmp_path, closing, proxy):
    password = canary("redis-password")
    redis = closing(Redis(tmp_path / "redis", "--requirepass", "admin-password", password="admin-password"))
    redis.ask("ACL", "SETUSER", "ours", "on", f">{password}", "~fleet:*", "&fleet:*", "+@read", "+@write", "+@scripting",
              "+@pubsub", "+@connection", "+info", "+wait", "+time", "-@dangerous", "+info")
    redis.ask("ACL", "SETUSER", "mute", "on", f">{password}", "~fleet:*", "resetchannels", "+@all")
    idp, shared = closing(Idp()), key()
    made = []
    for user in ("ours", "mute"):
        text = config(idp, f"redis://{user}:${{env:REDIS_PASSWORD}}@127.0.0.1:{redis.port}/3", ", prefix: fleet")
        one = proxy(text, env={"COUNTERSIGN_TOKEN_KEY": shared, "REDIS_PASSWORD": password}, canaries=[password])
        host = Host.__new__(Host)
        host.proxy, host.url = one.start(log="trace"), idp.url("/api")
        made.append(host)
    base = warm(idp, *made)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(lambda n: made[n % 2].ask(), range(8))} == {200}
    assert (idp.calls, idp.reused) == (base + 1, 0), "without news they look by themselves"
    assert "tells no news" in made[1].proxy.output() and "tells no news" not in made[0].proxy.output()
    wire = Wire(redis.port, password="admin-password")
    wire.ask("SELECT", "3")
    assert all(name.startswith(b"fleet:") for name in wire.ask("KEYS", "*")) and redis.keys() == []
    wire.close()
    shown = made[0].proxy.command("config", "show").stdout
    assert "redis" in shown and password not in shown
    # A password that is wrong, written in the file: refused, and never shown.
    wrong = proxy(config(idp, f"redis://ours:{canary('wrong')}@127.0.0.1:{redis.port}/3"), env={"COUNTERSIGN_TOKEN_KEY": shared})
    written = re.search(r"wrong-\w+", (wrong.folder / "countersign.yaml").read_text())[0]
    wrong.canaries.append(written)
    wrong.start(log="trace")
    answer = requests.get(idp.url("/api"), proxies={"http": wrong.url}, timeout=DEADLINE)
    assert answer.status_code == 502 and "user and password" in answer.text and written not in answer.text
    assert written not in wrong.command("config", "show").stdout


def test_tls_with_its_own_authority_and_our_certificate(tmp_path, closing, hosts, authority):
    server, ours = authority.issue_cert("127.0.0.1"), authority.issue_cert("countersign.example")
    files = {name: tmp_path / name for name in ("ca.pem", "server.pem", "server.key", "our.pem", "our.key")}
    authority.cert_pem.write_to_path(str(files["ca.pem"]))
    for name, issued in (("server", server), ("our", ours)):
        issued.cert_chain_pems[0].write_to_path(str(files[f"{name}.pem"]))
        issued.private_key_pem.write_to_path(str(files[f"{name}.key"]))
    port, idp = free_port(), closing(Idp())
    redis = closing(Redis(tmp_path / "redis", "--tls-port", port, "--tls-cert-file", files["server.pem"], "--tls-key-file",
                          files["server.key"], "--tls-ca-cert-file", files["ca.pem"]))
    store, trust = f"rediss://127.0.0.1:{port}", f", ca: {files['ca.pem']}"
    one, two = hosts(idp, store, store, extra=f"{trust}, cert: {files['our.pem']}, key: {files['our.key']}")
    one.works()
    two.works()
    assert idp.calls == 1
    keeps_secrets(redis, idp)
    nobody, = hosts(idp, store, extra=trust)
    assert nobody.ask()[0] == 503, "the server wants a certificate of ours"
    stranger, = hosts(idp, store)
    status, text = stranger.ask()
    assert status == 503 and re.search("UnknownIssuer|certificate", text), text
    assert idp.calls == 1


def test_a_write_that_no_replica_confirms_does_not_begin_a_refresh(tmp_path, closing, hosts):
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    replica = closing(Redis(tmp_path / "replica", "--replicaof", "127.0.0.1", redis.port))
    until(lambda: redis.info("connected_slaves") == "1" and "state=online" in redis.info("slave0"), "a replica")
    one, = hosts(idp, f"redis://127.0.0.1:{redis.port}")
    base = warm(idp, one)
    replica.pause()
    status, text = one.ask()
    assert status == 503 and "no replica has confirmed" in text, text
    assert idp.calls == base, "the refresh token is not spent"
    replica.go_on()
    one.works()
    assert (idp.calls, idp.reused) == (base + 1, 0)


class Sentinels:
    """A primary behind a relay, a replica, and three Sentinels that look at the primary through the relay."""

    def __init__(self, folder, closing):
        self.primary = closing(Redis(folder / "primary"))
        self.relay = closing(Relay(self.primary.port))
        self.replica = closing(Redis(folder / "replica", "--replicaof", "127.0.0.1", self.relay.port))
        until(lambda: self.primary.info("connected_slaves") == "1" and "state=online" in self.primary.info("slave0"), "a replica")
        self.watching = []
        for at in range(3):
            port, file = free_port(), folder / f"sentinel{at}.conf"
            file.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {self.relay.port} 2\n"
                            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n")
            self.watching.append(closing(Redis(folder / f"sentinel{at}", file, port=port, program="redis-sentinel")))
        for one in self.watching:
            until(lambda: one.info("sentinel_masters") == "1" and "slaves=1,sentinels=3" in one.info("master0"), "Sentinels")
        self.url = "redis+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in self.watching) + "/main"

    def fail_over(self):
        self.primary.kill()
        until(self.is_over, "a failover")

    def is_over(self):
        """Servers drop their connections when they change their role."""
        with contextlib.suppress(OSError):
            return self.replica.info("role") == "master"


@pytest.mark.parametrize("point", list(POINTS))
def test_a_failover_by_sentinels_at_each_point_of_a_refresh(tmp_path, closing, hosts, point):
    sentinels, idp = Sentinels(tmp_path, closing), closing(Idp())
    one, two = hosts(idp, sentinels.url, sentinels.url)
    base = warm(idp, one, two)
    sentinels.relay.hold(*POINTS[point])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(one.ask)
        assert sentinels.relay.reached.wait(DEADLINE)
        failing = threading.Thread(target=sentinels.fail_over)
        failing.start()
        until(lambda: sentinels.primary.process.poll() is not None, "the primary is dead")
        sentinels.relay.release()
        status, text = asking.result(DEADLINE)
        failing.join()
    assert status == 200 or status == 503 and "Redis at main" in text, text
    assert sentinels.replica.info("role") == "master"
    one.works()
    two.works()
    assert (idp.calls, idp.reused) == (base + 1, 0)
    keeps_secrets(sentinels.replica, idp)


def test_a_cluster_of_three(tmp_path, closing, hosts):
    buses = [free_port() for _ in range(3)]
    nodes = [closing(Redis(tmp_path / f"node{at}", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
                           "--cluster-port", bus)) for at, bus in enumerate(buses)]
    for at, node in enumerate(nodes):
        node.ask("CLUSTER", "ADDSLOTSRANGE", at * 16384 // 3, (at + 1) * 16384 // 3 - 1)
        node.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
        if at:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, buses[at])
    for node in nodes:
        until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), "the cluster")
        until(lambda: b"cluster_known_nodes:3" in node.ask("CLUSTER", "INFO"), "the cluster")
    idp = closing(Idp())
    one, two = hosts(idp, *[f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"] * 2)
    base = warm(idp, one, two)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: (one, two)[n % 2].ask(), range(16)))
    assert {status for status, _ in answers} == {200}, answers
    assert (idp.calls, idp.reused) == (base + 1, 0)
    home = next(node for node in nodes if any(name.endswith(b":record") for name in node.keys()))
    keeps_secrets(home, idp)
    # The node of the token goes away for a while: requests end in time, and all is well when it is back.
    idp.expires_in = 1
    with idp.lock:
        idp.good.clear()
    one.proxy.command("token", "refresh", "user")
    calls = idp.calls
    time.sleep(1.1)
    home.pause()
    start = time.monotonic()
    status, text = one.ask()
    assert status == 503 and time.monotonic() - start < GIVEN_UP, (status, text)
    home.go_on()
    idp.expires_in = 3600
    one.works()
    two.works()
    assert idp.calls > calls and idp.reused == 0


def race(idp, hosts, tasks, generations):
    """All tasks of all hosts ask until so many tokens have been given. Gives the number of requests that failed."""
    idp.expires_in = 1
    failed, asked = [], [0]

    def work(host):
        session = requests.Session()
        session.proxies = {"http": host.proxy.url}
        session.trust_env = False
        while idp.calls < generations:
            answer = session.get(host.url, timeout=DEADLINE)
            asked[0] += 1
            if answer.status_code != 200:
                failed.append((answer.status_code, answer.text))
            time.sleep(len(hosts) * tasks / 3000)  # leaves the processor to the proxies

    threads = [threading.Thread(target=work, args=(host,)) for host in hosts for _ in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed, asked[0]


def test_a_race_of_processes_spends_each_token_once(tmp_path, closing, hosts):
    processes, tasks, generations = map(int, os.environ.get("REDIS_RACE", "4,16,25").split(","))
    redis, idp = closing(Redis(tmp_path / "redis")), closing(Idp())
    made = hosts(idp, *[f"redis://127.0.0.1:{redis.port}"] * processes)
    start = time.monotonic()
    failed, asked = race(idp, made, tasks, generations)
    print(f"{processes} processes x {tasks} tasks: {idp.calls} refreshes for {idp.calls} generations, {idp.reused} reused, "
          f"{asked} requests, {len(failed)} failed, {time.monotonic() - start:.0f} s")
    assert idp.reused == 0 and not idp.revoked
    assert generations <= idp.calls <= generations + 1
    assert failed == [], failed[:3]
    spread = [host.proxy.output().count("a refresh token is spent") for host in made]
    assert sum(1 for one in spread if one) > 1, f"one process has done all of it: {spread}"
