"""Data packs: found, downloaded, converted to the pixel, refused when anything is wrong, and replaced only openly."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from tqdm.auto import tqdm

from micro_lib.core.runs import read_table
from micro_lib.data import conversion, downloads, packs
from micro_lib.data.downloads import fetch
from micro_lib.data.packs import pack, split_names
from micro_lib.data.records import Record
from micro_lib.data.sources import SOURCES, DataUnavailable

MICRO_DATA = os.environ.get("MICRO_DATA", "")
ORIGINALS = Path(MICRO_DATA).resolve().parent / "originals" if MICRO_DATA else None
needs_packs = pytest.mark.skipif(not MICRO_DATA, reason="MICRO_DATA is not set: no real packs here")
needs_originals = pytest.mark.skipif(
    ORIGINALS is None or not ORIGINALS.is_dir(), reason="no folder originals/ beside $MICRO_DATA"
)
CARDS = downloads.REGISTRY.parent / "cards"
COMMIT = "owner/repo/0123456789012345678901234567890123456789"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `server.fault` maps the end of a path to the fault to show, `server.served` counts bodies."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.served.append(self.path)
        fault = next((kind for end, kind in self.server.fault.items() if unquote(self.path).endswith(end)), None)
        if fault is None:
            return super().do_GET()
        if fault == "once 503":
            self.server.fault.clear()
            return self.send_error(503)
        if fault.isdigit():
            return self.send_error(int(fault))
        body = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_faulty(fault, body)
        return None

    def send_faulty(self, fault, body):
        if fault == "truncated":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "flipped byte":
            self.wfile.write(bytes([body[0], body[1] ^ 1]) + body[2:])
        else:  # "silent" after half the body, or "trickle": a few bytes at a time
            step = len(body) // 2 if fault == "silent" else 20
            try:
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    self.server.stop.wait(60 if fault == "silent" else 0.2)
            except OSError:
                pass  # the client hung up, as it should


@pytest.fixture
def served(monkeypatch):
    """Return a function that serves a folder on the loop-back address and gives (address, server)."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def serve(folder):
        def handler(*args):
            return Handler(*args, directory=str(folder))

        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.fault, server.served, server.stop = {}, [], threading.Event()
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server

    yield serve
    for server in servers:
        server.stop.set()
        server.shutdown()
        server.server_close()


def pixel_hash(*arrays):
    text = b"".join(f"{a.shape[0]}x{a.shape[1]} {a.dtype};".encode() + a.tobytes() for a in arrays)
    return hashlib.sha256(text).hexdigest()


def write_registry(folder, rows, monkeypatch):
    table = pd.DataFrame(rows)
    table[["domain", "um_per_px"]] = np.nan
    table.to_csv(folder / "registry.csv", index=False)
    monkeypatch.setattr(downloads, "REGISTRY", folder / "registry.csv")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three small coatings as originals, a registry of them, and the folder to serve."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(3):
        grey = rng.integers(0, 256, (70, 90), dtype=np.uint8)
        ids = rng.integers(0, 3, (70, 90), dtype=np.uint8)
        for kind, array, pixels in (("image", np.dstack([grey] * 3), grey), ("mask", ids, ids)):
            original = tmp_path / "www" / COMMIT / kind / f"0{i}#7.tif"
            original.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(original, array)
            address = f"https://example.org/{COMMIT}/{kind}/{quote(original.name)}"
            row = {"pack": "nasa_ebc", "name": f"c{i}", "kind": kind, "specimen": f"s{i % 2}", "url": address}
            content = original.read_bytes()
            row |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            rows.append(row | {"pixels_sha256": pixel_hash(pixels)})
    write_registry(tmp_path, rows, monkeypatch)
    monkeypatch.delenv("MICRO_DATA", raising=False)
    return tmp_path


def leftovers(cache):
    """Return the files of a cache that are neither whole originals nor whole conversions nor the manifest and locks."""
    hashes = set(read_table(downloads.REGISTRY)["sha256"])
    odd = []
    for file in (f for f in Path(cache).rglob("*") if f.is_file() and f.suffix != ".lock"):
        if "originals" in file.parts:
            whole = hashlib.sha256(file.read_bytes()).hexdigest() in hashes
        else:
            whole = file.name == "manifest.csv" or (file.suffix == ".png" and not file.name.startswith("."))
        odd += [] if whole else [file.name]
    return odd


# Downloading


