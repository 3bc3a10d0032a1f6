"""``python -m embedpress`` is the command line."""

from embedpress.cli import main

if __name__ == "__main__":
    main()
