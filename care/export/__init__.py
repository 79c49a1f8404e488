"""An encoder for where it is used: torchvision, timm, transformers, detectron2, ONNX.

Here live the forms in which other libraries have encoders, a file each, and what all of them get:
preprocessing, a model card, a check. What does not: results as text, which are in ``care.show``,
and the file that a run leaves, which is ``care.train``'s. The invariant: what is under its name was
read by the library that it is for, and has the encoder's features, or says that nobody asked;
``tests/care/export`` holds it.
"""

from care.export.encoder_export import FORMS, Exported, export_encoder

__all__ = ["FORMS", "Exported", "export_encoder"]