def test_download_convert_and_use(small, served):
    address, server = served(small / "www")
    found = pack("nasa_ebc", "real", cache=small / "cache", base_url=address)
    assert [record.name for record in found.records] == ["c0", "c1", "c2"]
    assert [record.group for record in found.records] == ["s0", "s1", "s0"]
    for i, record in enumerate(found.records):
        source = small / "www" / COMMIT
        np.testing.assert_array_equal(record.image, tifffile.imread(source / "image" / f"0{i}#7.tif")[..., 0])
        np.testing.assert_array_equal(record.mask, tifffile.imread(source / "mask" / f"0{i}#7.tif"))
        assert record.mask.dtype == np.uint8
    assert not found.is_generated
    assert "Stuckner" in found.credit
    assert len(server.served) == 6
    assert leftovers(small / "cache") == []
    pack("nasa_ebc", "real", cache=small / "cache", base_url="http://127.0.0.1:9")  # whole: the network is not asked


@pytest.mark.parametrize("fault", ["404", "truncated", "flipped byte"])
def test_faulty_original_is_refused_named_and_leaves_nothing(small, served, fault):
    address, server = served(small / "www")
    server.fault = {"image/01#7.tif": fault}
    with pytest.raises(DataUnavailable, match="'nasa_ebc' cannot be downloaded") as caught:
        fetch("nasa_ebc", cache=small / "cache", base_url=address)
    text = str(caught.value)
    assert "01%237.tif" in text or "01#7.tif" in text
    assert "Set MICRO_DATA" in text
    assert leftovers(small / "cache") == []
    n_tries = sum("image/01" in path for path in server.served)
    assert n_tries == (1 if fault == "404" else 1 + downloads._RETRIES)
    server.fault, server.served[:] = {}, []
    fetch("nasa_ebc", cache=small / "cache", base_url=address)  # goes on where it stopped
    assert not any("image/00" in path for path in server.served)
    assert leftovers(small / "cache") == []


def test_a_passing_fault_is_tried_again(small, served):
    address, server = served(small / "www")
    server.fault = {"mask/00#7.tif": "once 503"}
    fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert leftovers(small / "cache") == []


def test_damaged_conversion_is_made_again_without_network(small, served):
    address, _ = served(small / "www")
    folder = fetch("nasa_ebc", cache=small / "cache", base_url=address)
    whole = (folder / "masks" / "c1.png").read_bytes()
    (folder / "masks" / "c1.png").write_bytes(whole[:-30])
    (folder / "images" / "c2.png").unlink()
    other = (folder / "masks" / "c0.png").read_bytes()
    Image.fromarray(np.zeros((70, 90), np.uint8)).save(folder / "masks" / "c0.png")  # sound, but other pixels
    fetch("nasa_ebc", cache=small / "cache", base_url="http://127.0.0.1:9")
    assert (folder / "masks" / "c1.png").read_bytes() == whole
    assert (folder / "masks" / "c0.png").read_bytes() == other
    assert (folder / "images" / "c2.png").is_file()


def test_damaged_original_is_fetched_again(small, served):
    address, server = served(small / "www")
    fetch("nasa_ebc", cache=small / "cache", base_url=address)
    original = small / "cache" / "originals" / COMMIT / "image" / "00#7.tif"
    original.write_bytes(original.read_bytes()[:100])
    (small / "cache" / "nasa_ebc" / "images" / "c0.png").unlink()
    server.served.clear()
    fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert len(server.served) == 1
    assert leftovers(small / "cache") == []


def test_other_pixels_than_the_registry_names_are_not_kept(small, served, monkeypatch):
    rows = read_table(downloads.REGISTRY)
    rows.loc[0, "pixels_sha256"] = "0" * 64
    rows.to_csv(downloads.REGISTRY, index=False)
    address, _ = served(small / "www")
    with pytest.raises(DataUnavailable, match="converted to other pixels"):
        fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert not (small / "cache" / "nasa_ebc").exists()


def test_no_network_says_so_at_once(small):
    start = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"127\.0\.0\.1:9 cannot be reached .* seems offline") as caught:
        pack("nasa_ebc", "real", cache=small / "cache", base_url="http://127.0.0.1:9")
    assert time.monotonic() - start < 5
    assert "MICRO_DATA, the folder of packs, is not set" in str(caught.value)
    assert leftovers(small / "cache") == []


