"""The modules of the console page: their types, and unit tests of those that are pure."""

import pathlib
import re
import subprocess

import pytest
from conftest import need

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "src/control/page"


def test_the_types_hold():
    """`tsc --checkJs` over every module: JSDoc types, strict, nothing unused."""
    need("node")
    result = subprocess.run(["node", "node_modules/typescript/bin/tsc", "-p", "tsconfig.json", "--listFiles"], cwd=HERE,
                            capture_output=True, text=True)
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if "error" in line)
    missing = [path.name for path in PAGE.glob("*.js") if path.name != "lit-html.js" and f"/{path.name}" not in result.stdout]
    assert not missing, missing


def test_every_file_is_served_and_nothing_else():
    served = set(re.findall(r'include_str!\("page/([^"]+)"\)', (PAGE.parent / "page.rs").read_text()))
    there = {path.name for path in PAGE.iterdir() if not path.name.endswith(".d.ts")}
    assert served == there
    for path in PAGE.glob("*.js"):
        text = path.read_text()
        if path.name != "lit-html.js":
            assert "innerHTML" not in text and "unsafeHTML" not in text and "eval(" not in text, path.name


def names():
    text = (HERE / "page_units.test.mjs").read_text()
    return re.findall(r"^test\('([^']+)'", text, re.M)


@pytest.fixture(scope="module")
def report():
    need("node")
    result = subprocess.run(["node", "--test", "--test-reporter=tap", "page_units.test.mjs"], cwd=HERE, capture_output=True,
                            text=True, timeout=120)
    return result.stdout


@pytest.mark.parametrize("name", names())
def test_unit(report, name):
    """Each test of `node --test` counts as one."""
    passed = re.search(rf"^\s*ok \d+ - {re.escape(name)}\s*$", report, re.M)
    assert passed, report
