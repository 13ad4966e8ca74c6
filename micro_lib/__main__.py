"""The command line: ``python -m micro_lib reproduce | publish | claims | sweep | segment``."""

import argparse
import ast
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 fine, 1 something failed while running, 2 asked for wrongly."""
    # Its options are its own, and it needs no notebook machinery: a bare segmentation starts fast.
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["segment"]:
        from micro_lib.application import segment

        return segment.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _reproduce(options) -> int:
    from micro_lib.application import runner

    try:
        parameters = dict(_assignment(text) for text in options.parameters)
        return runner.reproduce(profile=options.profile, only=options.only, parameters=parameters)
    except (ValueError, runner.RunnerError) as error:
        return _refuse(error)


def _publish(options) -> int:
    from micro_lib.application import runner

    try:
        return runner.publish(profile=options.profile)
    except runner.RunnerError as error:
        return _refuse(error)


def _claims(_) -> int:
    from micro_lib.application.tables import claims_text, tables_dir
    from micro_lib.core.runs import read_table

    path = tables_dir() / "claims.csv"
    if not path.is_file():
        return _refuse(f"{path} is not there; run `make reproduce` and `make publish` first")
    print(claims_text(read_table(path)))
    return 0


def _sweep(options) -> int:
    from micro_lib.application import sweep

    try:
        changes = dict(_assignment(text) for text in options.parameters)
        names = ("profile", "only", "seeds", "workers")
        return sweep.run_named(options.name, changes=changes, **{name: getattr(options, name) for name in names})
    except ValueError as error:
        return _refuse(error)


_COMMANDS = {"reproduce": _reproduce, "publish": _publish, "claims": _claims, "sweep": _sweep}


def _refuse(reason) -> int:
    print(f"micro_lib: {reason}", file=sys.stderr)
    return 2


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise ValueError(f"a parameter is given as NAME=VALUE; found {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # plain text, e.g. DATA=real


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m micro_lib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reproduce = commands.add_parser("reproduce", help="run the notebooks, end with the claims table")
    reproduce.add_argument("--only", nargs="*", default=[], metavar="NOTEBOOK", help="numbers or names, e.g. 03 05")
    publish = commands.add_parser("publish", help="copy figures and tables from build/ to figures/")
    sweep = commands.add_parser("sweep", help="run an experiment for many seeds; goes on where it was stopped")
    sweep.add_argument("name", help="name of the sweep, e.g. grains")
    sweep.add_argument("--only", nargs="*", default=[], metavar="CONFIGURATION", help="names, e.g. broad 'real labels'")
    sweep.add_argument("--seeds", nargs="*", type=int, default=[], metavar="SEED", help="default: the profile's")
    sweep.add_argument("--workers", type=_workers, default=2, help="processes of one thread each (default 2)")
    for command, what in ((reproduce, "parameters of the notebooks"), (sweep, "set in every configuration")):
        command.add_argument(
            "-p", "--parameters", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help=what
        )
    for command in (reproduce, publish, sweep):
        command.add_argument("--profile", default="", help="smoke, quick (default), study or paper")
    commands.add_parser("claims", help="print the published claims table")
    commands.add_parser("segment", help="segment a folder of micrographs: segment MODEL FOLDER OUT [--pixel-size-um X]")
    return parser


def _workers(text: str) -> int:
    most = os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}, the cores of this machine")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
