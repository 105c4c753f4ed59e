"""The table of the contract in the README: that it is of all there is to be under the contract."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import contract_table
from ways import EXECERS

# pytest writes what the contract's fixture records; here is what it looks like.
REPORT = """
<testsuites><testsuite>
<testcase name="a"><properties><property name="execer" value="local"/></properties></testcase>
<testcase name="b"><properties><property name="execer" value="local"/></properties>
    <failure>no</failure></testcase>
<testcase name="c"><properties><property name="execer" value="ssh"/></properties>
    <error>no</error></testcase>
<testcase name="d"/>
</testsuite></testsuites>
"""


def test_every_execer_is_in_it() -> None:
    assert list(contract_table.EXECERS) == list(EXECERS)
    lines = contract_table.written(contract_table.README.read_text()).splitlines()[2:]
    for line, words in zip(lines, contract_table.EXECERS.values(), strict=True):
        match = re.fullmatch(rf"\| {re.escape(words)} \| (\d+) of (\d+) \|", line)
        assert match, line
        assert int(match[1]) == int(match[2]) > 100, line


def test_what_a_report_says(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    passed, all = contract_table.count(report)
    assert passed == Counter(local=1)
    assert all == Counter(local=2, ssh=1)
    table = contract_table.table(passed, all)
    assert "| 1 of 2 |\n" in table
    assert (
        contract_table.written(f"x\n<!-- contract -->\n\n{table}\n<!-- /contract -->\ny") == table
    )
