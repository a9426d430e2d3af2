"""The README does what it says: its commands run in an empty folder, its configurations load, its output is real."""

import json
import re
import subprocess
import time

import pytest
from conftest import BINARY, CLEAN, DEADLINE, ROOT, canary

README = (ROOT / "README.md").read_text()
STAND_IN = "api.github.com"

# What builds the program gives the one that is built already; the demo does not stay.
CARGO = """#!/bin/sh
case "$*" in
  "run --release -- demo") exec countersign demo --once ;;
  "install --locked --path .") exit 0 ;;
esac
echo "the README has a cargo command that this test does not know: $*" >&2
exit 1
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, beside one with `countersign` and `cargo` in it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/countersign").symlink_to(BINARY)
    (tmp_path / "bin/cargo").write_text(CARGO)
    (tmp_path / "bin/cargo").chmod(0o755)
    (tmp_path / "tour").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path


def environment(folder, **more):
    return {**CLEAN, "HOME": str(folder / "home"), "PATH": f"{folder}/bin:{CLEAN['PATH']}", **more}


def shell(text, env, cwd):
    result = subprocess.run(["sh", "-eu", "-c", text], env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"{text}\n{result.stdout}{result.stderr}"
    return result.stdout


def test_every_block_is_tested():
    languages = re.findall(r"^```(\w*)\n.*?^```", README, re.M | re.S)
    assert languages and set(languages) == {"sh", "yaml", "text"}


def test_configurations_load(folder):
    for n, block in enumerate(blocks("yaml")):
        file = folder / f"{n}.yaml"
        file.write_text(block)
        shell(f"countersign check {file}", environment(folder), folder / "tour")


def test_the_first_command_shows_what_the_page_shows(folder):
    first, shown = blocks("sh")[0], blocks("text")
    blurred = lambda text: re.sub(r"[0-9a-f]{4}…[0-9a-f]{4}|\d+", "#", text)
    real = blurred(shell(first, environment(folder), folder / "tour"))
    assert shown
    for line in "".join(shown).splitlines():
        assert blurred(line) in real.splitlines(), f"{line}\n{real}"


def test_the_tour(folder, origins, authority):
    """All other commands, in order; a server of ours stands in for the API. `start` runs beside what follows it."""
    origin, secret = origins(), canary()
    origin.pages["/user"] = lambda handler, seen: handler.answer(200, b"the user")
    authority.cert_pem.write_to_path(str(folder / "origin-ca.pem"))
    env = environment(folder, GITHUB_TOKEN=secret, SSL_CERT_FILE=str(folder / "origin-ca.pem"))
    tour, printed, running = folder / "tour", "", None
    assert not list(tour.iterdir())
    try:
        for block in blocks("sh")[1:]:
            block = block.replace(STAND_IN, f"localhost:{origin.port}")
            if block.startswith("countersign start"):
                command = block.split() + ["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"]
                running = subprocess.Popen(command, env=env, cwd=tour, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                           text=True, stdin=subprocess.DEVNULL)
                begun = time.monotonic()
                while subprocess.run(["countersign", "status"], env=env, cwd=tour, capture_output=True).returncode:
                    assert running.poll() is None, running.stdout.read()
                    assert time.monotonic() - begun < DEADLINE
            else:
                printed += shell(block, env, tour)
        assert running.wait(DEADLINE) == 0
        printed += running.stdout.read()
    finally:
        if running and running.poll() is None:
            running.kill()
    # Once by `run`, once by `env`.
    assert [seen["path"] for seen in origin.seen] == ["/user", "/user"]
    assert origin.values("authorization") == [f"Bearer {secret}"] * 2
    assert printed.count("the user") == 2 and secret not in printed, printed
    assert secret not in (tour / "countersign.yaml").read_text()


def test_the_table_of_refusals_is_that_of_the_program():
    """Every id that the program can answer with is in the table, and no other."""
    source = (ROOT / "src/proxy/error.rs").read_text()
    ids = set(re.findall(r'Self::\w+ => "([a-z-]+)",', source))
    table = README.split("## When it refuses")[1].split("## ")[0]
    assert ids and set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", table)) == ids


def test_the_table_of_schemes_is_that_of_the_program(folder):
    schema = json.loads(shell("countersign config schema", environment(folder), folder / "tour"))
    types = set(re.findall(r'"const": "([a-z0-9_]+)"', json.dumps(schema)))
    table = README.split("## Schemes")[1].split("## ")[0]
    listed = set(re.findall(r"^\| \[?`(\w+)`", table, re.M))
    assert listed <= types, listed - types
    pages = {page.stem for page in (ROOT / "docs/schemes").iterdir()}
    assert listed - {"none"} == pages
    # Recipes for well-known services begin with their type: hmac-azure-storage.yaml.
    assert listed == {example.stem.split("-")[0] for example in (ROOT / "config/examples").iterdir()}


def test_the_pages_of_schemes_list_every_key(folder):
    """Each scheme's table of keys is that of the schema."""
    found = {}

    def walk(node):
        if isinstance(node, list):
            for part in node:
                walk(part)
        if isinstance(node, dict):
            keys = node.get("properties", {})
            if isinstance(keys.get("type"), dict) and "const" in keys["type"]:
                found.setdefault(keys["type"]["const"], set()).update(set(keys) - {"type", "extends"})
            for part in node.values():
                walk(part)

    walk(json.loads(shell("countersign config schema", environment(folder), folder / "tour")))
    assert "oauth2" in found
    for page in (ROOT / "docs/schemes").iterdir():
        rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
        assert set(re.findall(r"`(\w+)`", " ".join(rows))) == found[page.stem], page
