"""Options from YAML files and the command line, parsed by fastargs into the sections of options.py.

Precedence is defaults, then YAML files in their order, then the command line. Environment variables
are not read. What does not exist or does not parse raises `ConfigError`; nothing is ignored.
"""

import dataclasses
import difflib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import yaml
from fastargs import Config as FastargsConfig
from fastargs import Param, Section
from fastargs.exceptions import ValidationError
from fastargs.validation import Checker

from ffvit.errors import ConfigError
from ffvit.options import TrainConfig, WriteSection

SectionT = TypeVar("SectionT")


class Strict(Checker):  # type: ignore[misc]
    """Accept a YAML value or a text of exactly one type.

    fastargs' own checkers take "no" for True and 1.5 for 1.
    """

    BOOLEANS: ClassVar = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
        ("false", "no", "off", "0"), False
    )
    TEXTS: ClassVar = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def check(self, value: Any) -> Any:
        """Convert `value`, or raise anything at all: fastargs makes a ValidationError of it."""
        if self.kind is bool:
            return self.BOOLEANS[str(value).lower()]
        if self.kind is str and not isinstance(value, str):
            raise TypeError
        converted = self.kind(str(value))
        if self.kind is float and not math.isfinite(converted):
            raise ValueError
        return converted

    def help(self) -> str:
        """Say what is accepted."""
        return self.TEXTS[self.kind]


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice in one mapping, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def option_names(config_class: type) -> list[str]:
    """List the dotted names of all options of a config class, in order of declaration."""
    return [
        f"{section}.{field.name}"
        for section, (_, fields) in _sections(config_class).items()
        for field in fields
    ]


def load_train_config(argv: Sequence[str]) -> tuple[TrainConfig, str]:
    """Read the config of a training run.

    Args:
        argv: Command line without the program's name: `--config FILE` (any number),
            `--section.option=value`.

    Returns:
        The config, and the stem of the last YAML file ("train" without one), which names the run.

    Raises:
        ConfigError: An unknown option, a value of the wrong type, a file that cannot be read.
    """
    files, pairs = _split_argv(argv, prefix="", usage=TrainConfig)
    name = Path(files[-1]).stem if files else "train"
    return make_train_config(files, pairs, "command line"), name


def make_train_config(
    files: Iterable[str], options: Mapping[str, Any], origin: str = "overrides"
) -> TrainConfig:
    """Make the config of a training run.

    Args:
        files: YAML files; a later one overrides the earlier.
        options: Values by dotted name; they override the files.
        origin: Where the options come from, for messages.

    Raises:
        ConfigError: An unknown option, a value of the wrong type, a file that cannot be read.
    """
    given: dict[str, tuple[Any, str]] = {}
    for file in files:
        given |= {name: (value, str(file)) for name, value in _read_yaml(file).items()}
    given |= {name: (value, origin) for name, value in options.items()}
    return _build(TrainConfig, given)


def load_write_config(argv: Sequence[str]) -> WriteSection:
    """Read the options of `write_imagenet.py`: `--option=value`, without a section name.

    Raises:
        ConfigError: An unknown option or a value of the wrong type.
    """
    files, pairs = _split_argv(argv, prefix="write.", usage=_holder(WriteSection, "write"))
    if files:
        raise ConfigError(
            "write_imagenet.py takes no --config; give its options on the command line, see --help."
        )
    options = {name.removeprefix("write."): value for name, value in pairs.items()}
    return make_section(WriteSection, "write", options, "command line")


def make_section(
    section_class: type[SectionT], name: str, options: Mapping[str, Any], origin: str = "arguments"
) -> SectionT:
    """Make one section of its fields' values.

    Args:
        section_class: A dataclass of options.py.
        name: Of the section, for messages.
        options: Values by name.
        origin: Where they come from, for messages.

    Raises:
        ConfigError: An unknown option or a value of the wrong type.
    """
    given = {f"{name}.{key}": (value, origin) for key, value in options.items()}
    return cast("SectionT", getattr(_build(_holder(section_class, name), given), name))


