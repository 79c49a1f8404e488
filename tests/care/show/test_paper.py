"""The tables against a second transcription, method by method."""

import csv
import itertools
from importlib.resources import files
from care.show.paper import paper

R50, R50X2, R101, R152 = "ResNet-50", "ResNet-50 (2×)", "ResNet-101", "ResNet-152"
SCRATCH = "random initialisation"
LINEAR = {  # top-1 after 100, 200, 400 epochs; Table 1a
    "SimCLR": "66.5 – –",
    "SwAV": "– 69.1 –",
    "SimSiam": "68.1 70.0 70.8",
    "InfoMin": "– 70.1 –",
    "BYOL": "66.5 70.6 73.2",
    "Barlow Twins": "– – 72.5",
    "CARE": "72.0 73.8 74.7",
}
OTHERS = {  # Table 1b
    ("BYOL", R50X2, 100): 71.9,
    ("BYOL", R101, 100): 72.3,
    ("BYOL", R152, 100): 73.3,
    ("CMC", R50X2, None): 70.6,
    ("BYOL", "ViT-S", 300): 71.0,
    ("BYOL", "ViT-B", 300): 73.9,
    ("MoCo v3", "ViT-S", 300): 72.5,
    ("CARE", R50, 200): 73.8,
    ("CARE", R50X2, 100): 73.5,
    ("CARE", R50X2, 200): 75.0,
    ("CARE", R101, 100): 73.5,
    ("CARE", R152, 100): 74.9,
}
README = {R50: "72.02 90.02", R50X2: "73.51 91.66", R101: "73.54 91.63", R152: "74.59 92.09"}
LONGER = {  # top-1 and top-5, Table 2
    ("CARE", 200): "73.8/91.5 75.0/92.2 75.9/92.7 76.6/93.1",
    ("CARE", 400): "74.7/92.0 76.5/93.0 76.9/93.3 77.4/93.6",
    ("CARE", 800): "75.6/92.3 77.0/93.2 77.2/93.5 78.1/93.8",
    ("BYOL", 800): "74.3/91.7 76.2/92.8 76.6/93.2 77.3/93.3",
}
FEW = {  # top-1 with 1 % and 10 %, then top-5; Table 3
    ("supervised", R50, None): "25.4 56.4 48.4 80.4",
    ("PIRL", R50, None): "– – 57.2 83.8",
    ("SimCLR", R50, 800): "48.3 65.6 75.5 87.8",
    ("BYOL", R50, 800): "53.2 68.8 78.4 89.0",
    ("CARE", R50, 400): "60.0 69.6 81.3 89.3",
    ("BYOL", R50X2, 100): "55.6 66.7 77.5 87.7",
    ("BYOL", R101, 100): "55.8 65.8 79.5 87.4",
    ("BYOL", R152, 100): "56.8 67.2 79.3 88.1",
    ("CARE", R50X2, 100): "57.4 67.5 79.8 88.3",
    ("CARE", R101, 100): "57.1 67.1 80.8 88.2",
    ("CARE", R152, 100): "59.4 69.0 82.3 89.0",
    ("CARE", R50X2, 200): "61.2 69.6 82.3 89.5",
    ("CARE", R101, 200): "62.2 70.4 85.0 89.8",
}
C4 = {  # COCO's boxes, masks, VOC's boxes; Table 4
    (SCRATCH, None): "26.4 44.0 27.8 29.3 46.9 30.8 33.8 60.2 33.1",
    ("supervised", 90): "38.2 58.2 41.2 33.3 54.7 35.2 53.5 81.3 58.8",
    ("PIRL", 200): "37.4 56.5 40.2 32.7 53.4 34.7 55.5 81.0 61.3",
    ("MoCo", 200): "38.5 58.3 41.6 33.6 54.8 35.6 55.9 81.5 62.6",
    ("MoCo v2", 200): "38.9 58.4 42.0 34.2 55.2 36.5 57.0 82.4 63.6",
    ("MoCo v2", 800): "39.3 58.9 42.5 34.4 55.8 36.5 57.4 82.5 64.0",
    ("SwAV", 200): "32.9 54.3 34.5 29.5 50.4 30.4 – – –",
    ("SwAV", 800): "38.4 58.6 41.3 33.8 55.2 35.9 56.1 82.6 62.7",
    ("Barlow Twins", 1000): "39.2 59.0 42.5 34.3 56.0 36.5 56.8 82.6 63.4",
    ("BYOL", 200): "39.2 58.9 42.4 34.3 55.6 36.7 57.0 82.3 63.6",
    ("CARE", 200): "39.4 59.2 42.6 34.6 56.1 36.8 57.7 83.0 64.5",
    ("CARE", 400): "39.6 59.4 42.9 34.7 56.1 36.9 57.9 83.0 64.7",
}
FPN = {  # boxes, masks; Table 5
    (SCRATCH, None): "31.0 49.5 33.2 28.5 46.8 30.4",
    ("supervised", 90): "38.9 59.6 42.7 35.4 56.5 38.1",
    ("PIRL", 200): "37.5 57.6 41.0 34.0 54.6 36.2",
    ("MoCo", 200): "38.5 58.9 42.0 35.1 55.9 37.7",
    ("MoCo v2", 200): "38.9 59.4 42.4 35.5 56.5 38.1",
    ("MoCo v2", 800): "39.4 59.9 43.0 35.8 56.9 38.4",
    ("SwAV", 200): "38.5 60.4 41.4 35.4 57.0 37.7",
    ("BYOL", 200): "39.1 59.5 42.7 35.6 56.5 38.2",
    ("BYOL", 400): "39.2 59.6 42.9 35.6 56.7 38.2",
    ("BYOL", 800): "39.4 59.9 43.0 35.8 56.8 38.5",
    ("Barlow Twins", 1000): "36.9 58.5 39.7 34.3 55.4 36.5",
    ("CARE", 200): "39.5 60.2 43.1 35.9 57.2 38.5",
    ("CARE", 400): "39.8 60.5 43.5 36.2 57.4 38.8",
}
ABLATIONS = {  # Tables 6, 7, 8, and the text of Sec. 4.3
    "λ": (
        "6",
        {"λ = 0": 70.52, "λ = 1": 70.88, "λ = 10": 70.96, "λ = 100": 72.06, "λ = 250": 72.00},
    ),
    "blocks": (
        "7",
        {
            "2 blocks": 71.08,
            "3 blocks": 71.60,
            "4 blocks": 71.79,
            "5 blocks": 72.06,
            "6 blocks": 69.37,
        },
    ),
    "positions": (
        "8",
        {
            "no positions": 69.49,
            "sin-cos absolute": 66.68,
            "learnable absolute": 72.01,
            "learnable relative": 72.06,
        },
    ),
    "sequential or parallel": ("Sec. 4.3", {"sequential": 69.32, "parallel": 72.02}),
}
TOPS = ("top1", "top5")
BOXES = ("ap", "ap50", "ap75")
MASKS = ("mask_ap", "mask_ap50", "mask_ap75")
MEASURES = (*TOPS, *BOXES, *MASKS)
MORE_AND_LESS = (
    ("top5", "top1"),
    ("ap50", "ap75"),
    ("ap50", "ap"),
    ("mask_ap50", "mask_ap75"),
    ("mask_ap50", "mask_ap"),
)


