"""``python -m freezeflow``."""

from freezeflow.cli import main

if __name__ == "__main__":
    main()
