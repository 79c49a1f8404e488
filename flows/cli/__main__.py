"""``python -m flows.cli`` is ``care``."""

from flows.cli.root import main

if __name__ == "__main__":
    main()
