"""`python -m ordinaut` is `ordinaut`."""

from ordinaut.cli.main import main

main()