def split(text):
    return [None if cell == "–" else float(cell) for cell in text.replace("/", " ").split()]


def named(names, values):
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


class Wanted:
    """(source, task, method, encoder, epochs) → (tables, measures)."""

    def __init__(self):
        self.rows = {}
        self.add_linear()
        self.add_few_labels()
        self.add_detection()
        self.add_ablations()

    def add(self, table, key, measures, source="paper"):
        if not measures:
            return
        tables, before = self.rows.setdefault((source, *key), (set(), {}))
        if table:
            tables.add(table)
        assert all(before.get(name, value) == value for name, value in measures.items()), key
        before.update(measures)

    def add_linear(self):
        for method, text in LINEAR.items():
            for epochs, top1 in zip((100, 200, 400), split(text), strict=True):
                self.add("1a", ("linear", method, R50, epochs), named(["top1"], [top1]))
        for key, top1 in OTHERS.items():
            self.add("1b", ("linear", *key), {"top1": top1})
        for (method, epochs), text in LONGER.items():
            for encoder, tops in zip((R50, R50X2, R101, R152), text.split(), strict=True):
                self.add("2", ("linear", method, encoder, epochs), named(TOPS, split(tops)))
        for encoder, tops in README.items():
            key = ("linear", "CARE", encoder, 100)
            self.add("", key, named(TOPS, split(tops)), source="released README")

    def add_few_labels(self):
        for (method, encoder, epochs), text in FEW.items():
            table = "3a" if encoder == R50 else "3b"
            values = split(text)
            for part, tops in (("1 %", values[0::2]), ("10 %", values[1::2])):
                key = (f"{part} of the labels", method, encoder, epochs)
                self.add(table, key, named(TOPS, tops))

    def add_detection(self):
        for (method, epochs), text in C4.items():
            values = split(text)
            self.add("4", ("COCO C4", method, R50, epochs), named(BOXES + MASKS, values[:6]))
            self.add("4", ("VOC C4", method, R50, epochs), named(BOXES, values[6:]))
        for (method, epochs), text in FPN.items():
            self.add("5", ("COCO FPN", method, R50, epochs), named(BOXES + MASKS, split(text)))

    def add_ablations(self):
        for name, (table, values) in ABLATIONS.items():
            for variant, top1 in values.items():
                key = (f"ablation {name}", f"CARE ({variant})", R50, 100)
                self.add(table, key, {"top1": top1})


