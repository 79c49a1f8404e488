"""``torchrun … -m care.train`` for processes on many machines: the command ``care pretrain``."""

from importlib import import_module

if __name__ == "__main__":
    # by name: the command line is a layer above, which this package does not import
    import_module("flows.cli.pretrain").main()
