"""Run the command line as `python -m activelearn`."""

from activelearn.cli import main

if __name__ == "__main__":
    main()
