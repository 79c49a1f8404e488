"""Each row of the tables in docs/data.md is a test: here is which."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECTIONS = (
    "Folders and tables",
    "Annotated images",
    "Several classes an image",
    "Tars",
    "Pixels",
    "Any iterable",
    "When an input is another one",
)
HEADS = ("layout |", "written |", "files |", "part |", "input |")
# the beginning of a row, and its test
TESTS = {
    "class folders": "sources:class_folders",
    "a flat folder": "sources:a_flat_folder_has_no_labels",
    "class folders beside": "sources:images_beside_class_folders_have_no_class",
    "folders around": "folders:folders_around_the_classes_are_none",
    "parts:": "folders:parts_are_no_classes_whatever_their_case_or_ending",
    "all parts": "sets:each_part_is_a_set_of_its_own",
    "one source into": "sets:the_same_share_of_every_class_is_held_out",
    "`images` or `train`": "folders:a_folder_that_says_only_images_is_no_class",
    "a table:": "tables:a_table_of_any_tool_gives_images_and_classes",
    "ids without": "tables:a_table_of_any_tool_gives_images_and_classes",
    "images anywhere else | `care shards build labels": "tables:a_table_far_from_its_images_needs_"
    "their_folder",
    "one-hot": "tables:several_classes_in_a_row_are_refused",
    "more columns": "tables:columns_can_be_named",
    "lists of words": "tables:numbers_of_other_lists_are_positions_of_the_sorted_synsets",
    "Kaggle's": "tables:kaggles_list_of_imagenet_gives_synsets",
    "numbers alone": "tables:numbers_of_imagenets_devkit_are_looked_up_in_its_meta_mat",
    "JSON lines": "tables:a_parquet_table_is_read_as_any_other",
    "Hugging Face's": "tables:hugging_faces_metadata_give_a_folder_its_classes",
    "a table of links": "links:links_are_fetched_whatever_their_form",
    "COCO:": "annotated_lists:where_cocos_images_are_looked_for",
    "CVAT, datumaro": "coco_layouts:images_are_found",
    "Ultralytics": "coco_layouts:images_are_found",
    "`person_keypoints_": "coco_layouts:images_are_found",
    "FiftyOne": "coco_layouts:images_are_found",
    "Label Studio": "coco_layouts:images_are_found",
    "Roboflow": "coco_layouts:images_are_found",
    "a folder with `annotations": "folders:an_unrelated_annotations_file_is_another_file_and_told",
    "LVIS": "coco_content:images_may_have_an_address_only",
    "images anywhere else | `care shards build list": "coco_layouts:a_folder_can_be_named",
    "Pascal VOC": "voc_layouts:lines_of_lists",
    "a folder of VOC": "voc_layouts:a_devkit_of_one_list_is_read_and_of_several_is_told",
    "VOC without lists": "voc_layouts:folders_without_lists",
    "ids that are equal": "coco_content:what_is_clear_is_read",
    "an id of several": "coco_content:ids_of_several_images_are_listed",
    "no `bbox`": "coco_content:boxes_of_masks_are_pycocotools",
    "a mask of one": "coco_content:what_is_clear_is_read",
    "boxes that all": "coco_content:boxes_in_parts_of_the_sides_become_pixels",
    "no size": "annotated_lists:a_voc_annotation_without_size_takes_the_images",
    "a size that": "coco_layouts:images_stored_lying_are_told_and_left_out",
    "`<filename>`": "voc_layouts:what_tools_write_as_filename",
    "an image in a VOC": "voc_layouts:an_image_without_annotation_is_kept_without_objects",
    "an entry without": "coco_content:each_broken_entry_is_alone",
    "WebDataset": "foreign:img2datasets_and_webdatasets_own_tars_are_read",
    "names with dots": "tars:views_and_names_with_dots_are_samples_each",
    "label maps": "tars:maps_beside_an_image_are_no_samples",
    "classes in `7.json`": "tars:a_json_or_txt_is_a_label_where_its_values_are_classes",
    "classes in `7.txt`": "tars:a_json_or_txt_is_a_label_where_its_values_are_classes",
    "a tar of class": "tars:folders_in_a_tar_are_classes_unless_it_is_a_webdataset",
    "ImageNet's": "tars:imagenets_tar_of_tars_has_its_classes",
    "tars and a few": "tars:a_picture_beside_shards_is_not_the_set",
    "images and a tar": "tars:a_tar_beside_images_is_told",
    "`.tar.gz`": "tars:a_folder_of_tars_is_read_at_any_depth_and_compressed_ones_are_refused",
    "members that": "tars:what_a_mac_leaves_in_a_tar_is_junk",
    "links, devices": "foreign:odd_members_are_named_and_nothing_leaves_the_folder",
    "`photo.jpg,cat;dog`": "multilabels:a_table_says_all_classes_of_an_image",
    "`photo.jpg,cat,dog`": "multilabels:a_table_says_all_classes_of_an_image",
    '`"cat, dog"`': "multilabels:names_with_blanks_and_commas_stay_whole",
    "several rows": "multilabels:rows_of_one_image_are_one_image_but_flags_count_once",
    "a column of 1": "multilabels:a_table_says_all_classes_of_an_image",
    "blank cells": "multilabels:blanks_beside_zeros_are_undecided_and_said",
    "1, 0 and": "multilabels:what_is_not_clear_is_refused_in_one_line",
    "a class of val": "multilabels:what_is_not_there_and_what_does_not_count_is_listed",
    "integers of": "pixels:twelve_bits_fill_the_grey_levels_in_every_container",
    "`NaN`": "pixels:pixels_without_a_value_are_black_and_do_not_count",
    "transparency": "pixels:transparency_stays_what_it_is",
    "a fourth band that": "pixels:near_infrared_that_is_called_alpha_is_left_out",
    "a fourth band of": "pixels:a_fourth_band_of_another_name_is_left_out",
    "red, green, blue and": "four_bands:four_bands_are_kept_as_they_are_in_the_order_that_is_named",
    "two bands": "pixels:many_bands_are_refused_until_three_are_chosen",
    "TIFFs that": "pixels:tiffs_that_pillow_misreads_are_read_by_tifffile",
    "TIFFs of several": "images:the_first_frame_of_an_animation",
    "HEIC": "pixels:plugins_give_lossless_pngs_of_upright_images",
    "TGA": "pixels:kinds_that_are_not_read_say_what_helps",
    "more than 89": "pixels:a_large_jpeg_is_read_at_a_fraction",
    "images with a side": "pixels:small_images_can_be_left_out",
    "key |": "iterables:webdataset_reads_a_set_whatever_the_keys",
    "image |": "iterables:what_is_yielded_is_in_the_set_pixel_by_pixel",
    "label |": "iterables:a_label_is_a_name_a_number_or_none",
    "local files": "contents:files_that_stay_are_read_once",
    "objects in": "contents:objects_are_told_by_their_tags_and_not_read",
    "annotation files": "boxes:the_digest_follows_boxes_classes_and_images_alone",
    "weights, runs": "flows/identity:an_encoder_is_known_by_its_checkpoint_wherever_the_folder_"
    "lies",
    "links (": "contents:links_and_what_is_no_file_have_none",
    "samples of": "iterables:equal_pixels_are_equal_content_and_others_are_not",
}


def rows():
    """The rows of the page's tables of layouts, without their heads."""
    page = (ROOT / "docs/data.md").read_text()
    sections = dict(re.findall(r"(?m)^## (.*)\n([^#]*(?:#(?!#)[^#]*)*)", page))
    lines = [line for name in SECTIONS for line in sections[name].splitlines()]
    cells = [line.removeprefix("| ") for line in lines if line.startswith("| ")]
    return [row for row in cells if not row.startswith(HEADS)]


def test_each_row_has_a_test():
    longest_first = sorted(TESTS, key=len, reverse=True)
    matches = {
        row: next((beginning for beginning in longest_first if row.startswith(beginning)), None)
        for row in rows()
    }
    assert [row for row, beginning in matches.items() if beginning is None] == []
    assert {*TESTS} - {*matches.values()} == set()


def test_each_of_these_tests_exists():
    for name in {*TESTS.values()}:
        room, _, function = name.partition(":")
        package, _, room = room.rpartition("/")
        file = ROOT / "tests" / (package or "shards") / f"test_{room}.py"
        tree = ast.parse(file.read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert f"test_{function}" in functions, name
