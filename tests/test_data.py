"""ImageData and load: exact normalisation, reproducible augmentation, sources found, faults named."""

from __future__ import annotations

import os
import pickle
import struct
import urllib.error
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from vixlib.data import folders, sources
from vixlib.data.images import ImageData
from vixlib.data.loading import NAMES, load
from vixlib.data.shapes import make_shapes
from vixlib.errors import as_file_path


@pytest.fixture(autouse=True)
def nothing_else_to_find(tmp_path, monkeypatch):
    """Only what a test puts below tmp_path exists: no data of this machine, no network."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("VIX_DATA", raising=False)
    monkeypatch.setattr(sources, "ROOT", tmp_path / "no-checkout")
    monkeypatch.setattr(sources, "KAGGLE_INPUT", tmp_path / "kaggle")
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))

    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)


def picture(path, colour=(10, 20, 30), size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def image_folder(root, suffix="png", test="test", classes=("cat", "dog"), each=3):
    for part in ("train", test):
        for label, name in enumerate(classes):
            for i in range(each):
                picture(root / part / name / f"{i}.{suffix}", (100 * label, i, len(part)))
    return root


def small_data(count=40, classes=4, size=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    return ImageData("small", tuple("abcdefgh"[:classes]), images, labels,
                     images[:8].clone(), labels[:8].clone())


# ---- ImageData

def test_normalisation_is_exact_and_ends_at_plus_and_minus_one():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    label = torch.zeros(1, dtype=torch.int64)
    data = ImageData("ramp", ("a", "b"), values, label, values, label)
    images, _ = data.batch(torch.tensor([0]))
    assert images.dtype == torch.float32
    assert images.min() == -1 and images.max() == 1
    oracle = (values.double() / 255 - 0.5) / 0.5
    assert (images.double() - oracle).abs().max() < 1e-7


def test_batch_takes_the_asked_pictures_of_the_asked_split():
    data = small_data()
    images, labels = data.batch(torch.tensor([5, 2, 5]), split="test")
    assert labels.tolist() == [1, 2, 1]
    assert torch.equal((images + 1).mul(127.5).round().to(torch.uint8), data.test_images[[5, 2, 5]])


def test_flip_mirrors_some_pictures_and_leaves_the_others():
    data = small_data()
    index = torch.arange(40)
    plain, _ = data.batch(index)
    flipped, _ = data.batch(index, augment={"flip"}, generator=torch.Generator().manual_seed(1))
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    kept = (flipped == plain).flatten(1).all(1)
    assert (mirrored ^ kept).all() and 8 < mirrored.sum() < 32


def test_crop_moves_each_picture_by_its_own_few_pixels_and_lets_black_in():
    data = small_data()
    index = torch.arange(40)
    plain, _ = data.batch(index)
    cropped, _ = data.batch(index, augment=("crop",), generator=torch.Generator().manual_seed(1))
    padded = torch.full((40, 3, 20, 20), -1.0)
    padded[..., 4:16, 4:16] = plain
    moves = set()
    for i in range(40):
        fitting = [(y, x) for y in range(9) for x in range(9)
                   if torch.equal(cropped[i], padded[i, :, y:y + 12, x:x + 12])]
        assert len(fitting) == 1, f"picture {i} is no translation"
        moves.add(fitting[0])
    assert len(moves) > 20
    assert {y for y, _ in moves} == set(range(9)) == {x for _, x in moves}


def test_augmentation_comes_from_the_generator_alone():
    data, index = small_data(), torch.arange(40)

    def draw(seed):
        return data.batch(index, augment=("crop", "flip"), generator=torch.Generator().manual_seed(seed))[0]

    first = draw(5)
    torch.manual_seed(99)
    assert torch.equal(first, draw(5)) and not torch.equal(first, draw(6))
    flip_first = data.batch(index, augment=("flip", "crop"), generator=torch.Generator().manual_seed(5))[0]
    assert torch.equal(first, flip_first), "the order in which augmentations are named must not matter"


def test_subset_is_balanced_nested_reproducible_and_spares_the_test_set():
    data = small_data(count=80)
    half, quarter = data.subset(0.5, seed=2), data.subset(0.25, seed=2)
    assert half.train_labels.bincount().tolist() == [10] * 4
    assert quarter.train_labels.bincount().tolist() == [5] * 4
    assert torch.equal(half.train_images, data.subset(0.5, seed=2).train_images)
    assert not torch.equal(half.train_images, data.subset(0.5, seed=3).train_images)
    inside = {image.numpy().tobytes() for image in half.train_images}
    assert all(image.numpy().tobytes() in inside for image in quarter.train_images)
    assert half.test_images is data.test_images and half.name == "small"


def test_some_pictures_of_a_sorted_set_are_of_all_classes(tmp_path):
    """The first ones of a folder are of one class, and so would be what they say of a model."""
    data = load(str(image_folder(tmp_path / "sorted", classes=tuple("abcd"), each=10)))
    assert len(set(data.test_labels[:10].tolist())) == 1
    drawn = data.some(20)
    assert len(set(data.test_labels[drawn].tolist())) == 4 and torch.equal(drawn, data.some(20))
    assert sorted(data.some(1000, "train").tolist()) == list(range(40))
    for bad, words in (((0,), "count=0"), ((3, "validation"), "split='validation'")):
        with pytest.raises(ValueError, match=words):
            data.some(*bad)


def test_subset_keeps_pictures_and_labels_together():
    data = small_data(count=80)
    known = {image.numpy().tobytes(): int(label)
             for image, label in zip(data.train_images, data.train_labels, strict=True)}
    part = data.subset(0.3)
    for image, label in zip(part.train_images, part.train_labels, strict=True):
        assert known[image.numpy().tobytes()] == label


def test_bad_arguments_are_named():
    data = small_data()
    for fraction in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fraction="):
            data.subset(fraction)
    with pytest.raises(ValueError, match="split='validation'"):
        data.batch(torch.tensor([0]), split="validation")
    with pytest.raises(ValueError, match="augment='rotate'.*'flip', 'crop'"):
        data.batch(torch.tensor([0]), augment=("rotate",))


@pytest.mark.parametrize(("change", "message"), [
    ({"classes": ("only",)}, "at least two classes"),
    ({"classes": ("a", "b")}, "labels run from 0 to 3"),
    ({"train_images": torch.zeros(40, 3, 12, 12)}, "train_images are torch.float32 .*, not uint8"),
    ({"train_labels": torch.zeros(3, dtype=torch.int64)}, "train_labels must be int64 .40."),
    ({"test_images": torch.zeros(8, 3, 9, 9, dtype=torch.uint8)}, "resize them"),
])
def test_inconsistent_data_is_refused(change, message):
    data = small_data()
    fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        ImageData(**{**fields, **change})


def test_to_and_repr():
    data = small_data().to("cpu")
    assert data.device.type == "cpu" and data.channels == 3 and data.image_size == (12, 12)
    assert repr(data) == "ImageData('small': 40 training and 8 test pictures of 12x12x3, 4 classes, on cpu)"


# ---- image folders

@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
@pytest.mark.parametrize("test", ["test", "val"])
def test_image_folder_is_read_whole(tmp_path, suffix, test):
    data = load(image_folder(tmp_path / "Pets", suffix, test))
    assert data.name == "pets" and data.classes == ("cat", "dog")
    assert data.image_size == (6, 8) and data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    near = data.train_images[4, :, 3, 3].int() - torch.tensor([100, 1, 5])
    assert near.abs().max() <= (0 if suffix == "png" else 6)


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    root = image_folder(tmp_path / "pets")
    Image.new("L", (8, 6), 77).save(root / "train/cat/0.png")
    Image.new("RGBA", (8, 6), (1, 2, 3, 128)).save(root / "train/cat/1.png")
    with pytest.warns(UserWarning, match="transparent parts"):
        data = load(root)
    assert (data.train_images[0] == 77).all()
    assert data.train_images[1, :, 0, 0].tolist() == [1, 2, 3]


def damage_truncated(root):
    path = root / "train/dog/1.jpg"
    path.write_bytes(path.read_bytes()[:-40])


def damage_text(root):
    (root / "train/dog/1.jpg").write_text("no picture")


def damage_empty_file(root):
    (root / "train/dog/1.jpg").write_bytes(b"")


def damage_size(root):
    picture(root / "train/dog/1.jpg", size=(9, 6))


def damage_no_images(root):
    for path in (root / "train/dog").iterdir():
        path.rename(path.with_suffix(".txt"))


def damage_no_test(root):
    (root / "test").rename(root / "holdout")


def damage_no_train(root):
    (root / "train").rename(root / "training")


def damage_one_class(root):
    for part in ("train", "test"):
        (root / part / "dog").rename(root / f"{part}-dog")


def damage_other_classes(root):
    (root / "test/dog").rename(root / "test/wolf")


def damage_flat(root):
    for path in list((root / "train").iterdir()):
        path.rename(root / path.name)


def damage_truncated_png(root):
    path = root / "train/dog/1.png"
    picture(path)
    path.write_bytes(path.read_bytes()[:50])


def damage_bomb(root):
    path = root / "train/dog/1.png"
    picture(path)
    whole = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + whole[24:29]  # a size that the file does not have
    path.write_bytes(whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:])


def damage_link_to_itself(root):
    (root / "train/dog/1.png").symlink_to("1.png")


@pytest.mark.parametrize(("damage", "message"), [
    (damage_bomb, r"dog/1\.png: truncated, damaged or no picture \(Image size"),
    (damage_link_to_itself, r"dog/1\.png is listed in .* but missing"),
    (damage_truncated_png, r"dog/1\.png: truncated"),
    (damage_truncated, r"dog/1\.jpg: truncated"),
    (damage_text, r"dog/1\.jpg: truncated, damaged or no picture"),
    (damage_empty_file, r"dog/1\.jpg: truncated"),
    (damage_size, r"cat/0\.jpg is 8x6 but .*dog/1\.jpg is 9x6.*exif_transpose\(.*resize\(\(8, 6\)\)"),
    (damage_no_images, "no images in .*train/dog"),
    (damage_no_test, "neither test/ nor val/"),
    (damage_no_train, "no train/ folder; the layout must be"),
    (damage_one_class, "single class, 'cat'"),
    (damage_other_classes, "same classes.*'dog', 'wolf'"),
    (damage_flat, "no class folders"),
])
def test_each_fault_of_a_folder_is_one_clear_error(tmp_path, damage, message):
    root = image_folder(tmp_path / "pets", "jpg")
    damage(root)
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert caught.value.__cause__ is None and "\n" not in str(caught.value)


def test_16_bit_pictures_are_refused_by_name(tmp_path):
    root = image_folder(tmp_path / "pets")
    Image.new("I;16", (8, 6), 3000).save(root / "train/cat/0.png")
    with pytest.raises(ValueError, match=r"cat/0\.png has more than 8 bits"):
        load(root)


def png(path, depth, kind, channels):
    """A black PNG of 8x6, which PIL writes with 8 bits alone."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = 6 * (b"\0" + bytes(8 * channels * depth // 8))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, depth, kind, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_pngs_of_every_kind_are_refused(tmp_path, kind, channels):
    root = image_folder(tmp_path / "pets")
    png(root / "train/cat/0.png", 8, kind, channels)
    assert load(root).train_images[0].sum() == 0
    png(root / "train/cat/0.png", 16, kind, channels)
    with pytest.raises(ValueError, match=r"cat/0\.png has more than 8 bits"):
        load(root)


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_read_as_its_colours(tmp_path):
    root = image_folder(tmp_path / "pets")
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(root / "train/cat/0.png", transparency=b"\x00\x80")
    with pytest.warns(UserWarning, match=r"1 pictures have transparent parts, for instance .*cat/0\.png") as said:
        assert load(root).train_images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert said[0].filename == __file__


