"""Local paths that workers elsewhere cannot see are refused before anything is submitted."""

import pytest

from augnet.config import load_config
from augnet.errors import ConfigError
from pipeline.remote import is_local_path, refuse_unseen_paths
from pipeline.runners import make_options

SHARED = {"model.path": "gs://b/m.keras", "images.path": "gs://b/images", "output": "gs://b/out"}


def check(*flags, **paths):
    config = load_config(flags=SHARED | {key.replace("__", "."): value for key, value in paths.items()})
    refuse_unseen_paths(config, make_options(list(flags), {}))


@pytest.mark.parametrize("key", ["model__path", "images__path", "output"])
@pytest.mark.parametrize("path", ["data/x", "/mnt/data/x", "file:///mnt/x"])
def test_dataflow_sees_no_local_path(key, path):
    with pytest.raises(ConfigError) as refused:
        check("--runner=DataflowRunner", **{key: path})
    assert f"{key.replace('__', '.')}: {path!r}" in str(refused.value)
    assert "copy it to a bucket" in str(refused.value)


def test_every_such_path_is_named_and_no_other():
    with pytest.raises(ConfigError, match=r"model.path: 'm.keras', output: 'out': on this machine"):
        check("--runner=DataflowRunner", model__path="m.keras", output="out")


def test_containers_of_a_cluster_see_no_local_path():
    for environment in ([], ["--environment_type=DOCKER"]):
        with pytest.raises(ConfigError, match="environment_type=PROCESS or EXTERNAL"):
            check(
                "--runner=FlinkRunner", "--flink_master=host:8081", *environment, images__path="/mnt/images"
            )


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--runner=FlinkRunner", "--flink_master=[local]"],
        ["--runner=FlinkRunner", "--flink_master=host:8081", "--environment_type=EXTERNAL"],
        ["--runner=FlinkRunner", "--flink_master=host:8081", "--environment_type=PROCESS"],
    ],
)
def test_workers_here_or_with_a_shared_file_system_may(flags):
    check(*flags, model__path="m.keras", images__path="/mnt/images", output="/mnt/out")


def test_addresses_pass_everywhere():
    check("--runner=DataflowRunner")
    check("--runner=FlinkRunner", "--flink_master=host:8081")


def test_what_is_an_address():
    assert not is_local_path("s3://bucket/x") and is_local_path("C:/x") and is_local_path("local://x")
