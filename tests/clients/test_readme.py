"""The README does what it says: its commands run, its configurations load."""

import re
import subprocess

from conftest import BINARY, CLEAN, ROOT


def blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_configurations_load(tmp_path):
    found = blocks("yaml")
    assert found
    for n, block in enumerate(found):
        file = tmp_path / f"{n}.yaml"
        file.write_text(block)
        result = subprocess.run([BINARY, "check", file], env={**CLEAN, "HOME": str(tmp_path)}, capture_output=True, text=True,
                                cwd=tmp_path)
        assert result.returncode == 0, f"{block}\n{result.stdout}{result.stderr}"


def test_shell_blocks_run(origins, proxy, tmp_path):
    """Each `sh` block of the tour runs in one folder, in order; `countersign` is the release binary."""
    folder = tmp_path / "tour"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/countersign").symlink_to(BINARY)
    env = {**CLEAN, "HOME": str(folder), "PATH": f"{folder}/bin:{CLEAN['PATH']}"}
    found = blocks("sh")
    assert found
    for block in found:
        result = subprocess.run(["sh", "-eu", "-c", block], env=env, cwd=folder, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"{block}\n{result.stdout}{result.stderr}"
