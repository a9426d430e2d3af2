"""Makes gunicorn.json and llhttp.json from the source distributions of gunicorn 27.0.1 and aiohttp 3.14.5 (PyPI).

    pip download --no-binary :all: --no-deps gunicorn==27.0.1 aiohttp==3.14.5
    tar xzf ...
    python3 extract.py gunicorn-27.0.1 aiohttp-3.14.5

Each entry: name, valid, why (what the authors expect to be wrong), raw (one character per byte, latin-1).
"""

import json
import pathlib
import re
import sys


def gunicorn(root):
    """Requests as tests/treq.py reads them: newlines of the file do not count, escapes do."""
    entries = []
    for kind in ("invalid", "valid"):
        for path in sorted((root / "tests/requests" / kind).glob("*.http")):
            raw = path.read_bytes().replace(b"\n", b"").replace(b"\\r\\n", b"\r\n")
            raw = raw.replace(b"\\0", b"\0").replace(b"\\n", b"\n").replace(b"\\t", b"\t")
            raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), raw)
            expected = re.search(r"^request = (\w+)$", path.with_suffix(".py").read_text(), re.M)
            entries.append(entry(path.stem, kind == "valid", expected[1] if expected else "", raw))
    return entries


def llhttp(root):
    """The strict request tests: blocks of markdown, read as test/md-test.ts does."""
    entries = []
    block = re.compile(r'^###? (?P<name>[^\n]+)\n(?:(?!^#).)*?<!-- meta=(?P<meta>\{[^\n]*\}) -->\n```http\n(?P<raw>.*?)```'
                       r'\n+```log\n(?P<log>.*?)```', re.M | re.S)
    for path in sorted((root / "vendor/llhttp/test/request").glob("*.md")):
        for found in block.finditer(path.read_text()):
            meta = json.loads(found["meta"])
            if meta["type"] != "request" or "pause" in meta or "skipBody" in meta:
                continue
            text = re.sub(r"\n$", "", found["raw"])
            text = re.sub(r"\\\n", "", text).replace("\n", "\r\n")
            for escape, plain in (("r", "\r"), ("n", "\n"), ("t", "\t"), ("f", "\f")):
                text = text.replace("\\" + escape, plain)
            text = re.sub(r"\\x([0-9a-fA-F]+)", lambda m: chr(int(m[1], 16)), text)
            text = re.sub(r"\\([0-7]{1,3})", lambda m: chr(int(m[1], 8)), text)
            if "${" in text:
                continue
            error = re.search(r'error code=\d+ reason="([^"]*)"', found["log"])
            raw = text.encode("utf-8") if any(ord(c) > 255 for c in text) else text.encode("latin-1")
            entries.append(entry(f"{path.stem}: {found['name']}", error is None, error[1] if error else "", raw))
    return entries


def entry(name, valid, why, raw):
    return {"name": name, "valid": valid, "why": why, "raw": raw.decode("latin-1")}


def main():
    here = pathlib.Path(__file__).parent
    for name, read, root in (("gunicorn", gunicorn, sys.argv[1]), ("llhttp", llhttp, sys.argv[2])):
        entries = read(pathlib.Path(root))
        (here / f"{name}.json").write_text(json.dumps(entries, indent=1) + "\n")
        good = sum(e["valid"] for e in entries)
        print(f"{name}: {good} valid, {len(entries) - good} invalid")


main()