def test_a_wrong_micro_data_is_said_to_be_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path / "typo"))
    with pytest.warns(UserWarning, match="MICRO_DATA is .*typo, which is no folder"):
        packs.available()
    with pytest.warns(UserWarning), pytest.raises(DataUnavailable, match=r"MICRO_DATA is .*typo, which is no folder"):
        pack("uhcs", "real", cache=tmp_path / "cache", base_url="http://127.0.0.1:9")
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"uhcs is not there\."):
        pack("uhcs", "real", cache=tmp_path / "cache", base_url="http://127.0.0.1:9")
    (tmp_path / "uhcs").mkdir()
    with pytest.raises(DataUnavailable, match=r"uhcs holds no manifest\.csv\."):
        pack("uhcs", "real", cache=tmp_path / "cache", base_url="http://127.0.0.1:9")


def test_dead_server_is_given_up_after_five_seconds(small):
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        start = time.monotonic()
        with pytest.raises(DataUnavailable, match="seems offline"):
            fetch("nasa_ebc", cache=small / "cache", base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert 4.5 < time.monotonic() - start < 6
    assert leftovers(small / "cache") == []


@pytest.mark.parametrize("fault", ["silent", "trickle"])
def test_stalling_server_is_given_up_without_another_try(small, served, fault, monkeypatch):
    monkeypatch.setattr(downloads, "GIVE_UP_S", 1.0)
    address, server = served(small / "www")
    server.fault = {"image/00#7.tif": fault}
    start = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"no byte for 1 s|only .* bytes in"):
        fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert time.monotonic() - start < 3
    assert len(server.served) == 1
    assert leftovers(small / "cache") == []


def test_kill_in_the_middle_of_a_download(small, served):
    address, server = served(small / "www")
    server.fault = {"image/01#7.tif": "silent"}
    program = (
        "import sys; from pathlib import Path; from micro_lib.data import downloads;"
        "downloads.REGISTRY = Path(sys.argv[1]); downloads.GIVE_UP_S = 60;"
        "downloads.fetch('nasa_ebc', cache=sys.argv[2], base_url=sys.argv[3])"
    )
    command = [sys.executable, "-c", program, str(downloads.REGISTRY), str(small / "cache"), address]
    root = Path(packs.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as process:
        for _ in range(300):
            if any("image/01" in path for path in server.served) and leftovers(small / "cache"):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    broken = leftovers(small / "cache")
    assert len(broken) == 1, "the killed download should leave its temporary file"
    assert broken[0].startswith("tmp")
    server.fault, server.served[:] = {}, []
    fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert leftovers(small / "cache") == []
    assert not any("image/00" in path for path in server.served)


def test_callers_at_the_same_time_take_turns(small, served):
    address, server = served(small / "www")
    threads = [
        threading.Thread(target=fetch, args=("nasa_ebc",), kwargs={"cache": small / "cache", "base_url": address})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.served) == 6
    assert leftovers(small / "cache") == []


def test_originals_put_there_by_hand_are_used(small):
    shutil.copytree(small / "www", small / "cache" / "originals")
    fetch("nasa_ebc", cache=small / "cache", base_url="http://127.0.0.1:9")
    assert (small / "cache" / "nasa_ebc" / "manifest.csv").is_file()


def test_cache_that_cannot_be_written_is_named(small, served):
    address, _ = served(small / "www")
    (small / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataUnavailable, match=r"cache cannot be written .*mend its rights"):
        fetch("nasa_ebc", cache=small / "cache", base_url=address)


def test_full_disk_leaves_nothing_half_written(small, served, monkeypatch):
    address, _ = served(small / "www")

    def full(path, ids):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "write_mask", full)
        with pytest.raises(DataUnavailable, match="No space left on device"):
            fetch("nasa_ebc", cache=small / "cache", base_url=address)
    assert leftovers(small / "cache") == []
    assert not (small / "cache" / "nasa_ebc" / "manifest.csv").exists()
    fetch("nasa_ebc", cache=small / "cache", base_url="http://127.0.0.1:9")  # the originals are there already


def test_download_shows_its_progress_in_bytes(small, served, monkeypatch):
    address, _ = served(small / "www")
    shown = []

    class Bar(tqdm):
        def close(self):
            shown.append((self.n, self.total, self.unit))
            super().close()

    monkeypatch.setattr(downloads, "progress", Bar)
    fetch("nasa_ebc", cache=small / "cache", base_url=address)
    total = int(read_table(downloads.REGISTRY)["bytes"].sum())
    assert shown[0] == (total, total, "B")