def test_a_picture_that_is_opaque_throughout_is_not_called_transparent(tmp_path, recwarn):
    root = image_folder(tmp_path / "pets")
    Image.new("RGBA", (8, 6), (1, 2, 3, 255)).save(root / "train/cat/1.png")
    assert load(root).train_images[1, :, 0, 0].tolist() == [1, 2, 3] and not recwarn.list


def test_a_folder_of_the_name_of_pictures_that_are_drawn_has_another(tmp_path):
    assert load(image_folder(tmp_path / "shapes")).name == "shapes-png"


def test_a_test_folder_without_classes_leaves_the_test_to_val(tmp_path):
    root = image_folder(tmp_path / "pets")
    count = len(load(root).test_labels)
    (root / "test").rename(root / "val")
    picture(root / "test/0.png")
    assert len(load(root).test_labels) == count


def test_pictures_beside_the_class_folders_are_said(tmp_path):
    root = image_folder(tmp_path / "pets")
    picture(root / "train/stray.png")
    with pytest.warns(UserWarning, match=r"1 pictures in .*train are passed over, for instance stray\.png: they are in "
                                         "no class folder") as said:
        assert len(load(root).train_labels) == 6
    assert said[0].filename == __file__


def test_pictures_beyond_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "machine_memory", lambda: 12 * 8 * 6 * 3 - 1)
    with pytest.raises(ValueError, match=r"12 pictures of 8x6 like .*cat/0\.png take .* GiB, more than this machine's"):
        load(image_folder(tmp_path / "pets"))


