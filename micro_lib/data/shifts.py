"""Domain shifts: labelled source micrographs, unlabelled target ones, and micrographs of both that nobody trains on.

Real shifts are made from data packs, generated ones from the lath-bainite scenario, where the truth is exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from micro_lib.core.checks import one_of
from micro_lib.core.labels import ClassMap
from micro_lib.core.progress import progress
from micro_lib.data.files import to_uint8
from micro_lib.data.framing import like_electron_micrograph
from micro_lib.data.packs import DataUnavailable, Pack, pack
from micro_lib.data.records import Record
from micro_lib.data.tiles import Labelled

# The test micrographs common to T3 and its variant lie at 40 %, "the average between the training phase fractions"
# (Goetz et al. 2022, section 4.3), of which T3's is 53 %.
T3V_FRACTIONS = (0.27, 0.4)
BAINITE_CREDIT = "Generated lath bainite."


@dataclass(frozen=True)
class Shift:
    """Micrographs of two domains by what they are used for; images are (H, W) uint8, masks (H, W) uint8 class ids.

    Parameters
    ----------
    class_map : ClassMap
        Names and colours of the class ids.
    source : tuple of Record
        Trained on, with their masks.
    source_test : tuple of Record
        Of specimens, or where there is one alone of micrographs, that nobody trains on.
    target : tuple of Record
        Trained on as images; their masks are for the oracle and for arms with a few labelled ones.
    target_test : tuple of Record
        Of specimens or micrographs that are in neither `source` nor `target`, unless `is_transductive`.
    credit : str
        Of all of them, printed on every picture drawn from it.
    is_generated : bool
        Some of them are generated, be it as stand-ins or because the shift is.
    is_transductive : bool
        The target is adapted to on the very images that are tested; it has no labelled arms.
    scale : float
        Magnification at which they are trained on; half for the bainite, as published.
    """

    class_map: ClassMap
    source: tuple[Record, ...]
    source_test: tuple[Record, ...]
    target: tuple[Record, ...]
    target_test: tuple[Record, ...]
    credit: str
    is_generated: bool
    is_transductive: bool = False
    scale: float = 1.0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class ids."""
        return self.class_map.classes


def shift(name: str, fold: int, plan: Mapping, data: str = "auto", profile: str = "") -> Shift:
    """Return one fold of a domain shift.

    Parameters
    ----------
    name : str
        One of `SHIFTS`.
    fold : int
        0 to `n_folds` - 1.
    plan : mapping
        pixel_size_um, field_um and n_images of generated micrographs; real ones do not depend on it.
    data, profile : str
        As for `micro_lib.data.packs.pack`.

    Raises
    ------
    ValueError
        If the name or the fold is unknown.
    DataUnavailable
        If a real shift's pack cannot be had, or its stand-in has too few micrographs for a fold.
    """
    one_of("shift", name, SHIFTS)
    make, count = SHIFTS[name]
    if not 0 <= fold < count:
        raise ValueError(f"fold is {fold}; {name!r} has {count}, counted from 0")
    made = make(fold, plan, data, profile)
    if empty := [part for part in ("source", "source_test", "target", "target_test") if not getattr(made, part)]:
        raise DataUnavailable(f"fold {fold} of {name!r} has no micrographs for {', '.join(empty)}: too few stand-ins")
    return made