def key_of(row):
    return tuple(row[name] for name in ("source", "task", "method", "encoder", "epochs"))


def measures(row):
    return {name: row[name] for name in MEASURES if row[name] is not None}


def test_every_number_is_the_papers():
    read = {}
    for row in paper():
        tables = {row["table"]} if row["table"].startswith("Sec.") else set(row["table"].split())
        read[key_of(row)] = (tables, measures(row))
    want = Wanted().rows
    assert len(want) > 100
    assert read == want


def test_no_row_is_there_twice():
    keys = [key_of(row) for row in paper()]
    assert len(keys) == len(set(keys)) == 119


def test_the_numbers_are_possible():
    for row in paper():
        assert measures(row), row
        assert all(0 < value < 100 for value in measures(row).values()), row
        for more, less in MORE_AND_LESS:
            assert measures(row).get(more, 100) >= measures(row).get(less, 0), row
        assert row["epochs"] is None or 90 <= row["epochs"] <= 1000
        assert row["source"] == "paper" or (row["source"] == "released README" and not row["table"])


def test_sizes_are_those_that_are_printed():
    printed = {
        R50: (25, 4.1),
        R50X2: (69, 11.4),
        R101: (45, 7.8),
        R152: (60, 11.6),
        "ViT-B": (86, 17.7),
        "ViT-S": (None, 4.6),
    }
    sized = {row["encoder"]: (row["params"], row["gflops"]) for row in paper() if row["gflops"]}
    assert sized == printed
    for row in paper():
        tables = {"1b", "2"} & set(row["table"].split())
        want = printed[row["encoder"]] if tables else (None, None)
        assert (row["params"], row["gflops"]) == want, row


def test_the_rows_of_a_task_stand_together():
    tasks = [row["task"] for row in paper()]
    assert [task for task, _ in itertools.groupby(tasks)] == list(dict.fromkeys(tasks))
    assert tasks.count("VOC C4") == 11
    task = "ablation sequential or parallel"
    methods = [row["method"] for row in paper() if row["task"] == task]
    assert methods == ["CARE (sequential)", "CARE (parallel)"]


def test_every_cell_of_the_file_reaches_its_field():
    text = files("care").joinpath("paper.csv").read_text("utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    texts = ["source", "table", "task", "method", "encoder"]
    for line, row in zip(lines, paper(), strict=True):
        assert list(line) == list(row) == [*texts, "epochs", "params", "gflops", *MEASURES]
        for name, cell in line.items():
            number = float(cell) if cell and name not in texts else None
            assert row[name] == (cell if name in texts else number), (name, line)