# DATA


def test_auto_falls_back_openly_real_does_not_generated_never_looks(monkeypatch, tmp_path):
    monkeypatch.delenv("MICRO_DATA", raising=False)
    options = {"cache": tmp_path, "base_url": "http://127.0.0.1:9"}
    with pytest.warns(UserWarning, match="seems offline.*Going on with generated stand-ins"):
        fallen = pack("pure_iron_serial", "auto", "test", **options)
    assert fallen.is_generated
    assert "generated stand-in" in fallen.credit
    with pytest.raises(DataUnavailable, match="seems offline"):
        pack("pure_iron_serial", "real", "test", **options)
    monkeypatch.setattr(packs, "_real_records", lambda *args: pytest.fail("looked for real data"))
    for asked in ({"data": "generated"}, {"data": "auto", "profile": "smoke"}):
        made = pack("pure_iron_serial", split="test", **asked, **options)
        assert made.is_generated
        for one, other in zip(made.records, fallen.records, strict=True):
            np.testing.assert_array_equal(one.image, other.image)


def test_smoke_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("MICRO_PROFILE", "smoke")
    monkeypatch.setattr(packs, "_real_records", lambda *args: pytest.fail("looked for real data"))
    assert pack("ss316l_grains", split="test").is_generated


def test_stand_ins_are_labelled_micrographs_that_differ_between_splits(monkeypatch):
    made = {split: pack("ss316l_grains", "generated", split) for split in ("development", "test", "all")}
    names = [record.name for split in ("development", "test") for record in made[split].records]
    assert [record.name for record in made["all"].records] == names
    assert len({record.group for record in made["all"].records}) == len(names)
    for record in made["all"].records:
        assert record.image.shape == record.mask.shape
        assert set(np.unique(record.mask)) == {0, 1}
        assert record.pixel_size_um > 0
    assert not np.array_equal(made["development"].records[0].image, made["test"].records[0].image)


def test_stand_ins_of_crack_tiles_are_specimens_with_and_without_cracks():
    made = pack("ebc_crack_tiles", "generated")
    assert made.is_generated and "generated stand-in" in made.credit and made.class_map.classes == ("no crack", "crack")
    assert [record.name for record in made.records] == sorted({record.name for record in made.records})
    groups = {record.group for record in made.records}
    assert len(groups) == 8
    for record in made.records:
        assert record.image.shape == record.mask.shape == (128, 128) and record.image.dtype == np.uint8
        kind = record.name.split("_")[0]
        # By the rule of the real tiles: enough of the crack, most of it in the middle; otherwise none and mostly oxide.
        ids = np.where(record.mask == 1, 2, 1)
        assert packs._tile_label(ids) == kind
        assert 0.6 <= record.attributes["oxide_fraction"] <= 1
        assert record.image[record.mask == 1].mean() < record.image[record.mask == 0].mean() or kind == "nocrack"
    for group in groups:
        of_group = [record for record in made.records if record.group == group]
        assert sum(record.mask.any() for record in of_group) == len(of_group) / 2
    again = pack("ebc_crack_tiles", "generated")
    assert all(np.array_equal(a.image, b.image) for a, b in zip(made.records, again.records, strict=True))


def test_stand_ins_of_superalloys_are_spots_in_two_views_and_another_alloy():
    made = pack("nasa_superalloy", "generated")
    assert [record.name for record in made.records] == sorted({record.name for record in made.records})
    views = {(record.group, record.domain) for record in made.records if record.domain.startswith("view_")}
    spots = {group for group, _ in views}
    assert views == {(spot, view) for spot in spots for view in ("view_0d", "view_180d")} and len(spots) == 4
    (other,) = (record for record in made.records if record.group not in spots)
    assert other.domain == other.group == other.name
    for record in made.records:
        assert record.image.shape == record.mask.shape == (256, 256) and record.image.dtype == np.uint8
        assert record.pixel_size_um is None  # as in the real pack
        matrix, coarse, fine = (record.image[record.mask == i].mean() for i in range(3))
        assert coarse < matrix - 5 and fine < matrix - 5
        assert 0.005 < (record.mask == 2).mean() < 0.05 < (record.mask == 1).mean() < 0.8
    greys = pd.DataFrame([(r.group, r.domain, r.image.mean()) for r in made.records if r is not other]).groupby([0, 1])
    by_view = greys[2].mean().unstack()
    assert (by_view["view_180d"] > by_view["view_0d"] + 20).all()