def n_folds(name: str) -> int:
    """Return how many folds a shift has.

    Four spots of the superalloy and four micrographs of the coating's target specimen take turns; generated sources are
    drawn anew for each of five folds, like the published ones, while their targets stay the same.

    Parameters
    ----------
    name : str
        One of `SHIFTS`.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    one_of("shift", name, SHIFTS)
    return SHIFTS[name][1]


# Real shifts


def _views(fold: int, _plan: Mapping, data: str, profile: str) -> Shift:
    """Superalloy seen in one view, then turned by 180 degrees: both views show the same spots, so whole spots are held.

    Fold f tests on spot f of both views; neither source nor target are trained on it.
    """
    found = pack("nasa_superalloy", data, profile=profile)
    views = {name: _of(found, lambda record, name=name: record.domain == name) for name in ("view_0d", "view_180d")}
    spot = set(_groups(views["view_180d"])[fold : fold + 1])
    held = {name: _split(records, spot) for name, records in views.items()}
    (source, source_test), (target, target_test) = held["view_0d"], held["view_180d"]
    return Shift(found.class_map, source, source_test, target, target_test, found.credit, found.is_generated)


def _other_alloys(fold: int, plan: Mapping, data: str, profile: str) -> Shift:
    """Superalloy's view 0d to three single micrographs of other alloys: adapted to two, tested on the third."""
    base = _views(fold, plan, data, profile)
    found = pack("nasa_superalloy", data, profile=profile)
    others = _of(found, lambda record: record.domain not in ("view_0d", "view_180d"))
    target, target_test = _split(others, set(_groups(others)[fold : fold + 1]))
    return replace(base, target=target, target_test=target_test)


def _other_laboratory(fold: int, plan: Mapping, data: str, profile: str) -> Shift:
    """Superalloy's view 0d to single crystals of another laboratory, both kinds of gamma prime taken as one class."""
    base, found = _views(fold, plan, data, profile), pack("sx_superalloy_1070C", data, profile=profile)
    records = _of(found, lambda _record: True)
    target, target_test = _split(records, set(_groups(records)[fold : fold + 1]))
    merged = {name: _merged(getattr(base, name)) for name in ("source", "source_test")}
    merged |= {"credit": f"{base.credit} {found.credit}"}
    return replace(base, class_map=found.class_map, target=target, target_test=target_test, **merged)


def _coating(fold: int, _plan: Mapping, data: str, profile: str) -> Shift:
    """Coatings to specimen 050317#3, of which one micrograph is tested and the others are adapted to.

    The target is one specimen, so its folds are by image; of the source, whole specimens are held, dealt out in turn.
    """
    found = pack("nasa_ebc", data, profile=profile)
    target = _of(found, lambda record: record.domain.startswith("target"))
    source = _of(found, lambda record: not record.domain.startswith("target"))
    source, source_test = _split(source, set(_groups(source)[fold :: n_folds("coating")]))
    others, target_test = target[:fold] + target[fold + 1 :], target[fold : fold + 1]
    parts = (source, source_test, others, target_test)
    return Shift(found.class_map, *parts, found.credit, found.is_generated, scale=0.5)


def _iron(fold: int, _plan: Mapping, data: str, profile: str) -> Shift:
    """Grain boundaries of 316L steel to those of iron: one area in five sections, adapted to and tested on."""
    steel = pack("ss316l_grains", data, "development", profile=profile)
    iron = pack("pure_iron_serial", data, "test", profile=profile)
    records, target = _of(steel, lambda _record: True), _of(iron, lambda _record: True)
    source, source_test = _split(records, set(_groups(records)[fold :: n_folds("316L to iron")]))
    parts, credit = (source, source_test, target, target), f"{steel.credit} {iron.credit}"
    is_generated = steel.is_generated or iron.is_generated
    return Shift(steel.class_map, *parts, credit, is_generated, is_transductive=True, scale=0.5)


def _of(found: Pack, wanted: Callable[[Record], bool]) -> tuple[Record, ...]:
    return tuple(record._replace(image=to_uint8(record.image)) for record in found.records if wanted(record))


def _groups(records: Sequence[Record]) -> list[str]:
    return sorted({record.group for record in records})


