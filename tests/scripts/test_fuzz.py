"""Damaged files, impossible settings and odd file names: each is read or refused in one sentence, within a minute and
bounded memory, and nothing is written. Repeat a run with --hypothesis-seed=N.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_samples import (
    CHANGES,
    EXTREMES,
    VALUES,
    Change,
    Sample,
    header_of,
    places_in,
    with_header,
    with_value,
    write_samples,
)
from fuzzed_readers import ReaderProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scripts.core.runtime import _options, compose

pytestmark = pytest.mark.slow

GROUPS = {
    "media": ("video", "sound", "sound of a video"),
    "photos": ("photo",),
    "checkpoints": ("public",),
    "safetensors": ("generator", "encoder", "trajectory", "tuned", "frame clip", "latent clip"),
    "json": ("manifest", "report", "motion"),
}
WORDS = [
    "-1", "0", "1e9", "nan", "-inf", "null", "true", "[]", "[nan]", "{a:1}", "x", "''", "9" * 30, "1.5", "${name}",
    "${oc.env:NOPE}", "${", "'", "a b", "\udcff", "../..", "1_000", "0x10",
]  # fmt: skip
NAMES = [
    "a b", "'", '"', "$HOME", "#1", "a=b, [c] {d}", "é", "e\u0301", "漢字", "\n", "-rf", "100%", "\\", ";", "a" * 240,
    ".hidden", "~", "${x}", os.fsdecode(b"caf\xe9"),
]  # fmt: skip
often = settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
byte_changes = st.lists(
    st.builds(
        Change,
        st.sampled_from(CHANGES),
        st.floats(0, 1, exclude_max=True),
        st.booleans(),
        st.one_of(st.sampled_from(EXTREMES), st.binary(min_size=1, max_size=12)),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory, face) -> dict[str, Sample]:
    return write_samples(tmp_path_factory.mktemp("samples"), face)


@pytest.fixture(scope="module")
def process(tmp_path_factory) -> Iterator[ReaderProcess]:
    reader = ReaderProcess(tmp_path_factory.mktemp("current"))
    yield reader
    reader.close()


def demand_read_or_refused(process: ReaderProcess, reader: str, given: Path | list[str]) -> str:
    """The outcome. Nothing may be written, neither beside the file nor into the current or the temporary folder."""
    beside = files_beside(given)
    outcome = process.outcome(reader, given)
    assert outcome == "read" or (outcome.startswith("refused: ") and "\n" not in outcome), outcome
    assert list(process.folder.iterdir()) == [] and files_beside(given) == beside
    return outcome


def files_beside(given: Path | list[str]) -> list[Path]:
    return sorted(given.parent.glob("*")) if isinstance(given, Path) else []


def test_the_samples_are_read(samples, process):
    for sample in samples.values():
        assert demand_read_or_refused(process, sample.reader, sample.file) == "read"


@pytest.mark.parametrize("group", GROUPS)
def test_changed_bytes(group, samples, process, tmp_path):
    names = [name for name, sample in samples.items() if sample.reader in GROUPS[group]]

    @often
    @given(st.sampled_from(names), byte_changes)
    def check(name: str, changes: list[Change]) -> None:
        data = samples[name].file.read_bytes()
        for change in changes:
            data = change(data)
        file = tmp_path / f"changed{samples[name].file.suffix}"
        file.write_bytes(data)
        demand_read_or_refused(process, samples[name].reader, file)

    check()


@pytest.mark.parametrize("group", ["safetensors", "json"])
def test_changed_values_of_json(group, samples, process, tmp_path):
    headers = {
        name: header_of(sample.file.read_bytes())[0]
        for name, sample in samples.items()
        if sample.reader in GROUPS[group]
    }
    places = {name: places_in(header) for name, header in headers.items()}

    @often
    @given(st.sampled_from(list(headers)), st.data(), st.sampled_from(VALUES))
    def check(name: str, data: st.DataObject, value: object) -> None:
        changed = with_value(headers[name], data.draw(st.sampled_from(places[name])), value)
        file = tmp_path / f"changed{samples[name].file.suffix}"
        file.write_bytes(with_header(samples[name].file.read_bytes(), changed))
        demand_read_or_refused(process, samples[name].reader, file)

    check()


def test_settings(process):
    names = [*_options(OmegaConf.to_container(compose())), "nothing", "data.nothing"]
    word = st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "", "", "+", "++", "~"]),
        st.sampled_from(names),
        st.sampled_from(WORDS),
    )

    @settings(often, max_examples=30)
    @given(st.lists(word, min_size=1, max_size=2))
    def check(words: list[str]) -> None:
        demand_read_or_refused(process, "settings", words)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_odd_file_names(name, samples, process, tmp_path):
    for sample in samples.values():
        file = tmp_path / f"{name}{sample.file.suffix}"
        shutil.copy(sample.file, file)
        outcome = demand_read_or_refused(process, sample.reader, file)
        assert outcome == "read" or "not UTF-8" in outcome
        missing = demand_read_or_refused(process, sample.reader, tmp_path / "no folder" / file.name)
        assert missing.startswith("refused: ")
        file.unlink()
