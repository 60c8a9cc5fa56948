"""`python -m capprune` is `capprune`."""

from capprune.cli.app import main

main()