def test_stand_ins_of_steels_lack_some_classes_in_some_specimens():
    made = pack("uhcs", "generated")
    present = pd.DataFrame({r.name: [(r.mask == i).any() for i in range(4)] for r in made.records}).T
    assert present.any().all() and present[[0, 2]].all().all() and not present[1].all() and not present[3].all()
    assert len({record.group for record in made.records}) == len(made.records) / 2 == 5
    for record in made.records:
        assert record.image.shape == record.mask.shape == (256, 320) and record.pixel_size_um > 0
        assert record.image[record.mask == 0].mean() < record.image[record.mask == 2].mean() - 20


def test_stand_ins_of_coatings_hold_cracks_in_the_oxide_and_one_specimen_apart():
    made = pack("nasa_ebc", "generated")
    domains = {record.group: record.domain for record in made.records}
    assert sorted(domains.values()) == ["source"] * 5 + ["target_050317"]
    for record in made.records:
        background, oxide, crack = (record.image[record.mask == i].mean() for i in range(3))
        assert crack < oxide < background
        # A crack lies within the layer: above and below it in its column is oxide, or the crack goes on to the border.
        columns = (record.mask > 0).astype(np.int8)
        assert (np.abs(np.diff(columns, axis=0, prepend=0, append=0)).sum(0) == 2).all()
    apart = [record.image.mean() for record in made.records if record.domain != "source"]
    assert min(apart) > max(record.image.mean() for record in made.records if record.domain == "source") + 20


@pytest.mark.parametrize("name", ["nasa_superalloy", "uhcs", "nasa_ebc"])
def test_stand_ins_are_stamped_whole_and_the_same_every_time(name):
    made, again = pack(name, "generated"), pack(name, "generated")
    assert made.is_generated and "generated stand-in" in made.credit and "no real data" in made.credit
    assert all(record.name.startswith("generated_") for record in made.records)
    ids = np.unique(np.concatenate([record.mask.ravel() for record in made.records]))
    assert ids.tolist() == list(range(len(made.class_map.classes)))
    for one, other in zip(made.records, again.records, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
    assert len({record.image.tobytes() for record in made.records}) == len(made.records)


def test_packs_without_stand_in_say_so():
    with pytest.raises(DataUnavailable, match="'sx_superalloy_1070C' has no generated stand-in of its 'masks'"):
        pack("sx_superalloy_1070C", "generated")
    with pytest.raises(DataUnavailable, match="'uhcs' has no generated stand-in of its 'masks_region'"):
        pack("uhcs", "generated", masks="masks_region")


def test_316l_is_never_downloaded(monkeypatch, tmp_path):
    monkeypatch.delenv("MICRO_DATA", raising=False)
    monkeypatch.setattr(downloads, "_download", lambda *args: pytest.fail("tried to download"))
    with pytest.raises(DataUnavailable, match=r"no clear licence.*data/cards/ss316l_grains\.md"):
        pack("ss316l_grains", "real", "test", cache=tmp_path)
    assert "ss316l_grains" not in set(read_table(downloads.REGISTRY)["pack"])


def test_unknown_words_are_refused_with_the_known_ones(monkeypatch):
    for kwargs, match in (
        ({"name": "steel"}, "pack is 'steel'; there are ebc_crack_tiles"),
        ({"name": "uhcs", "data": "Real"}, "DATA is 'Real'; there are auto, real, generated"),
        ({"name": "pure_iron_serial", "split": "development"}, "there are all, test"),
        ({"name": "uhcs", "masks": "masks_2"}, "there are masks, masks_region"),
    ):
        with pytest.raises(ValueError, match=match):
            pack(**kwargs)


def own_pack(folder, names, shape=(20, 30), **columns):
    """Write a pack of a user's own in the pack layout."""
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True)
        for name in names:
            Image.fromarray(np.zeros(shape, np.uint8)).save(folder / sub / f"{name}.png")
    table = {"name": names, "specimen": [name[:4] for name in names], **columns}
    pd.DataFrame(table).to_csv(folder / "manifest.csv", index=False)


