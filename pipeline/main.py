"""The `augnet` command: arguments, logging and exit status. The work is done elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from augnet import __version__
from augnet.config import Config, load_config
from augnet.errors import AuditError, AugnetError, ConfigError, did_you_mean
from augnet.redact import without_secrets
from pipeline.flags import add_config_flags, read_config, unknown_arguments
from pipeline.help import (
    AUDIT_HELP,
    COMPARE_HELP,
    COMPARE_STATUS,
    EXIT_STATUS,
    EXPORT_HELP,
    EXPORT_STATUS,
    VERIFY_HELP,
)
from pipeline.logs import import_beam, import_tensorflow, set_up_logging
from pipeline.stopping import stoppable

SHOWN_PROBLEMS = 50
EXPORTED_TO = ("embedding-atlas", "fiftyone", "parquet")
LEVELS = ("debug", "info", "warning", "error")
INPUTS = ("model", "images", "preprocess")
"""Sections that are looked through before any work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        options, others = _parse(sys.argv[1:] if arguments is None else arguments)
        set_up_logging(options.log_level)
        if others and options.command not in (_audit, _plan, _verify, _compare):
            raise ConfigError("\n".join(unknown_arguments(others, options.name, ())))
        return stoppable(lambda: options.command(options, others))
    except AugnetError as error:
        print(f"augnet: {without_secrets(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:  # no permission, a disk that breaks, a pipe that nobody reads
        print(f"augnet: {without_secrets(str(error))}", file=sys.stderr)
        return 1


def _audit(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.audits.preflight import refuse_other_audit

    if options.retry_failed and options.fresh:
        raise ConfigError("--retry-failed, --fresh: one keeps what is done and one deletes it; give one")
    config = _config(options, others, looked_at=(*INPUTS, "output"))
    if not options.fresh:
        refuse_other_audit(config)
    import_beam()
    from pipeline.remote import refuse_unseen_paths
    from pipeline.runners import make_options

    beam_options = make_options(others, config.beam)
    refuse_unseen_paths(config, beam_options)
    import_tensorflow()
    from augnet.audits.finalize import refuse_failures
    from augnet.audits.retry import nothing_failed
    from pipeline.audit import run_audit

    if options.retry_failed and nothing_failed(config.output):
        print(f"{without_secrets(config.output)}: no image failed; there is nothing to do again")
        return 0
    run_audit(config, beam_options, options.fresh, options.retry_failed)
    _print_outcome(config.output)
    refuse_failures(config.output, config.failures.max_fraction)
    return 0


def _demo(options: argparse.Namespace, others: list[str]) -> int:
    import_beam()
    import_tensorflow()
    from pipeline.audit import run_audit
    from pipeline.demo import prepare_demo
    from pipeline.runners import make_options

    model, images = map(str, prepare_demo(options.folder, print, kind=options.kind))
    output = os.path.join(options.folder, "audit")
    print(f"auditing: augnet audit --model {model} --images {images} --output {output}")
    config = load_config(flags={"model.path": model, "images.path": images, "output": output})
    run_audit(config, make_options([], {}), fresh=True)
    _print_outcome(output)
    return 0


def _report(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.audits.finalize import reseal
    from augnet.comparison.control import judge_by_control
    from augnet.report.page import render
    from augnet.storage.reader import Audit

    audit = Audit.open(options.output)
    judge_by_control(audit)
    print(render(audit))
    reseal(audit.folder)
    return 0


def _compare(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.comparison.gate import parse_rule, read_rules
    from augnet.comparison.run import compare

    if unknown := [argument for argument in others if argument.startswith("-")]:
        raise ConfigError(
            "\n".join(unknown_arguments(unknown, options.name, ("--fail-if", "--output", "--rules")))
        )
    audits = [*options.audits, *others]  # those after an option, argparse has left over
    if len(audits) < 2:
        raise ConfigError("compare: give two audits or more, in order")
    rules = [parse_rule(text) for text in options.fail_if]
    rules += [rule for path in options.rules for rule in read_rules(path)]
    try:
        found = compare(audits, rules, options.output)
    except (AuditError, OSError) as error:  # status 1 means that a rule failed
        raise ConfigError(str(error)) from error
    for line in found.lines:
        print(line)
    if found.page:
        print(f"page: {found.page}")
    return found.status


def _export(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.export.run import prepare_export
    from pipeline.progress import show_steps

    export = prepare_export(options.audit, options.to, options.output)
    import_tensorflow()  # umap-learn imports it, with many words
    with show_steps() as progress:
        lines = export.write(options.images == "all", progress)
    for line in lines:
        print(line)
    return 0


def _plan(options: argparse.Namespace, others: list[str]) -> int:
    config = _config(options, others)
    import_beam()
    from pipeline.runners import make_options

    make_options(others, config.beam)  # raises for what the audit would not take
    import_tensorflow()
    from augnet.audits.forecast import forecast
    from pipeline.tables import forecast_rows, show

    found = forecast(config)
    show(f"{config.model.path} on {config.images.path}", forecast_rows(found))
    return 2 if found.refusals else 0


def _status(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.audits.status import status
    from pipeline.tables import show, status_rows

    show(options.output, status_rows(status(options.output, time.time())))
    return 0


def _check(options: argparse.Namespace, others: list[str]) -> int:
    from augnet.audits.integrity import check

    problems = check(options.output)
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem)
    if problems:
        raise AuditError(f"{options.output}: {len(problems)} problem{'s' * (len(problems) > 1)} found")
    print(f"{options.output}: every file, image and count is as the audit left it")
    return 0


def _verify(options: argparse.Namespace, others: list[str]) -> int:
    config = _config(options, others, beam=False)
    if options.sample < 1:
        raise ConfigError(f"--sample: {options.sample} is not a number of images; give 1 or more")
    import_tensorflow()
    from augnet.audits.verify import verify_sample
    from augnet.engine.verification.checks import unanswered
    from pipeline.progress import show_steps
    from pipeline.tables import check_rows, show

    with show_steps() as progress:
        checks = verify_sample(config, options.sample, progress)
    show(f"{config.model.path}: the engine against independent judges", check_rows(checks))
    failed = [check.name for check in checks if check.failed]
    if failed:
        raise AuditError(f"the engine does not agree: {', '.join(failed)}")
    if unknown := unanswered(checks):
        raise AuditError(
            f"not checked: {', '.join(unknown)}; no judge could judge an image, so give more or others"
        )
    return 0


def _config(
    options: argparse.Namespace, others: list[str], beam: bool = True, looked_at: Sequence[str] = INPUTS
) -> Config:
    """The configuration, with every mistake in it that can be found before TensorFlow is loaded."""
    from augnet.audits.preflight import mistakes_in

    def look(parts: Mapping[str, Any]) -> Iterator[str]:
        return mistakes_in({name: part for name, part in parts.items() if name in looked_at})

    return read_config(options, others, look, beam)


def _print_outcome(output: str) -> None:
    from augnet.report.sentences import findings
    from augnet.storage import names
    from augnet.storage.reader import Audit

    audit = Audit.open(output)
    print(f"{audit.counts['audited']} images audited, {audit.counts['failed']} failed")
    for line in findings(audit):
        print(f"  {line}")
    print(f"report: {audit.folder.path(names.REPORT)}")


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, without the usage, which has a line for every key."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of the command, and the arguments that it does not know."""
    parser, commands = _parser()
    given = arguments[0] if arguments else "-"
    if not given.startswith("-") and given not in commands:
        listed = ", ".join(commands)
        raise ConfigError(f"{given}: no such command; give {listed}{did_you_mean(given, commands)}")
    return parser.parse_known_args(arguments)


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The parser, and the names of the commands."""
    parser = _Parser(
        prog="augnet",
        description="Dataset-wide sensitivity audits of trained Keras image models.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"augnet {__version__}")
    commands = parser.add_subparsers(title="commands", dest="name", required=True, metavar="COMMAND")

    demo = _command(
        commands, "demo", _demo, "train a small model on real digits with a planted shortcut, audit it"
    )
    demo.add_argument("folder", nargs="?", default="augnet-demo", help="where to work (default: %(default)s)")
    demo.add_argument(
        "--kind",
        choices=("tag", "cast"),
        default="tag",
        help="of shortcut: a tag in a corner, or a colour cast (default: %(default)s)",
    )

    audit = _command(commands, "audit", _audit, "audit a model over a folder of images", AUDIT_HELP)
    audit.add_argument("config", nargs="?", help="YAML file; see configs/quickstart.yaml")
    audit.add_argument("--fresh", action="store_true", help="replace the audit that the output folder holds")
    audit.add_argument(
        "--retry-failed", action="store_true", help="do again the images that failed, and leave the others"
    )
    add_config_flags(audit)

    plan = _command(
        commands, "plan", _plan, "say what an audit would do: images, bytes, time, or why it would be refused"
    )
    plan.add_argument("config", nargs="?", help="YAML file; see configs/quickstart.yaml")
    add_config_flags(plan)

    verify = _command(
        commands,
        "verify",
        _verify,
        "check the engine against float64 and finite differences on sampled images",
        VERIFY_HELP,
    )
    verify.add_argument("config", nargs="?", help="YAML file; see configs/quickstart.yaml")
    verify.add_argument("--sample", type=int, default=8, metavar="N", help="images (default: %(default)s)")
    add_config_flags(verify)

    status = _command(
        commands, "status", _status, "say how far an audit is, while it runs or after it stopped"
    )
    status.add_argument("output", help="folder of the audit")

    check = _command(commands, "check", _check, "verify that a finished audit is whole and unaltered")
    check.add_argument("output", help="folder of the audit")

    compare = _command(
        commands,
        "compare",
        _compare,
        "put finished audits side by side, and judge what changed",
        COMPARE_HELP,
        COMPARE_STATUS,
    )
    compare.add_argument("audits", nargs="+", metavar="AUDIT", help="folders of finished audits, in order")
    compare.add_argument("--output", metavar="DIR", help="write page, JSON, JUnit XML and Markdown here")
    compare.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="RULE",
        help="what must not happen; may be given several times",
    )
    compare.add_argument(
        "--rules",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file with rules under fail_if",
    )

    export = _command(
        commands,
        "export",
        _export,
        "write a finished audit for a viewer of image datasets",
        EXPORT_HELP,
        EXPORT_STATUS,
    )
    export.add_argument("audit", help="folder of the audit")
    export.add_argument(
        "--to", required=True, choices=EXPORTED_TO, help="which program; parquet: any that reads it"
    )
    export.add_argument(
        "--output", metavar="PATH", help="file, or for fiftyone folder, to write (default: beside the audit)"
    )
    export.add_argument(
        "--images",
        choices=("held", "all"),
        default="held",
        help="which get a picture and a heat map: those that the report holds, or all, read where they are, "
        "and from stored Jacobians (default: %(default)s)",
    )

    report = _command(commands, "report", _report, "render the report of a finished audit again")
    report.add_argument("output", help="folder of the audit")
    return parser, commands.choices


def _command(
    commands: Any, name: str, run: Any, summary: str, text: str | None = None, status: str = EXIT_STATUS
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=text or f"{summary[0].upper()}{summary[1:]}.",
        epilog=status,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    command.add_argument(
        "--log-level",
        type=_level,
        metavar="LEVEL",
        default="info",
        help=f"{', '.join(LEVELS)} (default: %(default)s)",
    )
    return command


def _level(text: str) -> str:
    if text not in LEVELS:
        known = f"{', '.join(LEVELS)}{did_you_mean(text, LEVELS)}"
        raise argparse.ArgumentTypeError(f"{text!r} does not fit; give {known}")
    return text
