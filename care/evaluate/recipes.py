"""Published recipes of fine-tuning on few labels."""

_BYOL = (0.00125, 0.0025, 0.005, 0.0125, 0.025)  # 0.005 … 0.1 at 1,024 images
RECIPES = {  # as published: learning rates for 256 images, the head's for each of the encoder's, epochs, images a step
    "swav": ((0.02, 0.01), (5.0, 0.2), (20,), 256),  # its rates for 1 % and for 10 % of ImageNet
    "barlow-twins": ((0.005,), (0.5,), (20,), 256),  # for 1 %
    "byol": (_BYOL, _BYOL, (30, 50), 1024),
}
