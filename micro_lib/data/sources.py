"""What data packs there are: credit, classes of the masks, splits, and what stands in for each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from micro_lib.core.labels import GRAIN_BOUNDARY, ClassMap


class DataUnavailable(RuntimeError):
    """A pack cannot be had here; the message says what was tried and what to do."""


class Source(NamedTuple):
    """What is known of a pack beside its files."""

    credit: str  # printed on every picture drawn from it
    class_maps: Mapping[str, ClassMap]  # by folder of masks; the first one is called "masks"
    splits: tuple[str, ...] = ()  # lists ``<pack>_<split>.txt`` in data/splits
    stand_in: str = ""  # preset of synthesis.grains, or a function of `data.stand_ins`
    group: str = ""  # the one group of all records, where the specimens of the manifest are not independent
    by_hand: str = ""  # where to get it, for packs that are not downloaded


def ids(name: str, classes: Sequence[str], levels: Sequence[int] | None = None) -> ClassMap:
    """Return the class map of masks whose pixels hold ids, or other grey levels that stand for them.

    Parameters
    ----------
    name : str
        Name of the map.
    classes : sequence of str
        Class names in the order of the ids, 1 to 4.
    levels : sequence of int, optional
        Grey level of each class; by default the ids themselves.

    Raises
    ------
    ValueError
        If there are no classes or more than 4, or more levels than classes.
    """
    colours = ("#56b4e9", "#d55e00", "#f0e442", "#009e73")  # Okabe and Ito's palette, made for colour-blind readers
    values = {level: i for i, level in enumerate(levels or range(len(classes)))}
    return ClassMap(name, tuple(classes), values, colours[: len(classes)])


_NASA = "J. Stuckner, B. Harder, T. M. Smith, npj Comput. Mater. 8, 200 (2022), MIT licence"
_UHCS = "B. L. DeCost et al., Microsc. Microanal. 25, 21 (2019), CC BY 3.0 US; labels B. Lei, MatSeg, MIT licence"
_CRACKS = ids("crack_tiles", ("no crack", "crack"), (0, 255))
_COATING = ids("coating", ("background", "thermally grown oxide", "crack"))
_STEEL = ("matrix", "network", "spheroidite", "Widmanstaetten")
STEEL_REGIONS = ("denuded ferrite", "network", "spheroidite region", "Widmanstaetten")
_SUPERALLOY = ("matrix", "secondary gamma prime", "tertiary gamma prime")
# A pack of your own is one more entry, and a folder of its name in $MICRO_DATA.
SOURCES = {
    "ebc_crack_tiles": Source(f"Environmental barrier coating: {_NASA}", {"masks": _CRACKS}, stand_in="crack_tiles"),
    "nasa_ebc": Source(f"Environmental barrier coating: {_NASA}", {"masks": _COATING}, stand_in="coating"),
    "nasa_superalloy": Source(
        f"Ni superalloy: {_NASA}", {"masks": ids("superalloy", _SUPERALLOY)}, stand_in="superalloy"
    ),
    "sx_superalloy_1070C": Source(
        "Single-crystal Ni superalloy: amptere, Prompt-Guided Superalloy Segmentation (2026), MIT licence",
        {"masks": ids("gamma_prime", ("gamma channel", "gamma prime"), (0, 255))},
    ),
    "uhcs": Source(
        f"Ultrahigh carbon steel: {_UHCS}",
        {"masks": ids("uhcs", _STEEL), "masks_region": ids("uhcs_region", STEEL_REGIONS)},
        stand_in="carbides",
    ),
    "ss316l_grains": Source(
        "316L steel: P. Warren et al., arXiv:2307.05911 (2023), research use, licence unclear",
        {"masks": GRAIN_BOUNDARY},
        ("development", "test"),
        "steel_316l",
        by_hand="It has no clear licence, so it is never downloaded: data/cards/ss316l_grains.md says where it comes "
        "from and how to lay it out.",
    ),
    "pure_iron_serial": Source(
        "Pure iron: B. Ma et al., Fast-FineCut, Micron 116 (2018), MIT licence",
        {"masks": GRAIN_BOUNDARY},
        ("test",),
        "iron",
        group="one area in five sections",
    ),
}
