"""git over smart HTTP: clone and push of a large repository through `git http-backend`."""

import base64
import os
import subprocess
import threading

from conftest import CLEAN, Handler, canary


class GitHandler(Handler):
    """CGI, streaming in both directions; refuses who has no right Authorization."""

    def handle_any(self):
        origin = self.server.origin
        if self.headers.get("authorization") != origin.expected:
            self.close_connection = True
            return self.answer(401, b"no\n", {"www-authenticate": "Basic realm=git"})
        path, _, query = self.path.partition("?")
        origin.seen.append({"path": self.path, "headers": list(self.headers.items())})
        env = {**CLEAN, "GIT_PROJECT_ROOT": str(origin.folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
               "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": "robot",
               "CONTENT_TYPE": self.headers.get("content-type", ""), "REMOTE_ADDR": "127.0.0.1",
               "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
               "HTTP_GIT_PROTOCOL": self.headers.get("git-protocol", "")}
        if "content-length" in self.headers:
            env["CONTENT_LENGTH"] = self.headers["content-length"]
        child = subprocess.Popen(["git", "http-backend"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def feed():
            try:
                self.body(child.stdin.write)
                child.stdin.close()
            except BrokenPipeError:
                pass

        feeder = threading.Thread(target=feed)
        feeder.start()
        status, headers = 200, []
        while line := child.stdout.readline().strip():
            name, _, value = line.decode().partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while piece := child.stdout.read1(1 << 16):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        feeder.join()
        child.wait()

    do_GET = do_POST = handle_any


def git(*args, cwd=None):
    subprocess.run(["git", *args], check=True, capture_output=True, cwd=cwd, env=IDENTITY)


IDENTITY = {**CLEAN, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t",
            "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t", "GIT_TERMINAL_PROMPT": "0"}


def test_clone_and_push_of_100_mib(origins, proxy, tmp_path):
    secret = canary()
    origin = origins(handler=GitHandler)
    origin.folder = tmp_path / "served"
    origin.expected = "Basic " + base64.b64encode(f"robot:{secret}".encode()).decode()
    bare = origin.folder / "big.git"
    git("init", "-q", "--bare", "-b", "main", str(bare))
    seed = tmp_path / "seed"
    git("init", "-q", "-b", "main", str(seed))
    # What is random cannot be compressed; trying takes long.
    for folder in (bare, seed):
        git("config", "core.compression", "0", cwd=folder)
    git("config", "http.receivepack", "true", cwd=bare)
    git("config", "receive.unpackLimit", "1", cwd=bare)
    for n in range(10):
        (seed / f"random{n}").write_bytes(os.urandom(10 << 20))
    git("add", ".", cwd=seed)
    git("commit", "-qm", "100 MiB", cwd=seed)

    one = proxy(f"version: 1\nrules:\n  - {{name: Git, host: \"{origin.base}\", "
                f"auth: {{type: basic, username: robot, password: {secret}}}}}\n", canaries=[secret])
    url = origin.url("/big.git")
    one.run("git", "push", "-q", url, "main", cwd=seed, env=IDENTITY, timeout=180)
    one.run("git", "clone", "-q", url, tmp_path / "copy", env=IDENTITY, timeout=180)
    for n in range(10):
        name = f"random{n}"
        assert (tmp_path / "copy" / name).read_bytes() == (seed / name).read_bytes()
    pushes = [seen for seen in origin.seen if seen["path"].endswith("git-receive-pack")]
    assert any(("transfer-encoding", "chunked") in [(name.lower(), value) for name, value in seen["headers"]]
               for seen in pushes)
