"""The configuration of an audit.

sections.py   every key: its type, default and help text
reading.py    from a YAML file and flags to a Config
mistakes.py   what is wrong with a configuration, in the user's terms

Every key is one in YAML, a command-line flag (`--section.key=value`) and a line of `augnet audit --help`.
"""

from augnet.config.reading import flag_value, load_config
from augnet.config.sections import (
    APPLICATIONS,
    Config,
    ImagesConfig,
    ModelConfig,
    OwnScale,
    PreprocessConfig,
    StoreConfig,
    config_json,
    config_keys,
)

__all__ = [
    "APPLICATIONS",
    "Config",
    "ImagesConfig",
    "ModelConfig",
    "OwnScale",
    "PreprocessConfig",
    "StoreConfig",
    "config_json",
    "config_keys",
    "flag_value",
    "load_config",
]