def _split(records: Sequence[Record], held: set[str]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    kept = tuple(record for record in records if record.group not in held)
    return kept, tuple(record for record in records if record.group in held)


def _merged(records: Sequence[Record]) -> tuple[Record, ...]:
    return tuple(record._replace(mask=(record.mask > 0).astype(np.uint8)) for record in records)


# Generated shifts


def _bainite(
    target: str,
    fold: int,
    plan: Mapping,
    _data: str,
    _profile: str,
    *,
    invert: bool = True,
    fractions: tuple[float | None, float | None] = (None, None),
) -> Shift:
    """Lath bainite under another preparation. The source is drawn anew for every fold, the target is always the same.

    `fractions` are those of lath bainite in the target's training and test part, None as published for it.
    """
    from micro_lib.synthesis.bainite import LATH_BAINITE, PARTS  # here, since real shifts need no generator

    source, source_test = (bainite("source", which, fold + 1, plan) for which in PARTS)
    pairs = zip(PARTS, fractions, strict=True)
    targets = [bainite(target, which, 0, plan, lath_fraction=share, invert=invert) for which, share in pairs]
    return Shift(LATH_BAINITE, source, source_test, *targets, BAINITE_CREDIT, is_generated=True, scale=0.5)


def bainite(
    name: str, part: str, seed: int, plan: Mapping, *, lath_fraction: float | None = None, invert: bool = True
) -> tuple[Record, ...]:
    """Return generated micrographs of lath bainite, light-optical ones made to match the others.

    Parameters
    ----------
    name, part, seed, lath_fraction
        As for `micro_lib.synthesis.bainite.domain`.
    plan : mapping
        pixel_size_um, field_um, and n_images, the most there may be; as for `shift`.
    invert : bool
        As for `micro_lib.data.framing.like_electron_micrograph`.
    """
    from micro_lib.synthesis.bainite import LIGHT_PIXEL_SIZE_UM, TILES, TILES_PER_IMAGE, domain, render

    count = min(-(-TILES[name][part == "test"] // TILES_PER_IMAGE), plan["n_images"])
    # A light micrograph is taken at its own pixel size and brought to that of the others afterwards.
    pixel = LIGHT_PIXEL_SIZE_UM.get(name, plan["pixel_size_um"])
    sizes = {"n_images": count, "field_um": plan["field_um"], "pixel_size_um": pixel}
    table = domain(name, part, seed=seed, lath_fraction=lath_fraction, **sizes)
    records = []
    for i, row in enumerate(progress(table.to_dict("records"), desc=f"rendering {name}", unit="image")):
        made = render(row)
        sample = Labelled(to_uint8(made.image), made.mask)
        if name in LIGHT_PIXEL_SIZE_UM:
            sample = like_electron_micrograph(sample, made.pixel_size_um, plan["pixel_size_um"], invert=invert)
        title = f"{name} {part} {i}"
        records.append(Record(title, sample.image, sample.mask, title, plan["pixel_size_um"]))
    return tuple(records)


# Methods are compared and tuned on these, one for what scanning electron and one for what light micrographs need. They
# are never reported.
DEVELOPMENT = ("development", "light development")
# Name: what makes a fold of it, and how many there are.
REAL: dict[str, tuple[Callable[..., Shift], int]] = {
    "0d to 180d": (_views, 4),
    "0d to other alloys": (_other_alloys, 3),
    "0d to other laboratory": (_other_laboratory, 3),
    "coating": (_coating, 4),
    "316L to iron": (_iron, 5),
}
GENERATED: dict[str, tuple[Callable[..., Shift], int]] = {
    **{name: (partial(_bainite, name), 5) for name in DEVELOPMENT},
    "T1": (partial(_bainite, "T1"), 5),
    "T2": (partial(_bainite, "T2"), 5),
    "T3": (partial(_bainite, "T3"), 5),
    "T3 not inverted": (partial(_bainite, "T3", invert=False), 5),
    "T3 tested at 40 %": (partial(_bainite, "T3", fractions=(None, 0.4)), 5),
    "T3v tested at 40 %": (partial(_bainite, "T3", fractions=T3V_FRACTIONS), 5),
}
SHIFTS = REAL | GENERATED
TRANSDUCTIVE = ("316L to iron",)  # the target has no micrographs but those tested
