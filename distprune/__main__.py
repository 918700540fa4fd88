"""`python -m distprune` is the `distprune` command."""

from distprune.cli.app import main

if __name__ == "__main__":
    main()
