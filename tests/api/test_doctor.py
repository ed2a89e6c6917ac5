"""What doctor finds is what `require` asks of it."""

import pytest

from prunekd.api.doctor import Finding, examine, require


def test_what_is_needed_must_be_found_and_known() -> None:
    findings = [Finding(name="a", found=True, detail="1.0"), Finding(name="b", found=False, detail="not there")]
    require(findings, [])
    require(findings, ["a"])
    with pytest.raises(RuntimeError, match=r"needed and missing: b \(not there\)"):
        require(findings, ["a", "b"])
    with pytest.raises(ValueError, match="doctor looks at a, b"):
        require(findings, ["c"])


def test_every_finding_has_a_name_of_its_own_and_says_something() -> None:
    findings = examine()
    assert len({item.name for item in findings}) == len(findings)
    assert all(item.detail for item in findings)