def test_users_own_folder_wins_and_its_faults_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    folder = tmp_path / "ss316l_grains"
    own_pack(folder, ["RG03_1_4", "RG99_1_1"], overlap_group=["G03", "G99"], um_per_px=[0.444, 0.444])
    every = pack("ss316l_grains", "real")
    assert [(r.name, r.group, r.pixel_size_um, r.domain) for r in every.records] == [
        ("RG03_1_4", "G03", 0.444, ""),
        ("RG99_1_1", "G99", 0.444, ""),
    ]
    with pytest.warns(UserWarning, match="lacks 35 of the 36 micrographs of split 'development'"):
        assert [r.name for r in pack("ss316l_grains", "real", "development").records] == ["RG03_1_4"]
    with pytest.raises(DataUnavailable, match="lacks 72 of the 72 micrographs of split 'test'"):
        pack("ss316l_grains", "real", "test")
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(folder / "masks" / "RG03_1_4.png")
    with pytest.raises(ValueError, match=r"RG03_1_4\.png.*77: 600 px"):
        pack("ss316l_grains", "real")
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(folder / "masks" / "RG03_1_4.png")
    with pytest.raises(ValueError, match=r"a mask of \(20, 31\); expected \(20, 30\), the size of its image"):
        pack("ss316l_grains", "real")
    (folder / "manifest.csv").write_text("name\nRG03_1_4\n")
    with pytest.raises(ValueError, match="expected the columns name and specimen"):
        pack("ss316l_grains", "real")


def test_names_that_look_like_numbers_stay_text(tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    own_pack(tmp_path / "pure_iron_serial", ["001", "01"])
    assert [record.name for record in pack("pure_iron_serial", "real").records] == ["001", "01"]
    own_pack(tmp_path / "nasa_ebc", ["1e3", "002"], overlap_group=["", "07"])
    assert [(r.name, r.group) for r in pack("nasa_ebc", "real").records] == [("002", "07"), ("1e3", "1e3")]


# Converters, on small drawn originals


def test_superalloy_colours_become_ids(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[0] = [(0, 0, 255, 255), (255, 0, 0, 255), (90, 90, 90, 255)]
    rgba[1] = [(0, 0, 254, 255), (255, 255, 255, 255), (0, 0, 0, 255)]  # nearly blue, white, black: not annotated
    tifffile.imwrite(tmp_path / "m.tif", rgba, photometric="rgb", extrasamples=[1])
    np.testing.assert_array_equal(conversion._superalloy_ids(tmp_path / "m.tif")[0], [[1, 2, 0], [0, 0, 0]])


def test_both_pixels_at_every_id_change_are_boundary(tmp_path):
    colours = np.array([(9, 9, 9), (0, 1, 0), (0, 0, 200)], np.uint8)
    drawn = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 2, 1]])
    Image.fromarray(colours[drawn]).save(tmp_path / "g.tif", compression="tiff_lzw")
    boundary, grains = conversion._grains_and_boundaries(tmp_path / "g.tif")
    expected_grains = np.array([3, 2, 1])[drawn]  # in order of the code red, green, blue: (0,0,200), (0,1,0), (9,9,9)
    np.testing.assert_array_equal(grains, expected_grains)
    expected = [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(boundary, np.array(expected) * 255)
    assert boundary.dtype == grains.dtype == np.uint8


def test_the_two_annotation_schemes_of_uhcs(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[0, 1], [2, 3]], np.int8))
    np.testing.assert_array_equal(conversion._array_ids(tmp_path / "m.npy")[0], [[0, 1], [2, 3]])
    tifffile.imwrite(tmp_path / "r.tif", np.array([[0, 85], [170, 255]], np.uint8))
    np.testing.assert_array_equal(conversion._region_ids(tmp_path / "r.tif")[0], [[0, 1], [2, 3]])
    tifffile.imwrite(tmp_path / "r.tif", np.array([[0, 86]], np.uint8))
    with pytest.raises(ValueError, match="86: 1 px"):
        conversion._region_ids(tmp_path / "r.tif")


def test_crack_windows_follow_their_rule():
    mask = np.ones((192, 192), np.uint8)
    mask[60:75, 60:72] = 2  # 180 crack pixels, all in the inner part of the first window
    image = np.arange(192 * 192, dtype=np.uint16).reshape(192, 192)
    tiles = packs._crack_tiles([Record("c", image, mask, "s1", None)])
    by_name = {tile.name: tile for tile in tiles}
    assert "crack_c_y0000_x0000" in by_name
    # The next window down starts at row 64: 11 x 12 = 132 crack pixels, fewer than 150, and not free of cracks either.
    assert not any("y0064_x0000" in name for name in by_name)
    np.testing.assert_array_equal(by_name["crack_c_y0000_x0000"].mask, (mask[:128, :128] == 2).astype(np.uint8))
    mask[:] = 1
    mask[:, 77:] = 0  # 77 of 128 columns are oxide: 60.2 %
    (tile,) = packs._crack_tiles([Record("c", image[:128, :128], mask[:128, :128], "s1", None)])
    assert (tile.name, tile.group) == ("nocrack_c_y0000_x0000", "s1")
    assert tile.attributes == {"oxide_fraction": round(77 / 128, 3)}
    mask[:, 76:] = 0
    assert packs._crack_tiles([Record("c", image[:128, :128], mask[:128, :128], "s1", None)]) == ()


