"""What `make test-processors` runs, and what it leaves out."""

from __future__ import annotations

import pytest

from processors import LOWEST, ONE_BY_ONE, Setting, bits_under, check, settings


def test_each_value_stands_alone_and_the_lowest_together() -> None:
    chosen = settings()
    assert chosen[0] == {}
    assert [one for one in chosen if len(one) > 1] == [LOWEST]
    assert {"ATEN_CPU_CAPABILITY": "avx2"} in chosen
    assert {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"} in chosen
    assert len(chosen) == 2 + sum(map(len, ONE_BY_ONE.values()))


def test_a_setting_without_effect_is_left_out_and_one_failure_fails_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [{}, {"A": "high"}, {"A": "low"}, {"B": "low"}]
    ran = []

    def tests(setting: Setting) -> tuple[bool, str]:
        ran.append(setting)
        return setting != {"A": "low"}, "3 passed in 1.20s"

    assert check(chosen, lambda setting: setting.get("A", "high") + setting.get("B", ""), tests)
    assert ran == [{}, {"A": "low"}, {"B": "low"}]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "A=high: not run, every bit is as under: as it is"
    assert lines[2].startswith("A=low: FAILED: 3 passed (")
    assert check([{}, {"B": "low"}], lambda setting: str(setting), tests) == 0


@pytest.mark.slow
def test_a_lower_processor_has_other_bits_and_a_name_nobody_reads_has_not() -> None:
    plain = bits_under({})
    assert bits_under({"ISOFLOP_NOTHING": "1"}) == plain
    assert bits_under({"ATEN_CPU_CAPABILITY": "default"}) != plain
