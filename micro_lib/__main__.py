"""The command line: ``python -m micro_lib reproduce | publish | claims | sweep | segment | check``."""

import argparse
import ast
import importlib
import os
import sys
import warnings
from collections.abc import Callable


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 fine, 1 something failed while running, 2 asked for wrongly."""
    # Of a library that torch's next version will not break; nobody at a command line can act on it.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
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
    from micro_lib.application import publishing, runner

    try:
        return publishing.publish(profile=options.profile)
    except (ValueError, runner.RunnerError) as error:
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
        chosen = {name: getattr(options, name) for name in ("profile", "only", "seeds", "workers")}
        return sweep.run_named(options.name, changes=changes, collect=_collector(options.name), **chosen)
    except ValueError as error:
        return _refuse(error)


def _collector(name: str) -> Callable | None:
    """Return what makes tables of all that a sweep's runs leave beside their rows, if there is anything."""
    rooms = {"adaptation": "adaptation_collect", "joint": "joint_report"}
    return importlib.import_module(f"micro_lib.reports.{rooms[name]}").collect if name in rooms else None


def _check(options) -> int:
    from micro_lib.data.check import check, describe

    try:
        problems = check(options.folder, _class_map(options.classes) if options.classes else None)
    except (ValueError, NotADirectoryError) as error:
        return _refuse(error)
    print(describe(problems))
    return 1 if (problems["severity"] == "error").any() else 0


def _class_map(words: list[str]):
    """Return the class map of a known pack, or one of names in the order of their ids, or with their grey levels."""
    from micro_lib.core.labels import ClassMap
    from micro_lib.data.sources import SOURCES

    if len(words) == 1 and words[0] in SOURCES:
        return SOURCES[words[0]].class_maps["masks"]
    if len(words) == 1:
        raise ValueError(f"--classes {words[0]}: give two names or more, or one pack of {', '.join(sorted(SOURCES))}")
    names, _, levels = zip(*(word.partition("=") for word in words), strict=True)
    values = {int(level or i): i for i, level in enumerate(levels) if (level or "0").isdecimal()}
    if len(values) < len(words) or len(set(names)) < len(words):
        asked = f"--classes {' '.join(words)}"
        raise ValueError(f"{asked}: expected NAME or NAME=GREY_LEVEL each, no name and no grey level twice")
    return ClassMap("--classes", names, values, ("#000000",) * len(names))  # nothing is drawn


def _segment(options) -> int:
    from micro_lib.application.segment import segment

    return segment(**{name: value for name, value in vars(options).items() if name != "command"})


_COMMANDS = {
    "reproduce": _reproduce,
    "publish": _publish,
    "claims": _claims,
    "sweep": _sweep,
    "check": _check,
    "segment": _segment,
}


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
    publish = commands.add_parser(
        "publish", help="copy figures, tables and executed notebooks from build/; rewrites parts of README.md"
    )
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
    check = commands.add_parser("check", help="report all that is wrong with a folder of micrographs and masks")
    check.add_argument("folder", metavar="FOLDER", help="holds images/, and masks/ and manifest.csv if there are any")
    check.add_argument(
        "--classes", nargs="+", metavar="NAME", help="of the masks by id, or NAME=GREY_LEVEL each, or a pack's name"
    )
    commands.add_parser("claims", help="print the published claims table")
    _add_segment(commands)
    return parser


def _add_segment(commands) -> None:
    segment = commands.add_parser("segment", help="segment every micrograph of a folder and measure its grains")
    segment.add_argument("model", metavar="MODEL", help="a trained segmenter, e.g. build/models/grains.safetensors")
    segment.add_argument("folder", metavar="FOLDER", help="folder with TIFF, PNG or JPEG micrographs")
    segment.add_argument("out", metavar="OUT", help="folder for masks/, overlays/ and measurements.csv")
    segment.add_argument(
        "--pixel-size-um", type=_positive, metavar="X", help="edge of a pixel in um, over the files' tags"
    )
    segment.add_argument("--grain-px", type=_positive, metavar="G", help="mean intercept of the grains in px, if known")
    segment.add_argument(
        "--line-px", type=_width, default=0, metavar="W", help="width to draw boundaries with, else the model's"
    )
    segment.add_argument("--crop-info-bar", action="store_true", help="cut off the microscope's information bar")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number, with a point as decimal sign")
    return value


def _width(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of pixels, 1 or more")
    return int(text)


def _workers(text: str) -> int:
    most = os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}, the cores of this machine")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