def to_dict(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Turn a config into nested plain values, as written to a run's `config.yaml`."""
    return dataclasses.asdict(config)


def _holder(section_class: type, name: str) -> type:
    """Make a config class of a single section."""
    return dataclasses.make_dataclass("Config", [(name, section_class)], frozen=True)


def _sections(config_class: type) -> dict[str, tuple[type, tuple[dataclasses.Field[Any], ...]]]:
    """Map each section's name to its dataclass and that dataclass's fields."""
    return {
        f.name: (cast("type", f.type), dataclasses.fields(cast("Any", f.type)))
        for f in dataclasses.fields(config_class)
    }


def _split_argv(argv: Sequence[str], prefix: str, usage: type) -> tuple[list[str], dict[str, str]]:
    """Split a command line into YAML files and option pairs; `--help` prints them and exits."""
    files: list[str] = []
    pairs: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            _print_help(usage, prefix)
            raise SystemExit(0)
        if not word.startswith("--"):
            raise ConfigError(f"command line: expected --option=value, got {word!r}; see --help.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words or words[0].startswith("--"):
                raise ConfigError(
                    f"command line: option --{name} has no value; write --{name}=VALUE."
                )
            value = words.pop(0)
        if name in ("config", "config-file"):
            files.append(value)
        else:
            pairs[prefix + name] = value
    return files, pairs


def _read_yaml(path: str) -> dict[str, Any]:
    """Read one YAML file of sections into dotted names."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read this config file ({error.strerror}); check --config."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML, but {error}; mend the file.") from None
    if not isinstance(content, Mapping) or not all(
        isinstance(v, Mapping) for v in content.values()
    ):
        raise ConfigError(
            f"{path}: expected sections with options below them, as in ff_configs/quickstart.yaml."
        )
    return {
        f"{section}.{name}": value
        for section, options in content.items()
        for name, value in options.items()
    }


def _build(config_class: type[SectionT], given: Mapping[str, tuple[Any, str]]) -> SectionT:
    """Check the given values against the declarations, through fastargs, and build the config."""
    known = option_names(config_class)
    for name, (value, origin) in given.items():
        if name not in known:
            raise ConfigError(f"{origin}: unknown option '{_shown(name)}'{_nearest(name, known)}")
        if value is None:
            raise ConfigError(
                f"{origin}: option '{_shown(name)}' has no value; give one or remove the line."
            )
    parser = FastargsConfig()
    sections = _sections(config_class)
    for section, (_, fields) in sections.items():
        params = {
            field.name: Param(Strict(cast("type", field.type)), field.metadata["help"])
            for field in fields
        }
        Section(section, config_descriptor=parser).params(**params)
    parser.collect({name: value for name, (value, _) in given.items()})
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for name, (value, origin) in given.items():
        section, option_name = name.split(".")
        try:
            values[section][option_name] = parser[name]
        except ValidationError:
            param = parser.entries[section, option_name]
            raise ConfigError(
                f"{origin}: option '{_shown(name)}' expects {param.checker.help()}, got {value!r}"
                f" ({param.desc})."
            ) from None
    return config_class(
        **{
            section: section_class(**values[section])
            for section, (section_class, _) in sections.items()
        }
    )


def _shown(name: str) -> str:
    return name.removeprefix("write.")


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{_shown(nearest[0])}'?" if nearest else "; see --help for all of them."


def _print_help(config_class: type, prefix: str) -> None:
    lines = [
        "Options, as --option=value"
        + ("" if prefix else "; --config FILE reads them from YAML")
        + ":"
    ]
    for section, (_, fields) in _sections(config_class).items():
        for field in fields:
            name = _shown(f"{section}.{field.name}")
            lines.append(f"  --{name:32} {field.metadata['help']} [{field.default!r}]")
    sys.stdout.write("\n".join(lines) + "\n")