def tiny_imagenet(root):
    for number in ("n01", "n02"):
        for i in range(2):
            picture(root / "train" / number / "images" / f"{number}_{i}.JPEG", (0, 0, 9 * i), (64, 64))
    for i, number in enumerate(("n02", "n01", "n02")):
        picture(root / "val/images" / f"val_{i}.JPEG", (0, 200 * (number == "n02"), 0), (64, 64))
    lines = [f"val_{i}.JPEG\t{number}\t0\t0\t9\t9\n" for i, number in enumerate(("n02", "n01", "n02"))]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\ttailed frog\nn03\tother\n")
    picture(root / "test/images/test_0.JPEG", size=(64, 64))
    return root


def test_tiny_imagenets_own_layout_takes_the_labelled_val_pictures(tmp_path):
    tiny_imagenet(tmp_path / "store/tiny-imagenet-200")
    data = load("tiny-imagenet", root=tmp_path / "store")
    assert data.name == "tiny-imagenet" and data.classes == ("goldfish", "tailed frog")
    assert data.image_size == (64, 64) and data.test_labels.tolist() == [0, 1, 1]
    assert data.test_images[:, 1].float().mean((1, 2)).round().tolist() == pytest.approx([0, 200, 200], abs=3)


@pytest.mark.parametrize("name", ["../../../x.png", "/x.png", "a\0.png", "..", "", "..\\x.png"])
def test_tiny_imagenets_list_leads_to_no_other_folder(tmp_path, name):
    root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    picture(tmp_path / "x.png", size=(64, 64))
    with (root / "val/val_annotations.txt").open("a") as file:
        file.write(f"{name}\tn01\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt, line 4: expected file TAB class"):
        load(root)


