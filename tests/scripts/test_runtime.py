"""scripts/core/arguments.py and scripts/core/runtime.py: command lines, error messages, exit codes, seconds, precision."""

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scripts.core import runtime
from scripts.core.arguments import quote_paths
from scripts.core.networks import build_generator, build_renderer
from stylegan2.weights import WeightsError

PARSER = OverridesParser.create()


def through_hydra(value: str) -> str:
    """The value of wav= that a script receives when wav=VALUE is typed."""
    override = PARSER.parse_override(quote_paths([f"wav={value}"])[0])
    config = OmegaConf.create({"wav": None})
    OmegaConf.update(config, "wav", override.value())
    return OmegaConf.to_container(config, resolve=True)["wav"]  # type: ignore[index, call-overload, return-value]


@pytest.mark.parametrize(
    "name",
    [
        "my talk [1].wav",
        "a=b.wav",
        "it's.wav",
        "a,b.wav",
        "${x}.wav",
        "~/x.wav",
        "漢字 é.wav",
        "1",
        "back\\slash",
    ],
)
def test_file_names_survive_the_command_line(name):
    assert through_hydra(name) == name


@given(st.text(alphabet="ab '\"\\[]{}(),=$:#*?!&\n~%@+-.", min_size=1))
def test_any_file_name_survives_the_command_line(name):
    assume(
        not (len(name) > 1 and name[0] == name[-1] and name[0] in "'\"")
    )  # a value that is quoted already is parsed by Hydra
    assert through_hydra(name) == name


def test_home_is_expanded_in_every_setting_that_names_a_file(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    config = runtime.resolve(
        runtime.compose(["generator.weights=~/g.safetensors", "wav=~/it's.wav", "name=a~b"])
    )
    assert (config.generator.weights, config.wav) == ("/home/ann/g.safetensors", "/home/ann/it's.wav")
    assert config.name == "a~b"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("phto=me.jpg", "Could not override 'phto'. Did you mean photo?"),
        ("trajectory.hiden=3", "Did you mean trajectory.hidden"),
        ("train.steps=abc", "train.steps=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("motion=null", "Config group override must be a string or a list"),
        ("debug=${oc.env:NOT_SET}", "Environment variable 'NOT_SET' not found"),
        ("experiment=nope", "Could not find 'experiment/nope' Available options in 'experiment': "),
    ],
)
def test_a_wrong_command_line_gives_one_line_with_a_suggestion(word, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script.py", word])
    with pytest.raises(SystemExit) as ended:
        runtime.launch(lambda config, run: None)
    error = capsys.readouterr().err
    assert ended.value.code == 1 and said in error and error.count("\n") == 1


def test_only_path_arguments_are_quoted():
    untouched = [
        "seed=1",
        "photo=null",
        "wav='quoted already.wav'",
        "--cfg",
        "experiment=demo",
        "losses.latent=0.5",
    ]
    assert quote_paths(untouched) == untouched
    assert quote_paths(["data.root=a b"]) == ["data.root='a b'"]
    assert quote_paths(["-m", "wav=a.wav,b.wav"]) == ["-m", "wav=a.wav,b.wav"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (WeightsError("There is no weight file\nat x."), 1, "Error: There is no weight file at x.\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.wav"),
            1,
            "Error: x.wav: no such file or directory.\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "Stopped. Finished results are kept; the same command resumes from them.\n",
        ),
    ],
)
def test_user_errors_are_printed_as_one_sentence(tmp_path, capsys, error, code, words):
    def stage(config, run):
        raise error

    raw = runtime.compose([f"results_dir={tmp_path}", f"data_dir={tmp_path}", "device=cpu"])
    assert runtime.attempt(stage, raw) == code
    assert capsys.readouterr().err == words


def test_other_exceptions_are_not_caught(tmp_path):
    def stage(config, run):
        raise ZeroDivisionError

    raw = runtime.compose([f"results_dir={tmp_path}", f"data_dir={tmp_path}", "device=cpu"])
    with pytest.raises(ZeroDivisionError):
        runtime.attempt(stage, raw)


def test_unusable_settings_are_user_errors(tmp_path, capsys):
    for override, words in [
        ("audio.kind=wavelet", "audio.kind"),
        ("device=quantum", "device=quantum"),
        ("seed=-1", "seed is -1"),
        ("+phto=x.jpg", "phto is no setting"),
        ("data.root=clips", "add data=folder"),
    ]:
        raw = runtime.compose([f"results_dir={tmp_path}", f"data_dir={tmp_path}", override])
        assert runtime.attempt(lambda config, run: None, raw) == 1
        assert words in capsys.readouterr().err


def test_seconds_do_not_count_inner_stages_twice(tmp_path):
    run = runtime.start(runtime.resolve(runtime.compose([f"results_dir={tmp_path}", "device=cpu"])))
    with run.timed("outer"), run.timed("inner"):
        pass
    assert set(run.seconds) == {"inner", "outer"}
    assert sum(run.seconds.values()) < 1


@pytest.mark.parametrize(("precision", "half"), [("32-true", None), ("bf16-mixed", torch.bfloat16)])
def test_precision_applies_to_rendering_but_not_to_cached_results(tmp_path, precision, half):
    config = runtime.resolve(runtime.compose([f"precision={precision}", f"results_dir={tmp_path}"]))
    run = runtime.start(config, quiet=True)
    assert build_renderer(config, run).half == half and build_generator(config, run).half is None


def test_on_a_cpu_stage_1_is_not_trained_under_autocast(tmp_path):
    config = runtime.resolve(
        runtime.compose(["precision=bf16-mixed", f"results_dir={tmp_path}", "device=cpu"])
    )
    with runtime.start(config, quiet=True).fabric.autocast():
        assert not torch.is_autocast_enabled("cpu")
