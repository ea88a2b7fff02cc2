import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from augnet.errors import AuditError, ConfigError, closest
from pipeline.flags import FLAGS
from pipeline.runners import audit_problem, is_in_process, make_options


def direct(flags=(), settings=None):
    options = make_options(list(flags), settings or {}).view_as(DirectOptions)
    return options.direct_running_mode, options.direct_num_workers


def test_two_threads_are_the_default():
    assert direct() == ("multi_threading", 2)


def test_what_is_asked_for_is_done_even_where_it_is_beams_own_default():
    assert direct(["--direct_running_mode=in_memory", "--direct_num_workers=1"]) == ("in_memory", 1)
    assert direct(["--direct_num_workers", "1"]) == ("multi_threading", 1)


def test_flags_win_over_the_config_file():
    settings = {"direct_running_mode": "multi_processing", "direct_num_workers": 3}
    assert direct((), settings) == ("multi_processing", 3)
    assert direct(["--direct_num_workers=4"], settings) == ("multi_processing", 4)


def test_an_unknown_option_is_an_error_and_the_job_servers_business_where_there_is_one():
    slip = "--paralelism: neither augnet nor Beam knows it.*; did you mean --parallelism"
    for flags in ([], ["--runner=DataflowRunner"], ["--runner=FlinkRunner"]):
        with pytest.raises(ConfigError, match=slip):
            make_options([*flags, "--paralelism=3"], {})
    with pytest.raises(ConfigError, match=slip):
        make_options([], {"paralelism": 3})
    with pytest.raises(ConfigError, match=r"--only_flink_knows: neither .* --help$"):
        make_options(["--runner=DataflowRunner", "--only_flink_knows=3"], {})
    assert not is_in_process(make_options(["--runner=FlinkRunner", "--only_flink_knows=3"], {}))


def test_all_unknown_options_are_told_at_once_and_keys_without_their_section():
    with pytest.raises(ConfigError) as caught:
        make_options(["--precision=float64", "--direct_num_wokers=2"], {})
    lines = str(caught.value).splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == [
        "did you mean --direct_num_workers?",
        "did you mean --jacobian.precision?",
    ]


def test_an_unknown_runner_is_answered_with_those_there_are():
    with pytest.raises(
        ConfigError, match=r"--runner: 'FlinkRuner' does not fit; .*; did you mean FlinkRunner"
    ):
        make_options(["--runner=FlinkRuner"], {})


def test_no_option_of_beam_is_taken_for_a_slip_in_one_of_ours():
    assert not [name for name in make_options([], {}).get_all_options() if closest(f"--{name}", FLAGS)]


def test_a_config_file_says_lists_and_switches():
    settings = {
        "runner": "DataflowRunner",
        "experiments": ["a", "b"],
        "streaming": True,
        "save_main_session": False,
    }
    found = make_options([], settings).get_all_options()
    assert found["runner"] == "DataflowRunner" and found["experiments"] == ["a", "b"]
    assert make_options([], settings).view_as(StandardOptions).streaming is True


def test_the_problem_is_found_in_what_a_runner_makes_of_it():
    text = "Traceback (most recent call last):\n  File ...\n"
    text += "augnet.errors.AuditError: disk full [while running 'A/B']\n"
    assert str(audit_problem(RuntimeError(text))) == "disk full"
    assert audit_problem(RuntimeError("KeyError: 'x'")) is None
    problem = AuditError("as it is")
    assert audit_problem(problem) is problem
