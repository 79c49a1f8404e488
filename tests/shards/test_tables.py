"""Tables as people bring them: columns, delimiters, and names that are not those of the files."""

import json
import sys
import numpy as np
import pytest
from made_images import populate
import shards
from shards import Reject, ShardError
from shards.sources import find

STEMS = [f"{number:04}a" for number in range(6)]
CLASSES = ["ant", "bee", "cat", "ant", "bee", "cat"]
PAIRS = [*zip(STEMS, CLASSES, strict=True)]


@pytest.fixture
def photos(tmp_path):
    """Six images in ``train``, beside which tables may lie."""
    populate(tmp_path / "train", [f"{stem}.jpg" for stem in STEMS])
    return tmp_path


def check(source, classes=("ant", "bee", "cat")):
    assert source.classes == [*classes]
    assert [image.label for image in source.samples] == [0, 1, 2, 0, 1, 2]
    assert all(image.size > 0 for image in source.samples)
    assert source.rejects == []


def written(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


TABLES = {
    "ids.csv": ["id,breed", *(f"{s},{c}" for s, c in PAIRS)],
    "no-head.csv": [f"{s},{c}" for s, c in PAIRS],
    "unknown-head.csv": ["foo,bar", *(f"{s},{c}" for s, c in PAIRS)],
    "folderless.csv": ["image_id,label", *(f"{s}.jpg,{c}" for s, c in PAIRS)],
    "other-suffix.csv": ["image,label", *(f"{s}.png,{c}" for s, c in PAIRS)],
    "other-case.csv": ["image,label", *(f"{s.upper()}.JPG,{c}" for s, c in PAIRS)],
    "windows.csv": ["image,label", *(f"C:\\data\\{s}.jpg,{c}" for s, c in PAIRS)],
    "server.csv": ["image,label", *(f"/home/u/d/train/{s}.jpg,{c}" for s, c in PAIRS)],
    "pandas.csv": [",filename,label", *(f"{n},{s}.jpg,{c}" for n, (s, c) in enumerate(PAIRS))],
    "semicolon.csv": ["image;label", *(f"{s}.jpg;{c}" for s, c in PAIRS)],
    "bar.csv": ["image|label", *(f"{s}.jpg|{c}" for s, c in PAIRS)],
    "tabs.tsv": ["image\tlabel", *(f"{s}.jpg\t{c}" for s, c in PAIRS)],
    "class-first.csv": ["label,image", *(f"{c},{s}.jpg" for s, c in PAIRS)],
    "birds.csv": ["class id,filepaths,labels,data set", *(f"1,{s}.jpg,{c},x" for s, c in PAIRS)],
    "one-hot.csv": [
        "image,ant,bee,cat",
        *(f"{s}.jpg,{','.join(str(int(c == k)) for k in CLASSES[:3])}" for s, c in PAIRS),
    ],
    "words.txt": [f"train/{s}.jpg {c}" for s, c in PAIRS],
    "ids.txt": [f"{s} {c}" for s, c in PAIRS],
    "val_annotations.txt": [f"{s}.jpg\t{c}\t0\t32\t44\t62" for s, c in PAIRS],
    "lines.jsonl": [json.dumps({"file_name": f"{s}.jpg", "label": c}) for s, c in PAIRS],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_any_tool_gives_images_and_classes(photos, name):
    check(find(written(photos / name, TABLES[name])))


def test_a_table_beside_the_folder_of_images_finds_them(photos):
    (photos / "tables").mkdir()
    check(find(written(photos / "tables/ids.csv", TABLES["ids.csv"])))


def test_a_table_far_from_its_images_needs_their_folder(photos, tmp_path):
    (tmp_path / "far/away").mkdir(parents=True)
    table = written(tmp_path / "far/away/ids.csv", TABLES["ids.csv"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"with any suffix, in .*/empty\. Name"):
        find(table, image_root=tmp_path / "empty")
    with pytest.raises(ShardError, match=r"\(--image-root\), got .*/nowhere, which is none"):
        find(table, image_root=tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"wanted a column of image files.*--image-root"):
        find(table)
    index = shards.build(table, tmp_path / "set", image_root=str(photos / "train"))
    assert (len(index.samples), index.classes) == (6, ("ant", "bee", "cat"))


def test_a_spreadsheets_utf16_is_read(photos):
    text = "\n".join(TABLES["tabs.tsv"])
    (photos / "excel.csv").write_bytes(text.encode("utf-16"))
    check(find(photos / "excel.csv"))


def test_a_table_in_another_alphabet_or_cut_off_is_one_line(photos):
    (photos / "latin.csv").write_bytes("image,label\n0000a.jpg,café\n".encode("latin-1"))
    with pytest.raises(ShardError, match="save it again in UTF-8"):
        find(photos / "latin.csv")
    (photos / "cut.jsonl").write_text('{"file_name": "0000a')
    with pytest.raises(ShardError, match=r"cut\.jsonl cannot be read as a table"):
        find(photos / "cut.jsonl")


def test_columns_can_be_named(photos, tmp_path):
    lines = ["image,first,second", *(f"{s}.jpg,x{c},{c}" for s, c in PAIRS)]
    table = written(photos / "two.csv", lines)
    message = r"wanted rows of image and class, got image, first, second .*--columns IMAGE,CLASS"
    with pytest.raises(ShardError, match=message):
        find(table)
    for columns in (("image", "second"), ("1", "3")):
        check(find(table, columns=columns))
    assert find(table, columns=("image",)).classes == []
    with pytest.raises(ShardError, match=r"wanted a column third, got image, first, second"):
        find(table, columns=("image", "third"))
    with pytest.raises(ShardError, match=r"wanted a table as the source"):
        shards.build(photos / "train", tmp_path / "set", columns=("image",))


def test_several_classes_in_a_row_are_refused(photos):
    lines = ["image,ant,bee", *(f"{s}.jpg,1,1" for s in STEMS)]
    with pytest.raises(ShardError, match=r"wanted one class an image, got ant, bee"):
        find(written(photos / "many.csv", lines))


def test_rows_without_a_class_keep_their_images(photos):
    lines = ["image,label", *(f"{s}.jpg,{'1.0' if n < 2 else ''}" for n, s in enumerate(STEMS))]
    source = find(written(photos / "partly.csv", lines))
    assert source.classes == ["1"]
    assert [image.label for image in source.samples] == [0, 0, -1, -1, -1, -1]
    lines = ["image,label", *(f"{s}.jpg,{n - 1}" for n, s in enumerate(STEMS))]
    source = find(written(photos / "minus.csv", lines))
    assert source.classes == ["0", "1", "2", "3", "4"]
    assert source.samples[0].label == -1


def test_kaggles_list_of_imagenet_gives_synsets(photos):
    lines = [
        "ImageId,PredictionString",
        *(f"{s},n0175174{n % 3} 1 2 3 4" for n, s in enumerate(STEMS)),
    ]
    check(find(written(photos / "loc.csv", lines)), ["n01751740", "n01751741", "n01751742"])


def test_a_list_of_numbers_alone_is_of_the_sorted_images(photos, tmp_path):
    (tmp_path / "kit").mkdir()
    table = written(tmp_path / "kit/ground_truth.txt", ["9", "10", "11", "9", "10", "11"])
    source = find(table, image_root=photos / "train")
    check(source, ["9", "10", "11"])
    assert "not the positions of the sorted synsets" in source.notes[1]
    with pytest.raises(ShardError, match=r"an image for each of 6 numbers, got 0 .*--image-root"):
        find(table)


SYNSETS = ["n02119789", "n02100735", "n02110185"]  # in the order of the devkit, not sorted


def devkit(tmp_path):
    """ImageNet's list of numbers alone, as its devkit has it."""
    folder = tmp_path / "kit/data"
    folder.mkdir(parents=True)
    return written(folder / "ILSVRC2012_validation_ground_truth.txt", [3, 1, 2, 3, 1, 2])


def check_synsets(source):
    assert source.classes == sorted(SYNSETS)
    names = [source.classes[image.label] for image in source.samples]
    assert names == [SYNSETS[number - 1] for number in (3, 1, 2, 3, 1, 2)]


def test_numbers_of_imagenets_devkit_are_looked_up_in_its_meta_mat(photos, tmp_path):
    io = pytest.importorskip("scipy.io")
    records = [(n, name, "words") for n, name in enumerate(SYNSETS, 1)]
    records.append((4, "n00001740", "a node above"))
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    table = devkit(tmp_path)
    io.savemat(table.parent / "meta.mat", {"synsets": np.array(records, kinds).reshape(-1, 1)})
    source = find(table, image_root=photos / "train")
    check_synsets(source)
    assert "their numbers are looked up in" in source.notes[1]
    (table.parent / "meta.mat").write_bytes(b"another file")
    with pytest.raises(ShardError, match=r"meta\.mat is no meta\.mat of ImageNet"):
        find(table, image_root=photos / "train")


def test_without_scipy_the_numbers_stay_and_that_is_told(photos, tmp_path, monkeypatch):
    table = devkit(tmp_path)
    (table.parent / "meta.mat").touch()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    source = find(table, image_root=photos / "train")
    assert source.classes == ["1", "2", "3"]
    assert "pip install 'care-ssl[imagenet]'" in source.notes[1]


def test_numbers_of_imagenets_devkit_are_looked_up_in_a_text(photos, tmp_path):
    table = devkit(tmp_path)
    lines = [f"{name} {number} a_name" for number, name in enumerate(SYNSETS, 1)]
    written(table.parent / "map_clsloc.txt", lines)
    check_synsets(find(table, image_root=photos / "train"))
    written(table.parent / "map_clsloc.txt", lines[:2])
    source = find(table, image_root=photos / "train")
    assert source.classes == ["1", "2", "3"]
    assert "it has no synset of 3" in source.notes[1]


def test_numbers_of_other_lists_are_positions_of_the_sorted_synsets(photos):
    lines = [f"train/{stem}.jpg {number % 3}" for number, stem in enumerate(STEMS)]
    table = written(photos / "val.txt", lines)
    check(find(table), ["0", "1", "2"])
    written(photos / "synset_words.txt", [f"{name} a, b" for name in sorted(SYNSETS)])
    check(find(table), sorted(SYNSETS))
    check(find(written(photos / "names.csv", TABLES["ids.csv"])))


def test_a_name_that_several_images_have_is_not_guessed(photos):
    populate(photos / "test", [f"{STEMS[0]}.jpg"])
    source = find(written(photos / "ids.csv", TABLES["ids.csv"]))
    assert source.rejects == [(Reject.NO_IMAGE, STEMS[0])]
    lines = ["id,label", *(f"test/{s},{c}" for s, c in PAIRS)]
    assert find(written(photos / "paths.csv", lines)).samples[0].name == f"test/{STEMS[0]}.jpg"


def test_images_that_are_not_there_are_told_with_the_places(photos):
    lines = ["image,label", *(f"x{s}.jpg,{c}" for s, c in PAIRS)]
    with pytest.raises(ShardError, match=r"none of the 6 images .* is there, such as x0000a") as e:
        find(written(photos / "gone.csv", lines))
    assert str(photos) in str(e.value)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_hugging_faces_metadata_give_a_folder_its_classes(photos, name):
    lines = TABLES["lines.jsonl"]
    if name.endswith("csv"):
        lines = ["file_name,label", *(f"{s}.jpg,{c}" for s, c in PAIRS)]
    written(photos / "train" / name, lines[:-1])
    source = find(photos / "train")
    assert source.classes == ["ant", "bee", "cat"]
    assert [image.label for image in source.samples] == [0, 1, 2, 0, 1, -1]
    assert source.rejects == []  # it was read
    assert find(photos).classes == source.classes


def parquet(path, **columns):
    """A Parquet file of some columns."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table(columns), path)
    return path


def test_a_parquet_table_is_read_as_any_other(photos):
    names = [f"{stem}.jpg" for stem in STEMS]
    check(find(parquet(photos / "names.parquet", image=names, label=CLASSES)))
    check(find(parquet(photos / "ids.parquet", id=STEMS, breed=CLASSES)))
    numbers = [0.0, 1.0, 2.0] * 2
    check(find(parquet(photos / "float.parquet", file=names, y=numbers)), ["0", "1", "2"])
    index = {"__index_level_0__": list(range(6))}  # as pandas writes it
    boxes = [[1, 2, 3, 4]] * 6
    check(find(parquet(photos / "p.parquet", file=names, what=CLASSES, box=boxes, **index)))
    half = [*CLASSES[:3], None, None, None]
    source = find(parquet(photos / "half.parquet", file=names, label=half))
    assert [image.label for image in source.samples] == [0, 1, 2, -1, -1, -1]


def test_a_parquet_table_of_metadata_gives_a_folder_its_classes(photos):
    names = [f"{stem}.jpg" for stem in STEMS]
    parquet(photos / "train/metadata.parquet", file_name=names, label=CLASSES)
    source = find(photos / "train")
    assert [image.label for image in source.samples] == [0, 1, 2, 0, 1, 2]
    assert source.rejects == []


def test_a_parquet_table_that_is_none_or_has_images_inside_is_one_line(photos):
    pytest.importorskip("pyarrow")
    (photos / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ShardError, match=r"bad\.parquet cannot be read as a table"):
        find(photos / "bad.parquet")
    images = [{"bytes": b"...", "path": None}] * 6
    table = parquet(photos / "hub.parquet", image=images, label=[0, 1, 2] * 2)
    with pytest.raises(ShardError, match="images inside, in the column image"):
        find(table)


def test_without_pyarrow_a_parquet_table_says_what_to_install(photos, monkeypatch):
    (photos / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ShardError, match=r"needs pyarrow: pip install 'care-ssl\[parquet\]'"):
        find(photos / "t.parquet")


def test_metadata_without_classes_leave_those_of_the_folders(tmp_path):
    populate(tmp_path, ["ant/1.jpg", "bee/1.jpg"])
    written(tmp_path / "metadata.jsonl", ['{"file_name": "ant/1.jpg", "text": "an ant"}'])
    source = find(tmp_path)
    assert source.classes == ["ant", "bee"]
    assert source.notes == ["metadata.jsonl has no column of classes"]


def test_tables_beside_images_that_are_not_read_are_told(photos):
    written(photos / "labels.csv", TABLES["ids.csv"])
    assert "tables that were not read: labels.csv; if" in find(photos).notes[0]


def test_a_voc_list_is_no_table(tmp_path):
    populate(tmp_path / "JPEGImages", ["a.jpg"])
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><filename>a.jpg</filename></annotation>"
    )
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    table = written(tmp_path / "ImageSets/Main/train.txt", ["a.jpg"])
    assert len(find(table).samples) == 1
    assert shards.build(table, tmp_path / "set").sha256.keys() >= {"annotations.json"}