# Against the public originals and the packs made from them earlier


@needs_originals
@pytest.mark.parametrize(
    ("name", "n_files"),
    [("nasa_ebc", 2), ("nasa_superalloy", 2), ("sx_superalloy_1070C", 2), ("uhcs", 3), ("pure_iron_serial", 3)],
)
def test_originals_convert_to_the_pixels_of_the_packs(name, n_files, served, tmp_path, monkeypatch):
    table = read_table(downloads.REGISTRY)
    here = [(ORIGINALS / unquote(urlsplit(url).path).lstrip("/")).is_file() for url in table["url"]]
    table[here].to_csv(tmp_path / "registry.csv", index=False)
    monkeypatch.setattr(downloads, "REGISTRY", tmp_path / "registry.csv")
    address, _ = served(ORIGINALS)
    folder = fetch(name, cache=tmp_path / "cache", base_url=address)
    made = sorted(file.relative_to(folder) for file in folder.rglob("*.png"))
    assert len(made) == n_files
    for file in made:
        ours, theirs = (np.asarray(Image.open(base / file)) for base in (folder, Path(MICRO_DATA) / name))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert leftovers(tmp_path / "cache") == []


@needs_packs
@pytest.mark.parametrize("name", sorted(set(read_table(downloads.REGISTRY)["pack"])))
def test_registry_names_the_pixels_of_the_packs(name):
    rows = downloads.registry(name)
    folder = Path(MICRO_DATA) / name
    names = set(read_table(folder / "manifest.csv")["name"])
    assert {row["name"] for row in rows} == names
    assert all(conversion.is_whole(folder, row) for row in rows)


@needs_packs
def test_crack_tiles_cut_from_the_coatings_equal_the_pack():
    stored = pack("ebc_crack_tiles", "real").records
    cut = packs._crack_tiles(pack("nasa_ebc", "real").records)
    assert len(stored) == 463
    assert [tile.name for tile in cut] == [tile.name for tile in stored]
    assert [tile.group for tile in cut] == [tile.group for tile in stored]
    assert [tile.attributes for tile in cut] == [tile.attributes for tile in stored]
    for one, other in zip(cut, stored, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)


@needs_packs
@pytest.mark.parametrize("masks", ["masks", "masks_region"])
def test_uhcs_is_read_with_its_scale_in_both_schemes(masks):
    found = pack("uhcs", "real", masks=masks)
    assert len(found.records) == 16
    assert all(0.05 < record.pixel_size_um < 0.4 for record in found.records)
    assert set(np.unique(np.concatenate([record.mask.ravel() for record in found.records]))) == {0, 1, 2, 3}


@needs_packs
def test_views_and_domains_are_read_and_the_registry_has_the_same():
    found = {name: pack(name, "real").records for name in ("nasa_superalloy", "nasa_ebc", "uhcs")}
    views = pd.Series([record.domain for record in found["nasa_superalloy"]]).value_counts()
    assert views["view_0d"] == views["view_180d"] == 6 and len(views) == 5
    assert all(f"_{r.domain[5:]}_" in r.name for r in found["nasa_superalloy"] if r.domain.startswith("view_"))
    targets = {record.group for record in found["nasa_ebc"] if record.domain == "target_050317"}
    assert targets == {"050317#3"} and {r.domain for r in found["nasa_ebc"]} == {"source", "target_050317"}
    assert {record.domain for record in found["uhcs"]} == {""}
    for name in ("nasa_superalloy", "nasa_ebc"):
        listed = {row["name"]: row["domain"] for row in downloads.registry(name)}
        assert listed == {record.name: record.domain for record in found[name]}