def test_tiny_imagenet_names_a_listed_but_missing_picture(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    (root / "val/images/val_1.JPEG").unlink()
    with pytest.raises(ValueError, match=r"val_1\.JPEG is listed"):
        load(root)


def test_tiny_imagenets_classes_with_accents_are_one_however_they_are_written(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    for place in (root / "train/n01", root / "words.txt", root / "val/val_annotations.txt"):
        if place.is_dir():
            place.rename(place.with_name("e\u0301"))
        else:
            place.write_text(place.read_text().replace("n01", "e\u0301"))
    assert load(root).test_labels.bincount().tolist() == [2, 1]


def test_cache_is_used_and_dropped_when_a_picture_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE_FROM", 1)
    root = image_folder(tmp_path / "pets")
    first = load(root)
    assert (root / folders.CACHE_NAME).is_file()
    with monkeypatch.context() as patch:
        patch.setattr(folders, "_decode", lambda files: pytest.fail("decoded again although cached"))
        again = load(root)
    assert torch.equal(first.train_images, again.train_images)
    assert torch.equal(first.test_labels, again.test_labels)
    picture(root / "train/cat/0.png", (9, 9, 250))
    assert load(root).train_images[0, :, 0, 0].tolist() == [9, 9, 250]
    (root / folders.CACHE_NAME).write_bytes(b"damaged")
    assert load(root).train_images[0, :, 0, 0].tolist() == [9, 9, 250]


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_cache_with_a_flipped_bit_is_decoded_again(tmp_path, monkeypatch, place):
    monkeypatch.setattr(folders, "CACHE_FROM", 1)
    root = image_folder(tmp_path / "pets")
    first, path = load(root), root / folders.CACHE_NAME
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert torch.equal(load(root).train_images, first.train_images)


def test_the_cache_tells_of_transparent_pictures_too(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE_FROM", 1)
    root = image_folder(tmp_path / "pets")
    Image.new("RGBA", (8, 6), (1, 2, 3, 4)).save(root / "train/cat/0.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 pictures have transparent parts, .*cat/0\.png") as said:
            load(root)
        assert said[0].filename == __file__


def test_what_would_take_too_much_memory_twice_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE_FROM", 1)
    root = image_folder(tmp_path / "pets")
    taken = load(root).bytes
    (root / folders.CACHE_NAME).unlink()
    monkeypatch.setattr(folders, "machine_memory", lambda: 2 * taken)
    assert load(root).bytes == taken and not (root / folders.CACHE_NAME).exists()


def test_a_disk_without_room_for_the_cache_still_loads(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "cannot write the cache: no space left on device")

    monkeypatch.setattr(folders, "CACHE_FROM", 1)
    monkeypatch.setattr(folders, "write_atomic", full)
    with pytest.warns(UserWarning, match="no space left on device.* will be decoded again next time") as said:
        assert len(load(image_folder(tmp_path / "pets")).train_labels) > 0
    assert said[0].filename == __file__


def test_copies_in_hidden_folders_are_no_pictures(tmp_path):
    root = image_folder(tmp_path / "pets")
    before = len(load(root).train_labels)
    (root / "train/cat/.ipynb_checkpoints").mkdir()
    picture(root / "train/cat/.ipynb_checkpoints/0-checkpoint.png")
    assert len(load(root).train_labels) == before
    (root / "test").rename(root / "val")
    (root / "test/.ipynb_checkpoints").mkdir(parents=True)  # nor classes, beside pictures without
    picture(root / "test/0.png")
    assert len(load(root).train_labels) == before


@pytest.mark.parametrize("width", [54, 55, 72])
def test_a_length_of_line_is_no_depth_of_colour(tmp_path, width):
    """PIL tells a bitmap's decoder 164, 168 or 216 bytes a line."""
    root = image_folder(tmp_path / "pets")
    for path in root.rglob("*.png"):
        Image.new("RGB", (width, 4), (9, 8, 7)).save(path, "BMP")
    assert load(root).train_images.shape[1:] == (3, 4, width)


def test_small_folders_get_no_cache(tmp_path):
    root = image_folder(tmp_path / "pets")
    load(root)
    assert not (root / folders.CACHE_NAME).exists()


# ---- finding and downloading

@pytest.mark.parametrize("place", ["cifar10-jpg", "cifar10-jpg/cifar10-jpg", "datasets/me/slug/cifar10-jpg"])
def test_kaggle_inputs_are_searched_recursively(tmp_path, place):
    image_folder(tmp_path / "kaggle/other-data/pets")
    image_folder(tmp_path / "kaggle" / place, "jpg")
    assert load("cifar10-jpg", download=False).name == "cifar10-jpg"


def test_search_order_is_root_then_environment_then_working_folder(tmp_path, monkeypatch):
    for number, place in enumerate(("root", "named", "empty/data", "kaggle")):
        image_folder(tmp_path / place / "cifar10-jpg", each=number + 1)
    monkeypatch.setenv("VIX_DATA", str(tmp_path / "named"))
    assert len(load("cifar10-jpg", root=tmp_path / "root").train_labels) == 2
    assert len(load("cifar10-jpg").train_labels) == 4
    monkeypatch.delenv("VIX_DATA")
    assert len(load("cifar10-jpg").train_labels) == 6


def test_environment_may_name_the_copy_itself_and_must_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VIX_DATA", str(image_folder(tmp_path / "cifar10-jpg")))
    assert load("cifar10-jpg").name == "cifar10-jpg"
    monkeypatch.setenv("VIX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="VIX_DATA=.*nowhere.*is no folder"):
        load("cifar10-jpg")


def test_picture_folders_never_pass_for_the_exact_cifar10(tmp_path):
    image_folder(tmp_path / "kaggle/cifar10-jpg", "jpg")
    with pytest.raises(RuntimeError, match="no copy of cifar10 was found"):
        load("cifar10", download=False)
    image_folder(tmp_path / "kaggle/some/CIFAR-10", "jpg")
    assert load("cifar10", download=False).name == "cifar10-jpg"
    assert load(image_folder(tmp_path / "cifar10", "png")).name == "cifar10-png"


def fake_cifar10(folder):
    folder.mkdir(parents=True)
    batch = {"data": torch.zeros(2, 3072, dtype=torch.uint8).numpy(), "labels": [0, 1]}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))


def test_a_damaged_cifar10_names_the_file_and_is_never_unpickled(tmp_path):
    fake_cifar10(tmp_path / "kaggle/datasets/owner/slug/any-name")
    with pytest.raises(ValueError, match="any-name/data_batch_1 is missing, truncated or damaged"):
        load("cifar10")


def test_intact_pickles_are_read_whatever_their_folder_is_called(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "kaggle/cifar-10-python/renamed"
    fake_cifar10(folder)
    red_then_blue = torch.zeros(2, 3, 1024, dtype=torch.uint8)
    red_then_blue[0, 0], red_then_blue[1, 2, :32] = 255, 255  # the second: only its top row is blue
    batch = {"data": red_then_blue.flatten(1).numpy(), "labels": [1, 0]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load("cifar10")
    assert data.name == "cifar10" and data.classes == ("a", "b") and len(data.train_labels) == 10
    assert data.test_labels.tolist() == [1, 0]
    assert (data.test_images[0, 0] == 255).all() and (data.test_images[0, 1:] == 0).all()
    assert (data.test_images[1, 2, 0] == 255).all() and data.test_images[1, :, 1:].max() == 0
    assert CIFAR10.base_folder == "cifar-10-batches-py", "torchvision's own class must stay as it is"


def test_a_folder_of_pictures_is_read_though_pickles_lie_beside_them(tmp_path):
    root = image_folder(tmp_path / "pets")
    fake_cifar10(root / "cifar-10-batches-py")
    assert load(root).classes == ("cat", "dog")


def test_a_folder_of_two_pickled_data_sets_is_refused(tmp_path):
    fake_cifar10(tmp_path / "store/cifar-10-batches-py")
    (tmp_path / "store/cifar-100-python").mkdir()
    for name in ("train", "test", "meta"):
        (tmp_path / "store/cifar-100-python" / name).write_bytes(b"")
    with pytest.raises(ValueError, match="store holds cifar10 and cifar100; name the folder of one, such as"):
        load(tmp_path / "store")


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    image_folder(tmp_path / "kaggle/some/cifar10", "jpg")
    with pytest.raises(ValueError, match="root='.*file' is no folder"):
        load("cifar10", root=tmp_path / "file")


def test_pictures_are_read_onto_the_cpu_whatever_the_default_device_is(tmp_path):
    with torch.device("meta"):
        data = load(image_folder(tmp_path / "pets"))
    assert data.device == torch.device("cpu") and data.train_images.max() == 100


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
def test_offline_is_one_sentence_that_says_what_helps(name, tmp_path, capsys):
    with pytest.raises(RuntimeError) as caught:
        load(name, root=tmp_path / "store")
    message = str(caught.value)
    for part in ("could not be downloaded", "Settings > Internet", "Add Input", "VIX_DATA", "load('shapes')"):
        assert part in message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ and "\n" not in message
    before = capsys.readouterr().out
    assert "MB" in before and ("Toronto" in before) == name.startswith("cifar")


def test_what_has_no_download_says_so():
    with pytest.raises(RuntimeError, match="cifar10-jpg has no download"):
        load("cifar10-jpg")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="name='cifar11'") as caught:
        load("cifar11")
    assert all(repr(name) in str(caught.value) for name in NAMES)


def test_shapes_by_name_and_its_options_only_there():
    data = load("shapes", train=30, test=20, seed=1, size=24)
    assert data.name == "shapes" and len(data.train_labels) == 30 and data.image_size == (24, 24)
    with pytest.raises(TypeError, match="train: for load.'shapes'. only"):
        load("cifar10", train=5)


@pytest.mark.parametrize("device", ["mps", "meta", "xpu", "cuda:31"])
def test_a_device_that_this_machine_lacks_is_named(device):
    with pytest.raises(ValueError, match=f"device='{device}' does not work here .*pick_device"):
        load("shapes", train=20, test=10, device=device)


def test_pictures_that_are_passed_over_are_said_and_class_names_have_one_spelling(tmp_path):
    root = image_folder(tmp_path, classes=("K\u00e4se", "dog"))
    (root / "test" / "K\u00e4se").rename(root / "test" / "Ka\u0308se")
    picture(root / "train" / "dog" / "9.bmp")
    with pytest.warns(UserWarning, match=r"1 pictures in .*train are passed over, for instance 9\.bmp"):
        assert load(root).classes == ("K\u00e4se", "dog")


def test_a_camera_that_was_turned_does_not_turn_its_picture(tmp_path):
    root = image_folder(tmp_path, suffix="jpg", each=1)
    for path in root.rglob("*.jpg"):
        turned = Image.open(path).rotate(90, expand=True)
        note = Image.Exif()
        note[0x0112] = 6  # to be turned by 90° for looking at
        turned.save(path, exif=note)
    assert load(root).image_size == (6, 8)


def test_shapes_do_not_depend_on_torchs_default_type():
    usual = make_shapes(train=20, test=10)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(make_shapes(train=20, test=10).train_images, usual.train_images)
    finally:
        torch.set_default_dtype(torch.float32)


# ---- paths and folders that cannot be used

LONG, HOME, LONE = "n" * 300, "~nosuchuser/data", "a\ud800"
CALLS = {"name": load, "root": lambda path: load("cifar10-jpg", root=path, download=False),
         "checkpoint": lambda path: as_file_path("checkpoint", path)}


class Bytes:
    def __fspath__(self):
        return b"data"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("path", "error", "message"), [
    (HOME, ValueError, "begins with a home folder that is unknown; write the path in full"),
    (LONG, OSError, "cannot be used: File name too long; name another"),
    (LONE, ValueError, "has a character that no path can"),
    (Bytes(), TypeError, "is a path in bytes; pass it as text")])
def test_a_path_that_no_file_can_have_is_named_with_its_argument(name, path, error, message):
    with pytest.raises(error, match=message) as caught:
        CALLS[name](path)
    assert str(caught.value).removeprefix("[Errno 36] ").startswith(f"{name}=")


def refuse(*_, **__):
    raise PermissionError(13, "Permission denied", "there")


def test_a_path_below_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "stat", refuse)
    for name, call in CALLS.items():
        with pytest.raises(PermissionError, match=f"{name}='.*/data' cannot be used: Permission denied"):
            call(tmp_path / "data")


def test_the_environments_folder_is_named_where_the_home_is_unknown(monkeypatch):
    monkeypatch.setenv("VIX_DATA", HOME)
    with pytest.raises(ValueError, match="environment variable VIX_DATA='~nosuchuser/data' begins with a home"):
        load("cifar10-jpg")


def test_an_unknown_home_is_no_fault_where_nobody_names_it(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["nobody"])
    with pytest.raises(RuntimeError, match="cifar10-jpg has no download"):
        load("cifar10-jpg")


def test_links_to_themselves_are_passed_over(tmp_path):
    root = image_folder(tmp_path / "store/cifar10-jpg")
    for place in (root.parent, root, root / "train"):
        (place / "loop").symlink_to("loop")
    assert load("cifar10-jpg", root=root.parent).name == load(root).name == "cifar10-jpg"


@pytest.mark.parametrize("place", ["train", "train/cat"])
def test_a_folder_of_pictures_that_may_not_be_read_is_named(tmp_path, monkeypatch, place):
    root, scandir, iterdir = image_folder(tmp_path / "pets"), os.scandir, Path.iterdir

    def scan(path):
        return refuse() if str(path).endswith(place) else scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in scan(path)])
    # Python 3.10's Path has an os.listdir of its own.
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse() if str(path).endswith(place) else iterdir(path))
    with pytest.raises(PermissionError, match="there cannot be read: Permission denied; allow it"):
        load(root)


def test_linked_folders_of_pictures_are_read_each_once(tmp_path):
    root, more = image_folder(tmp_path / "pets"), image_folder(tmp_path / "more", each=5)
    (root / "train/cat/more").symlink_to(more / "train/cat")
    (root / "train/cat/again").symlink_to(more / "train/cat")
    (root / "train/cat/all").symlink_to(root / "train")  # would make every dog a cat, and for ever
    assert load(root).train_labels.bincount().tolist() == [3 + 5, 3]


def test_a_pipe_among_the_pictures_is_named(tmp_path):
    root = image_folder(tmp_path / "pets")
    os.mkfifo(root / "train/cat/pipe.png")
    with pytest.raises(ValueError, match="pipe.png is no file of a picture"):
        load(root)
