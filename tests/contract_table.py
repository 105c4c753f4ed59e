"""Run the contract over every execer there is, and write into README.md how much of it holds.

    python tests/contract_table.py

Exits with what pytest does. Arguments are passed on to it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"

BEGIN, END = "<!-- contract -->\n", "<!-- /contract -->\n"

# By the names of support/ways.py.
EXECERS = {
    "local": "on this machine, without a server",
    "memory": "over a connection in memory",
    "socket": "over a socket",
    "tls": "over TLS",
    "chain": "through one server at another",
    "ssh": "by SSH: OpenSSH",
    "gunicorn": "under gunicorn, with threads",
    "werkzeug": "under Werkzeug, with threads",
    "flask-sock": "in a Flask application, by Flask-Sock",
    "haproxy": "behind HAProxy",
}


def count(report: Path) -> tuple[Counter[str], Counter[str]]:
    """Return how many cases passed, and how many there were, by execer, of a JUnit report."""
    passed: Counter[str] = Counter()
    all: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        for entry in case.iter("property"):
            if entry.get("name") == "execer":
                execer = entry.get("value", "")
                all[execer] += 1
                passed[execer] += not any(case.findall(kind) for kind in ("failure", "error"))
    return passed, all


def table(passed: Counter[str], all: Counter[str]) -> str:
    lines = ["| A command runs | Cases that pass |", "|---|---|"]
    lines += [f"| {words} | {passed[name]} of {all[name]} |" for name, words in EXECERS.items()]
    return "".join(f"{line}\n" for line in lines)


def written(readme: str) -> str:
    """Return the table that stands in the README."""
    return readme.partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        # xunit1: the other kind has no properties.
        command = [sys.executable, "-m", "pytest", "--numprocesses", "4", "--dist", "worksteal"]
        command += [f"--junitxml={report}", "--override-ini=junit_family=xunit1"]
        command += ["--all-parts", *sys.argv[1:], str(TESTS / "contract")]
        status = subprocess.run(command, check=False).returncode
        passed, all = count(report) if report.exists() else (Counter(), Counter())
    missing = [name for name in EXECERS if not all[name]]
    if missing:  # of a run that could not begin, a table would say "0 of 0"
        print(f"README.md is left as it is: no case ran over {', '.join(missing)}", file=sys.stderr)
        return status or 1
    new = table(passed, all)
    readme = README.read_text()
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"README.md has no {BEGIN.strip()}"
    assert end, f"README.md has no {END.strip()}"
    README.write_text(f"{before}{begin}\n{new}\n{end}{after}")
    print(new, end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
