"""Thirty hostile texts through every place that shows recorded traffic: the page, the terminal, JSON, curl lines, HAR and
CSV files. They arrive as paths, header values, cookies, file names, bodies and names of rules."""

import csv
import io
import json
import os
import re
import subprocess
import time
import urllib.parse

import pytest
from conftest import canary
from hostile import PAYLOADS, mark, on_the_wire
from test_console import drive

#: What steers a terminal or deceives the eye; line ends and tabs are what text is made of.
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e0fff]")


def rule_name(payload):
    """A name that a rule can have: braces in pairs are Postman's, which the file refuses."""
    return payload.replace("{{", "{ {").replace("}}", "} }")


def written(payload):
    """The name as the file spells it."""
    return json.dumps(rule_name(payload).replace("${", "$${"))


def kept(one, count):
    """Waits until so many exchanges are in the store."""
    deadline = time.monotonic() + 30
    while len(one.command("--json", "log", "-n", "10000").stdout.splitlines()) < count:
        assert time.monotonic() < deadline, "not kept"


@pytest.fixture
def played(origins, proxy):
    """A proxy that shows everything on its terminal, after all payloads went both ways."""
    origin, secret = origins(tls=False), canary()

    def echo(handler, seen):
        payload = PAYLOADS[int(seen["path"].split("?")[0].strip("/p"))]
        text = on_the_wire(payload)
        handler.answer(200, payload.encode(), {
            "content-type": "text/html", "x-echo": text, "content-disposition": f'attachment; filename="{text}"',
            "set-cookie": f"c={text}", "link": f"<{text}>; rel=next", "www-authenticate": f'Bearer error="{text}"'})

    for number in range(len(PAYLOADS)):
        origin.pages[f"/p{number}"] = echo
    rules = "".join(f"  - {{name: {written(payload)}, host: \"{origin.base}\", path: /p{number}, auth: key}}\n"
                    for number, payload in enumerate(PAYLOADS))
    one = proxy("version: 1\ncredentials: {key: {type: api_key, name: X-Api-Key, value: " + secret + "}}\nrules:\n" + rules,
                canaries=[secret], args=["-vv"]).start()
    import http.client
    for number, payload in enumerate(PAYLOADS):
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        path = f"{origin.base}/p{number}?q={urllib.parse.quote(payload)}"
        connection.request("POST", path, payload.encode(), {
            "x-payload": on_the_wire(payload).encode("latin-1"), "content-type": "text/plain",
            "user-agent": on_the_wire(payload).encode("latin-1")})
        assert connection.getresponse().read() == payload.encode(), "the client gets what the origin sent"
        connection.close()
    kept(one, len(PAYLOADS))
    return one, origin


def inert(text, where):
    found = ACTIVE.search(text)
    assert not found, f"{where}: {found[0]!r} in {text[max(0, found.start() - 80):found.end() + 20]!r}"


def test_the_page_shows_them_and_does_nothing(played):
    one, _ = played
    seen = drive(one, "console_hostile.mjs", timeout=500)
    assert seen["errors"] == [] and seen["violations"] == [] and seen["elements"] == 0, seen["errors"] + seen["violations"]
    assert len(seen["shown"]) == len(PAYLOADS)
    for number, (payload, shown) in enumerate(zip(PAYLOADS, seen["shown"].values())):
        for name in ["request", "response", "raw"]:
            assert mark(payload) in shown[name], f"{payload!r} on {name}: {shown[name]}"
        assert mark(payload) in shown["overview"] + shown["auth"], payload
        for name, text in shown.items():
            inert(text, f"{payload!r} on {name}")
        assert f"/p{number}?" in seen["list"][number]
    inert("".join(seen["list"]) + seen["tokens"] + seen["rules"] + seen["setup"], "views")
    assert "<script>alert('MARK00')</script>" in seen["shown"]["1"]["response"], "as text, to the letter"
    assert all(mark(payload) in seen["rules"] for payload in PAYLOADS), "names of rules"


def test_the_terminal_stays_what_it_is(played):
    one, _ = played
    texts = {"log": one.command("log", "-n", "100").stdout, "start -vv": one.output()}
    for number in range(1, len(PAYLOADS) + 1):
        texts[f"show {number}"] = one.command("show", str(number)).stdout
    texts["rules"] = one.command("rules").stdout
    for where, text in texts.items():
        inert(text, where)
    for payload in PAYLOADS:
        assert mark(payload) in texts["start -vv"] and mark(payload) in texts["rules"], payload
        assert any(mark(payload) in text for where, text in texts.items() if where.startswith("show"))


def test_json_is_json_and_holds_them_whole(played):
    one, _ = played
    lines = one.command("--json", "log", "-n", "100").stdout.splitlines()
    assert len([json.loads(line) for line in lines]) == len(PAYLOADS)
    for number, payload in enumerate(PAYLOADS):
        text = one.command("show", str(number + 1), "--json").stdout
        inert(text.replace("\\", ""), f"show {number + 1} --json")
        detail = json.loads(text)
        assert detail["rule"]["name"] == rule_name(payload)
        body = detail["sends"][0]["response"]
        assert body.get("body") == payload or "MARK" in body.get("body", ""), body


def test_a_shell_reads_one_word_for_each(played, tmp_path):
    """The lines run in a real shell, with a `curl` that writes down its words."""
    one, origin = played
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "curl"
    fake.write_text("#!/usr/bin/env python3\nimport json, sys\njson.dump([a.encode('utf-8', 'surrogateescape').decode(errors='replace') "
                    "for a in sys.argv[1:]], open('words.json', 'w'))\nsys.stdin.isatty() or sys.stdin.buffer.read()\n")
    fake.chmod(0o755)
    for number, payload in enumerate(PAYLOADS):
        work = tmp_path / f"run{number}"
        work.mkdir()
        line = one.command("curl", str(number + 1)).stdout
        inert(line, f"curl {number + 1}")
        result = subprocess.run(["sh"], input=line, text=True, cwd=work, capture_output=True, timeout=30,
                                env={"PATH": f"{folder}:{os.environ['PATH']}", "X_API_KEY": "a key"})
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        assert sorted(path.name for path in work.iterdir()) == ["words.json"], f"{payload!r} ran something: {line}"
        words = json.loads((work / "words.json").read_text())
        values = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
        assert [word for word in words if word.startswith("http")] == [words[0]] and f"/p{number}?q=" in words[0], words
        assert [value for value in values if value.startswith("x-payload: ")], words
        wire = on_the_wire(payload).encode("latin-1").decode()
        if not ACTIVE.search(wire) and "…" not in wire and "***" not in wire:
            assert f"x-payload: {wire}" in values, (wire, values)
            assert "x-api-key: a key" in values, values


def test_files_hold_data_and_nothing_else(played):
    one, _ = played
    har = json.loads(one.command("har", "export").stdout)
    assert len(har["log"]["entries"]) == len(PAYLOADS)
    for entry, payload in zip(har["log"]["entries"], PAYLOADS):
        assert mark(payload) in json.dumps(entry["request"]["postData"]) and mark(payload) in json.dumps(entry["response"]["content"])
    text = one.command("log", "--csv", "-n", "100").stdout
    inert(text.replace("\r\n", "\n"), "csv")
    table = list(csv.reader(io.StringIO(text)))
    assert len(table) == len(PAYLOADS) + 1 and {len(line) for line in table} == {len(table[0])}
    for line in table[1:]:
        for cell in line:
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "|", "%")), line
    assert any("=cmd|" in cell for line in table for cell in line), "the text itself is still there"
