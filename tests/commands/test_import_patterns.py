"""patrol patterns import: what it writes, what it says, and that the result is used."""

from __future__ import annotations

from pathlib import Path

RULES = r"""
[[rules]]
id = "acme-key"
regex = '''\b(ack_[a-z0-9]{32})\b'''
keywords = ["ack_"]
[[rules]]
id = "acme-far"
regex = '''acme.{0,20}([a-f0-9]{32})'''
keywords = ["acme"]
"""
FAR = "acme-far: not imported: its secret is told by what stands before it, not by its own form"


def test_what_is_imported_is_scanned_for(patrol, tmp_path: Path) -> None:
    rules, output = tmp_path / "rules.toml", tmp_path / "acme.toml"
    rules.write_text(RULES)
    done = patrol("patterns", "import", rules, "--output", output)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [FAR, "1 of 2 rules were imported."]
    assert f"# {FAR}" in output.read_text().splitlines()
    to_stdout = patrol("patterns", "import", rules)
    assert (to_stdout.code, to_stdout.out) == (0, output.read_text())
    patrol.set(PATROL_PATTERNS=output)
    assert patrol("patterns", "test").code == 0
    (tmp_path / "leak").write_text("key = ack_3k7fq9w2m4x8z1v6n5b0c3j7h2g4t8r1")
    found = patrol("scan", "dir", tmp_path / "leak", "--patterns", "gitleaks-acme-key")
    assert found.code == 1
    (listed,) = [row for row in patrol("patterns", "list", "--format", "json").json()
                 if row["id"] == "gitleaks-acme-key"]  # fmt: skip
    assert (listed["issuer"], listed["own"]) == ("acme", False)


def test_what_cannot_be_used_is_a_failure(patrol, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    for text, said in (
        ("rules: [", "is not YAML"),
        ("rules: [{id: np.a.1, name: A, pattern: '(?=a)'}]", "None of the rules can be expressed."),
    ):
        rules.write_text(text)
        done = patrol("patterns", "import", rules)
        assert done.code == 2
        assert said in done.err
    rules.write_text("rules: [{id: np.a.1, name: A, pattern: 'ab_[a-z]{30}'}]")
    done = patrol("patterns", "import", rules, "--output", tmp_path / "none" / "x.toml")
    assert (done.code, "cannot be written" in done.err) == (2, True)
