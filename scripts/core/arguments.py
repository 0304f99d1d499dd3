"""Quotes file names on the command line, because brackets, `=` and quotes are special characters in Hydra's grammar."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString

# Arguments whose value is a file, a folder or a name that people choose.
PATHS = (
    "wav",
    "photo",
    "clip",
    "input",
    "output",
    "predictions",
    "references",
    "against",
    "resume",
    "name",
    "data_dir",
    "results_dir",
    "data.root",
    "generator.weights",
    "encoder.weights",
    "stage1.weights",
    "stage1.name",
    "tuned",
    "adapted",
    "audio.encoder",
    "pairs.folder",
    "generator.render",
    "motion.clip",
    "metrics.sync_weights",
    "sync_train.held",
    "encoder_train.images",
    "encoder_train.identity",
    "tables.tcd_timit",
    "tables.grid",
    "tables.ablation",
)
_ARGUMENT = re.compile(r"(\+{0,2})([\w./@]+)=(.*)", re.DOTALL)


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """`wav=a [1]=b.wav` -> `wav='a [1]=b.wav'`; quoted values, `null` and other options stay as they are.

    With -m nothing is changed, because commas then separate the values of a sweep.
    """
    if "-m" in arguments or "--multirun" in arguments:
        return list(arguments)
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    match = _ARGUMENT.fullmatch(argument)
    if match is None or match[2] not in PATHS:
        return argument
    value = match[3]
    if value in ("", "null") or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return argument
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # `${` would be an interpolation of OmegaConf
    return f"{match[1]}{match[2]}={QuotedString(text=literal, quote=Quote.single).with_quotes()}"
