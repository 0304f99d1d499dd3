"""The text of --help: what the script does, the options of each group of settings, and all settings with their values."""

from omegaconf import DictConfig, OmegaConf

from scripts.core.provenance import ROOT


def help_text(purpose: str, config: DictConfig) -> str:
    """purpose: the launcher's docstring; config: the settings of the command line without --help."""
    groups: dict[str, list[str]] = {}
    for file in sorted((ROOT / "configs").glob("*/**/*.yaml")):
        groups.setdefault(file.parent.relative_to(ROOT / "configs").as_posix(), []).append(file.stem)
    options = "\n".join(f"  {group}={'|'.join(names)}" for group, names in groups.items())
    return (
        f"{purpose.strip()}\n\nGroups of settings:\n{options}\n\n"
        "-m sweeps over values that commas separate; --hydra-help lists Hydra's flags.\n"
        "All settings, name.name=value; the dataclasses that configs/schema.py names explain each:\n\n"
        f"{OmegaConf.to_yaml(config)}"
    )