def test_a_killed_run_that_lacks_only_the_manifest_goes_on(small, served):
    address, _ = served(small / "www")
    table = read_table(downloads.REGISTRY)
    table["domain"] = ["a", "a", None, None, "b", "b"]
    table.to_csv(downloads.REGISTRY, index=False)
    folder = fetch("nasa_ebc", cache=small / "cache", base_url=address)
    (folder / "manifest.csv").unlink()
    found = pack("nasa_ebc", "real", cache=small / "cache", base_url="http://127.0.0.1:9")
    assert [record.domain for record in found.records] == ["a", "", "b"]


@needs_packs
def test_the_iron_sections_are_one_group():
    assert len({record.group for record in pack("pure_iron_serial", "real", "test").records}) == 1


# Committed lists


def overlap_groups():
    table = read_table(downloads.REGISTRY.parent / "splits" / "ss316l_grains_overlap_groups.csv")
    return dict(zip(table["specimen"], table["overlap_group"], strict=True))


def test_splits_share_no_overlap_group():
    of_specimen = overlap_groups()
    groups = {
        split: {of_specimen[name.split("_")[0]] for name in split_names("ss316l_grains", split)}
        for split in ("development", "test")
    }
    assert groups["development"] == {"G03", "G09", "G14", "G18", "G24", "G27", "G32"}
    assert len(groups["test"]) == 14
    assert groups["development"].isdisjoint(groups["test"])
    assert groups["development"] | groups["test"] == set(of_specimen.values())
    assert groups["development"] == set(sorted(set(of_specimen.values()))[::3])


def test_splits_name_every_tile_once():
    names = split_names("ss316l_grains", "development") + split_names("ss316l_grains", "test")
    assert len(names) == len(set(names)) == 108
    iron = {row["name"] for row in downloads.registry("pure_iron_serial")}
    assert set(split_names("pure_iron_serial", "test")) == iron


@needs_packs
def test_splits_and_groups_agree_with_the_manifest():
    manifest = read_table(Path(MICRO_DATA) / "ss316l_grains" / "manifest.csv")
    names = split_names("ss316l_grains", "development") + split_names("ss316l_grains", "test")
    assert set(names) == set(manifest["name"])
    assert dict(zip(manifest["specimen"], manifest["overlap_group"], strict=True)) == overlap_groups()


def test_every_split_offered_has_a_list():
    for name, source in SOURCES.items():
        for split in source.splits:
            assert split_names(name, split)


def test_registry_is_at_fixed_commits_with_hashes_and_licence():
    table = read_table(downloads.REGISTRY)
    assert set(table["pack"]) == set(SOURCES) - {"ss316l_grains", "ebc_crack_tiles"}
    assert not table.duplicated(["pack", "name", "kind"]).any()
    assert table["url"].str.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/").all()
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert table["pixels_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert (table["bytes"] > 1000).all()
    assert set(table["licence"]) == {"MIT"}


SECTIONS = (
    "Origin", "Instrument and preparation", "Pixel size", "Classes", "Annotation", "Split", "Licence and citation",
    "Known defects", "Not to be used for",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_pack_has_a_whole_card(name):
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    parts = {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1].strip() for part in text.split("\n## ")[1:]}
    assert set(SECTIONS) <= set(parts)
    assert all(parts.values())
    assert SOURCES[name].credit in text
    for class_map in SOURCES[name].class_maps.values():
        for i, label in enumerate(class_map.classes):
            assert f"| {i} | {label} |" in parts["Classes"]


def test_cards_are_of_packs_only():
    assert {card.stem for card in CARDS.glob("*.md")} == set(SOURCES)


def test_available_names_the_place_of_each_pack(tmp_path, monkeypatch):
    (tmp_path / "given" / "uhcs").mkdir(parents=True)
    (tmp_path / "given" / "uhcs" / "manifest.csv").write_text("name,specimen\n")
    (tmp_path / "cache" / "nasa_ebc").mkdir(parents=True)
    (tmp_path / "cache" / "nasa_ebc" / "manifest.csv").write_text("name,specimen\n")
    monkeypatch.setenv("MICRO_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(packs.pooch, "os_cache", lambda project: tmp_path / "cache")
    table = packs.available().set_index("pack")
    assert table.loc["uhcs", "found"] == "$MICRO_DATA" and table.loc["nasa_ebc", "found"] == "download cache"
    assert table.loc["ss316l_grains", "otherwise"] == "get it by hand, see its card"
    assert table.loc["pure_iron_serial", "otherwise"] == "downloaded when asked for"
