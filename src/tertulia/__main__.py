"""`python -m tertulia`: the command line."""

from tertulia.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
