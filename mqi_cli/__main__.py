"""`python -m mqi_cli` is `mqi`."""

from mqi_cli.cli.main import main

if __name__ == "__main__":
    main()
